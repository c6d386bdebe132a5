"""Data that fail or mislead: skipped, gone around, or told; nothing is lost."""

import itertools
import json
import multiprocessing
import os
import signal

import jax
import numpy as np
import pytest
import regression_system as tiny

from gptface_jax.core.errors import UserError
from gptface_jax.data import pipeline
from gptface_jax.train.checkpoint import restore_params
from gptface_jax.train.loop import train
from gptface_jax.train.monitors import SpikeMonitor
from gptface_jax.train.settings import SpikeConfig


def run(workdir, batches=tiny.batches_fn, **changes):
    config = tiny.config(**changes)
    return train(config, tiny.make_system(), batches, workdir, progress=False)


def records(workdir):
    return [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]


def losses(workdir):
    return [(r["step"], r["loss"]) for r in records(workdir) if "loss" in r]


def spoilt(change):
    """Batches of which `change` (number -> batch or None) replaces some."""

    def batches_fn(start):
        for number, batch in enumerate(tiny.batches_fn(start), start):
            changed = change(number, batch["pairs"])
            yield {"pairs": changed} if changed else batch

    return batches_fn


def with_nan(*numbers):
    def change(number, batch):
        if number in numbers:
            return {**batch, "x": np.full_like(batch["x"], np.nan)}

    return spoilt(change)


def test_a_nan_is_skipped_and_the_rest_is_learnt(tmp_path):
    options = {"bad_batch": "skip", "total_steps": 12}
    final = run(tmp_path / "whole", with_nan(4, 9), **options)
    assert int(final.step) == 12
    skipped = [r["step"] for r in records(tmp_path / "whole") if "skipped" in r]
    assert skipped == [5, 10]
    assert [s for s, _ in losses(tmp_path / "whole")] == [
        1,
        2,
        3,
        4,
        6,
        7,
        8,
        9,
        11,
        12,
    ]
    # 10 of 12 batches were learnt from.
    assert int(final.state["seen"]) == 10 * 16
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(final.params))
    # Resumed behind the first bad batch it is the same run.
    run(tmp_path / "cut", with_nan(4, 9), **{**options, "total_steps": 12}, keep=9)
    os.rename(tmp_path / "cut/checkpoints/8", tmp_path / "8")
    os.rename(tmp_path / "cut/checkpoints/12", tmp_path / "12")
    again = run(tmp_path / "cut", with_nan(4, 9), **options)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(final)):
        np.testing.assert_array_equal(a, b)


def test_too_many_bad_batches_stop_all_the_same(tmp_path):
    always_bad = with_nan(*range(5, 100))
    with pytest.raises(UserError, match=r"step 16: fit/loss = nan.*good .* step 12"):
        run(tmp_path, always_bad, bad_batch="skip", total_steps=40, checkpoint_every=4)


def test_spikes_are_noticed_by_hand():
    monitor = SpikeMonitor(SpikeConfig(factor=5.0, window=10, patience=2))
    calm = [1.0, 1.1, 0.9, 1.0, 1.05, 0.95, 1.0, 1.1]
    assert not any(monitor.seen(i, x) for i, x in enumerate(calm))
    # Median 1.0, spread 1.48 x 0.05: far off is above 1.37.
    assert monitor.seen(8, 1.36) is None and monitor.seen(9, 9.0) is None
    assert monitor.seen(10, 1.0) is None  # one alone is none
    assert monitor.seen(11, 9.0) is None
    assert monitor.seen(12, 8.0) == 11
    quiet = SpikeMonitor(SpikeConfig())
    assert not any(quiet.seen(i, x) for i, x in enumerate([1.0] * 60 + [1e9] * 9))


def blow_up(number, batch):
    """Batches 30 and 31 want the impossible."""
    if 30 <= number < 32:
        return {**batch, "y": batch["y"] * 1e3}


SPIKE = {"factor": 20.0, "window": 20, "patience": 2}


def test_a_spike_is_told(tmp_path):
    run(tmp_path, spoilt(blow_up), total_steps=40, spike=SPIKE)
    (event,) = [r for r in records(tmp_path) if "spike_at" in r]
    assert event == {"step": 32, "spike_at": 31}


def test_rewinding_passes_the_data_over(tmp_path):
    seen = []

    def recording(start):
        for number, batch in enumerate(spoilt(blow_up)(start), start):
            seen.append(number)
            yield batch

    options = {"total_steps": 40, "spike": {**SPIKE, "action": "rewind"}, "keep": 9}
    final = run(tmp_path, recording, **options)
    assert int(final.step) == 40
    (event,) = [r for r in records(tmp_path) if "rewound_from" in r]
    # Noticed at step 32 or, for the host reads one step late, 33.
    assert event["step"] == 28 and event["spike_at"] == 31
    assert event["rewound_from"] in (32, 33)
    passed_over = event["rewound_from"] - 28
    assert restore_params(tmp_path)[1]["data_position"] == 40 + passed_over
    steps = [s for s, _ in losses(tmp_path)]
    assert steps == list(range(1, 41))  # no step twice in the log
    # What was seen after the spike is seen no more; the rest once.
    again = seen[seen.index(event["rewound_from"] + 1) :]
    assert min(again) >= event["rewound_from"]
    # Resumed, it goes on behind the same data.
    starts = []

    def noting(start):
        starts.append(start)
        return spoilt(blow_up)(start)

    os.rename(tmp_path / "checkpoints/40", tmp_path / "40")
    run(tmp_path, noting, **options)
    assert starts == [36 + passed_over]


def test_a_run_that_ends_before_it_saves_again_stays_rewound(tmp_path):
    starts = []

    def gone(start):
        starts.append(start)
        if len(starts) == 2:
            raise OSError("the disk is gone")
        return spoilt(blow_up)(start)

    options = {"total_steps": 40, "spike": {**SPIKE, "action": "rewind"}}
    with pytest.raises((OSError, UserError), match="the disk is gone"):
        run(tmp_path, gone, **options)
    run(tmp_path, gone, **options)
    assert starts[0] == 0 and starts[1] == starts[2] > 31
    assert not [r for r in records(tmp_path) if r.get("spike_at") and r["step"] > 28]


@pytest.mark.slow
def test_a_checkpoint_inside_a_spike_is_gone_after_the_rewind(tmp_path):
    def longer(number, batch):
        if 30 <= number < 33:
            return {**batch, "y": batch["y"] * 1e3}

    kept = []

    def listing(start):
        kept.append([int(p.name) for p in tmp_path.glob("checkpoints/[0-9]*")])
        return spoilt(longer)(start)

    spike = {**SPIKE, "patience": 3, "action": "rewind"}
    run(tmp_path, listing, total_steps=40, spike=spike, keep=9)
    (event,) = [r for r in records(tmp_path) if "rewound_from" in r]
    assert event["step"] == 28 and event["spike_at"] == 31
    assert max(kept[1]) == 28  # step 32 was saved before the spike was noticed
    # Written anew, behind the data that were passed over.
    saved = restore_params(tmp_path, 32)[1]["data_position"]
    assert saved == 32 + event["rewound_from"] - 28


@pytest.mark.slow
def test_a_loss_that_spikes_again_and_again_stops(tmp_path):
    def always(number, batch):
        return {**batch, "y": batch["y"] * 1e3} if number >= 30 else None

    options = {**SPIKE, "action": "rewind", "max_rewinds": 2}
    with pytest.raises(UserError, match="has been rewound 2 times"):
        run(tmp_path, spoilt(always), total_steps=60, spike=options)


def test_data_that_fail_lose_no_step(tmp_path):
    def failing(start):
        yield from itertools.islice(tiny.batches_fn(start), 6 - start)
        raise OSError("the disk is gone")

    with pytest.raises(UserError, match="failed after step 6: the disk is gone; run"):
        run(tmp_path / "cut", failing)
    assert restore_params(tmp_path / "cut")[1]["step"] == 6
    run(tmp_path / "cut")
    run(tmp_path / "whole")
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


class Numbers:
    def __len__(self):
        return 40

    def __getitem__(self, index):
        return int(index)


def example(index, rng):
    del rng
    return {name: x[0] for name, x in tiny.make_batch(index, size=1).items()}


def from_workers(start, kill_at=None):
    feed = pipeline.Pipeline(Numbers(), example, 16, 7, workers=1)
    for number, batch in enumerate(feed.batches(start), start):
        if number == kill_at:
            for child in multiprocessing.active_children():
                os.kill(child.pid, signal.SIGKILL)
        yield {"pairs": batch}


@pytest.mark.slow
def test_a_killed_data_worker_is_told_and_loses_no_step(tmp_path):
    with pytest.raises(UserError, match="the data failed after step") as caught:
        run(tmp_path / "cut", lambda s: from_workers(s, kill_at=5), total_steps=60)
    saved = restore_params(tmp_path / "cut")[1]["step"]
    assert f"after step {saved}:" in str(caught.value)
    run(tmp_path / "cut", from_workers, total_steps=60)

    def plain(start):
        feed = pipeline.Pipeline(Numbers(), example, 16, 7)
        return ({"pairs": batch} for batch in feed.batches(start))

    run(tmp_path / "whole", plain, total_steps=60)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")
