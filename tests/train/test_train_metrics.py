"""Packing, averaging, the log file, throughput, and the prefetching thread."""

import json
import time

import jax
import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.train import metrics
from gptface_jax.train.host import Prefetch


def test_pack_and_unpack_keep_names_and_pairs():
    packer = metrics.Packer()
    packed = jax.jit(lambda x: packer.pack({"b": (x, 2), "a": (1.5, x * 2)}))(3.0)
    assert packed.shape == (2, 2)
    assert packer.unpack(packed) == {"b": (3.0, 2.0), "a": (1.5, 6.0)}


def test_the_mean_is_taken_once():
    average = metrics.Average()
    average.add({"loss": (1.0, 1.0), "empty": (0.0, 0.0)})
    average.add({"loss": (9.0, 3.0)})
    assert average.means() == {"loss": 2.5}


def test_what_is_not_finite_is_named_losses_first():
    values = {
        "image_nll": (1.0, 1),
        "text_nll": (np.nan, 1),
        "d/loss": (-np.inf, 1),
        "grad_norm": (np.nan, 1),
        "itm_loss": (np.inf, 1),
        "psnr": (np.nan, 1),
    }
    found = metrics.non_finite(values)
    assert found == "d/loss = -inf, grad_norm = nan, text_nll = nan, itm_loss = inf"
    assert metrics.non_finite({"loss": (1.0, 0.0)}) == ""


def test_the_log_drops_lines_beyond_the_restored_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "loss": 3}\n{"step": 3}\n{"step": 2, "x')
    log = metrics.JsonLines(path, 2)
    log.write({"step": 3, "loss": float("nan"), "n": 1})
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3]
    assert lines[-1] == {"step": 3, "loss": None, "n": 1}


def test_an_unwritable_log_is_one_line(tmp_path):
    with pytest.raises(UserError, match="cannot write"):
        metrics.JsonLines(tmp_path / "no" / "metrics.jsonl", 0)


def test_a_full_disk_while_logging_is_one_line(tmp_path):
    log = metrics.JsonLines(tmp_path / "metrics.jsonl", 0)
    log.file = open("/dev/full", "w")
    with pytest.raises(UserError, match="No space left"):
        log.write({"step": 1})


def test_lines_that_are_taken_again_tell_what_they_cost(tmp_path):
    log = metrics.JsonLines(tmp_path / "metrics.jsonl", 0)
    assert log.lost == 0.0
    for step in (1, 2, 3, 4):
        log.write({"step": step, "seconds": 1.5})
    assert log.cut(2) == 3.0
    log.close()
    assert len((tmp_path / "metrics.jsonl").read_text().splitlines()) == 2


def test_waiting_counts_only_while_the_device_is_idle():
    def slow():
        for i in range(2):
            time.sleep(0.1)
            yield i

    assert Prefetch(slow(), lambda x: x).wait(lambda: False) == (0, 0.0)
    value, waited = Prefetch(slow(), lambda x: x).wait(lambda: True)
    assert value == 0 and 0.02 < waited < 5


def test_clock_leaves_out_the_first_step_and_pauses(monkeypatch):
    times = iter([0.0, 100.0, 100.5, 200.0, 200.5, 202.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(times))
    rate = metrics.StepRate(window=2.0)
    next(times)
    rate.tick()
    assert rate.per_second() is None
    rate.tick()
    assert rate.per_second() == 2.0
    rate.pause()
    rate.tick()
    rate.tick()
    assert rate.per_second() == 2.0
    rate.tick()  # spans 0.5, 0.5, 1.5: the window keeps the last two
    assert rate.per_second() == 1.0


def test_prefetch_keeps_order_and_ends():
    assert list(Prefetch(iter(range(5)), lambda x: x * 2)) == [0, 2, 4, 6, 8]


def test_prefetch_hands_over_errors():
    def source():
        yield 1
        raise OSError("broken picture")

    batches = Prefetch(source(), lambda x: x)
    assert next(batches) == 1
    with pytest.raises(OSError, match="broken picture"):
        next(batches)


def test_prefetch_closes_its_source():
    closed = []

    def endless():
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    batches = Prefetch(endless(), lambda x: x)
    next(batches)
    batches.close()
    assert closed == [True]
