"""Whole runs: resume, evaluation, best and latest, stopping, bad input."""

import dataclasses
import itertools
import json
import os
import signal

import jax
import numpy as np
import pytest
import regression_system as tiny

from gptface_jax.core import types
from gptface_jax.core.errors import UserError
from gptface_jax.train.checkpoint import Checkpoints, restore_params
from gptface_jax.train.loop import train


def run(workdir, system=None, batches=tiny.batches_fn, **changes):
    options = {
        k: changes.pop(k) for k in ("extra_files", "initial_params") if k in changes
    }
    system = system or tiny.make_system(dropout=0.3)
    if held_out := changes.pop("eval_batches", None):
        (name,) = system.evaluations
        system = system.held_out(**{name: held_out})
    return train(
        tiny.config(**changes), system, batches, workdir, progress=False, **options
    )


def lines(workdir):
    text = (workdir / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def timeless(records):
    timed = ("seconds", "_per_s", "time/")
    return [{k: v for k, v in r.items() if not any(t in k for t in timed)}
            for r in records]  # fmt: skip


def assert_bitwise_equal(a, b):
    flat_a, flat_b = jax.tree.leaves(a), jax.tree.leaves(b)
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(flat_a, flat_b):
        assert x.dtype == y.dtype and np.asarray(x).tobytes() == np.asarray(y).tobytes()


def test_a_run_starts_with_the_weights_of_another(tmp_path):
    first = run(tmp_path / "first", total_steps=2)
    given = jax.device_get(first.params)
    still = {"peak_lr": 0.0, "start_lr": 0.0, "end_lr": 0.0, "weight_decay": 0.0}
    options = {"initial_params": lambda: given, "ema_decay": 0.5, "optim": still}
    second = run(tmp_path / "second", total_steps=1, **options)
    assert_bitwise_equal(jax.device_get(second.params), given)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, 1e-6), second.ema, given)
    # What a run has saved counts more.
    other = jax.tree.map(np.zeros_like, given)
    resumed = run(
        tmp_path / "second",
        total_steps=1,
        **{**options, "initial_params": lambda: other},
    )
    assert_bitwise_equal(jax.device_get(resumed.params), given)


def test_weights_of_another_model_are_refused(tmp_path):
    given = jax.device_get(run(tmp_path / "first", total_steps=1).params)
    wrong = jax.tree.map(lambda x: x[..., None], given)
    with pytest.raises(UserError, match="init_from: '.*' of shape .* has the shape"):
        run(tmp_path / "second", initial_params=lambda: wrong)
    with pytest.raises(UserError, match="init_from: 'unknown' of shape .* is not in"):
        run(tmp_path / "second", initial_params=lambda: {"unknown": np.ones(2)})


class Interrupt(BaseException):
    pass


def crashing(step):
    """Batches that stop with an error when batch `step` is asked for."""

    def batches_fn(start):
        for _, batch in zip(range(start, step), tiny.batches_fn(start)):
            yield batch
        raise Interrupt

    return batches_fn


def test_resume_is_bit_for_bit_and_the_log_has_no_seam(tmp_path):
    whole = run(tmp_path / "whole", ema_decay=0.9)
    starts = []

    def recording(start):
        starts.append(start)
        return tiny.batches_fn(start)

    with pytest.raises(Interrupt):
        run(tmp_path / "cut", batches=crashing(6), ema_decay=0.9)
    assert lines(tmp_path / "cut")[-1]["step"] >= 5
    resumed = run(tmp_path / "cut", batches=recording, ema_decay=0.9)
    assert starts == [4]
    assert_bitwise_equal(whole, resumed)
    assert int(resumed.step) == 8 and int(resumed.state["seen"]) == 8 * 16
    assert timeless(lines(tmp_path / "whole")) == timeless(lines(tmp_path / "cut"))
    assert [r["step"] for r in lines(tmp_path / "cut")] == list(range(1, 9))
    # A finished run does nothing more and changes nothing.
    assert_bitwise_equal(whole, run(tmp_path / "cut", ema_decay=0.9))


def test_a_resumed_run_writes_the_lines_of_an_uninterrupted_one(tmp_path):
    options = {"log_every": 3, "checkpoint_every": 4}
    run(tmp_path / "whole", **options)
    with pytest.raises(Interrupt):
        run(tmp_path / "cut", batches=crashing(6), **options)
    run(tmp_path / "cut", **options)
    assert timeless(lines(tmp_path / "whole")) == timeless(lines(tmp_path / "cut"))
    # Every step is in exactly one line, the last ones too.
    assert [r["step"] for r in lines(tmp_path / "cut")] == [3, 4, 6, 8]
    run(tmp_path / "each")
    losses = [r["loss"] for r in lines(tmp_path / "each")]
    for record, steps in zip(lines(tmp_path / "cut"), np.split(losses, [3, 4, 6])):
        np.testing.assert_allclose(record["loss"], np.mean(steps), rtol=1e-5)


def test_lines_hold_the_loss_and_its_parts(tmp_path):
    run(tmp_path, log_every=4, total_steps=4)
    (record,) = lines(tmp_path)
    wanted = {
        "step",
        "loss",
        "lr",
        "grad_norm",
        "fit/error",
        "critic/off",
        "critic/loss",
        "steps_per_s",
        "examples_per_s",
    }
    assert wanted <= set(record)
    # The interval's mean, not the last step's value.
    run(tmp_path / "each", total_steps=4)
    losses = [r["loss"] for r in lines(tmp_path / "each")]
    np.testing.assert_allclose(record["loss"], np.mean(losses), rtol=1e-5)


def test_best_and_latest_are_kept(tmp_path):
    system = tiny.make_system(two_phases=False)
    table = jax.numpy.asarray([3.0, 1.0, 2.0, 5.0, 4.0])

    def evaluate(params, state, constants, batch, key):
        return {"loss": (table[state["seen"] // 32 - 1], 1)}

    given = {"given": types.Evaluation(evaluate, system.feeds["pairs"].spec)}
    system = dataclasses.replace(system, evaluations=given)
    run(
        tmp_path,
        system,
        total_steps=10,
        checkpoint_every=2,
        keep=2,
        eval_batches=lambda: iter([tiny.make_batch(99)]),
    )
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.steps() == [4, 8, 10]
    assert (checkpoints.best_step(), checkpoints.latest_step()) == (4, 10)
    checkpoints.close()
    assert restore_params(tmp_path, "best")[1]["step"] == 4
    assert restore_params(tmp_path)[1]["step"] == 10
    evaluated = [r["eval/loss"] for r in lines(tmp_path) if "eval/loss" in r]
    assert evaluated == [3.0, 1.0, 2.0, 5.0, 4.0]


def test_evaluation_averages_by_counts(tmp_path):
    batches = [tiny.make_batch(50), tiny.make_batch(51, size=4)]
    final = run(tmp_path, total_steps=2, eval_batches=batches)
    params = jax.tree.map(np.asarray, final.params)
    system = tiny.make_system()
    metrics = system.evaluations["held_out"].metrics
    pairs = [metrics(params, {}, {}, b, None)["loss"] for b in batches]
    expected = sum(float(s) for s, _ in pairs) / 20
    found = [r["eval/loss"] for r in lines(tmp_path) if "eval/loss" in r]
    np.testing.assert_allclose(found, [expected], rtol=1e-5)


def test_a_wrong_best_metric_fails_before_training(tmp_path):
    with pytest.raises(UserError, match="did you mean 'eval/loss'"):
        run(tmp_path, best_metric="eval/los", eval_batches=[tiny.make_batch(9)])
    assert not lines(tmp_path)


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_a_signal_stops_after_the_step_with_a_checkpoint(tmp_path, number):
    def batches_fn(start):
        for index, batch in enumerate(tiny.batches_fn(start), start):
            if index == 3:
                os.kill(os.getpid(), number)
            yield batch

    before = signal.getsignal(number)
    stopped = run(tmp_path, batches=batches_fn, checkpoint_every=0)
    assert stopped.stopped and 1 <= int(stopped.step) < 8
    assert signal.getsignal(number) is before
    assert restore_params(tmp_path)[1]["step"] == int(stopped.step)
    done = run(tmp_path, checkpoint_every=0)
    assert not done.stopped
    assert_bitwise_equal(done, run(tmp_path / "whole", checkpoint_every=0))


def test_a_signal_during_an_evaluation_saves_at_once(tmp_path):
    """An evaluation may take minutes, what was asked to end has seconds."""
    seen = []

    def held_out():
        for index in range(50):
            seen.append(index)
            if len(seen) == 4:
                os.kill(os.getpid(), signal.SIGTERM)
            yield tiny.make_batch(9)

    options = {"checkpoint_every": 0, "eval_every": 3, "best_metric": ""}
    stopped = run(tmp_path, eval_batches=held_out, **options)
    assert stopped.stopped and int(stopped.step) == 3 and len(seen) < 8
    assert restore_params(tmp_path)[1]["step"] == 3
    assert not any("eval/loss" in row for row in lines(tmp_path))
    # Made up for when it goes on.
    done = run(tmp_path, eval_batches=[tiny.make_batch(9)], **options)
    assert not done.stopped and evaluated(tmp_path) == [3, 6, 8]
    assert_bitwise_equal(done, run(tmp_path / "whole", **options))


def evaluated(folder):
    return [row["step"] for row in lines(folder) if "eval/loss" in row]


def test_a_signal_during_the_last_evaluation_leaves_it_to_be_done(tmp_path):
    def held_out():
        yield tiny.make_batch(9)
        os.kill(os.getpid(), signal.SIGTERM)
        yield from [tiny.make_batch(9)] * 9

    options = {"checkpoint_every": 4, "eval_every": 8, "best_metric": ""}
    stopped = run(tmp_path, eval_batches=held_out, **options)
    assert stopped.stopped and int(stopped.step) == 8 and not evaluated(tmp_path)
    for _ in range(2):  # once
        done = run(tmp_path, eval_batches=[tiny.make_batch(9)], **options)
        assert not done.stopped and evaluated(tmp_path) == [8]


def test_checkpoints_are_evaluated_where_the_best_is_kept(tmp_path):
    held_out = [tiny.make_batch(9)]
    for best, expected in (("", [6, 8]), ("eval/loss", [2, 4, 6, 8])):
        folder = tmp_path / (best.replace("/", "_") or "last")
        options = {"checkpoint_every": 2, "eval_every": 6, "best_metric": best}
        run(folder, eval_batches=held_out, **options)
        steps = [row["step"] for row in lines(folder) if "eval/loss" in row]
        assert steps == expected


def test_a_signal_that_also_kills_the_data_still_saves(tmp_path):
    def batches_fn(start):
        yield from itertools.islice(tiny.batches_fn(0), 3)
        os.kill(os.getpid(), signal.SIGINT)
        raise RuntimeError("a worker was interrupted")

    stopped = run(tmp_path, batches=batches_fn, checkpoint_every=0)
    assert stopped.stopped
    assert restore_params(tmp_path)[1]["step"] == int(stopped.step)


def test_nan_stops_and_keeps_the_good_checkpoint(tmp_path):
    with pytest.raises(UserError, match=r"step 6: fit/loss = nan.* step 4"):
        run(tmp_path, tiny.make_system(nan_at=5), log_every=100)
    assert os.listdir(tmp_path / "checkpoints") == ["4"]
    params, meta = restore_params(tmp_path)
    assert meta["step"] == 4
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(params))


def test_nan_at_the_step_of_a_checkpoint_saves_nothing(tmp_path):
    with pytest.raises(UserError, match=r"step 8: fit/loss = nan"):
        run(tmp_path, tiny.make_system(nan_at=7), log_every=100)
    assert os.listdir(tmp_path / "checkpoints") == ["4"]


def test_an_alarm_stops_and_keeps_the_good_checkpoint(tmp_path):
    calm = dataclasses.replace(tiny.make_system(), alarm=lambda means: None)
    assert int(run(tmp_path / "calm", calm).step) == 8
    (loss,) = (r["loss"] for r in lines(tmp_path / "calm") if r["step"] == 6)

    def alarm(means):
        return "it has gone dull; wake it" if abs(means["loss"] - loss) < 1e-6 else None

    with pytest.raises(UserError) as caught:
        run(tmp_path, dataclasses.replace(tiny.make_system(), alarm=alarm))
    said = "step 6: it has gone dull; wake it; the last good checkpoint is step 4"
    assert str(caught.value) == said
    assert lines(tmp_path)[-1]["step"] == 6
    assert Checkpoints(tmp_path).latest_step() == 4


def test_without_a_best_metric_the_latest_counts(tmp_path):
    batches = [tiny.make_batch(99)]
    run(tmp_path, eval_batches=batches, best_metric="", keep=1)
    assert "eval/loss" in lines(tmp_path)[-1]
    _, meta = restore_params(tmp_path, "best")
    assert meta["step"] == 8


def test_a_held_out_nan_stops_before_anything_is_saved(tmp_path):
    system = tiny.make_system(two_phases=False)

    def evaluate(params, state, constants, batch, key):
        bad = jax.numpy.where(state["seen"] > 4 * 16, jax.numpy.nan, 1.0)
        return {"loss": (1.0, 1), "error": (bad, 1)}

    given = {"given": types.Evaluation(evaluate, system.feeds["pairs"].spec)}
    system = dataclasses.replace(system, evaluations=given)
    with pytest.raises(UserError, match=r"step 8: eval/error = nan .* step 4"):
        run(tmp_path, system, eval_batches=[tiny.make_batch(9)])
    assert os.listdir(tmp_path / "checkpoints") == ["4"]
    assert lines(tmp_path)[-1]["step"] == 8


def test_a_state_that_is_not_finite_is_never_saved(tmp_path):
    def spoil(params, state, key, step):
        bad = jax.numpy.where(step == 3, jax.numpy.nan, state["mean"])
        return params, {**state, "mean": bad}

    system = tiny.make_system(post_update=spoil)
    with pytest.raises(UserError, match="step 4: state/mean is not finite"):
        run(tmp_path, system)
    assert os.listdir(tmp_path / "checkpoints") == []


def test_another_run_is_refused_with_the_first_difference(tmp_path):
    run(tmp_path, total_steps=4)
    with pytest.raises(UserError, match="seed is 3 there and 4 here"):
        run(tmp_path, total_steps=4, seed=4)
    with pytest.raises(UserError, match="optim.peak_lr"):
        run(tmp_path, total_steps=4, optim={"peak_lr": 1.0})
    run(tmp_path, total_steps=4, log_every=2, keep=3, checkpoint_every=1)


def test_other_extra_files_are_refused(tmp_path):
    files = {"vocab.txt": b"[PAD]\na\n", "digest.bin": b"\xff"}
    run(tmp_path, total_steps=4, extra_files=files)
    run(tmp_path, total_steps=4, extra_files=files)
    for changed in (
        {**files, "vocab.txt": b"a\n[PAD]\n"},
        {"digest.bin": b"\xff"},
        {**files, "vocab.txt.old": b""},
    ):
        with pytest.raises(UserError, match="its vocab.txt.* is not .* another --work"):
            run(tmp_path, total_steps=4, extra_files=changed)
    assert restore_params(tmp_path)[1]["extra_files"] == files


def test_a_model_that_does_not_fit_is_refused(tmp_path):
    run(tmp_path, tiny.make_system(two_phases=True), total_steps=4)
    with pytest.raises(UserError, match=r"params/critic/down/bias is .* and missing"):
        run(tmp_path, tiny.make_system(two_phases=False), total_steps=4)


def test_data_that_ends_early_says_so(tmp_path):
    three = lambda start: itertools.islice(tiny.batches_fn(0), 3)  # noqa: E731
    said = "the data ended after 3 of 8 steps; give more data or lower total_steps"
    with pytest.raises(UserError, match=said):
        run(tmp_path, batches=three)


def test_batches_are_checked_against_the_specification(tmp_path):
    good = tiny.make_batch(0)
    for batches, said in (
        ({"pair": good}, "a step has no batch 'pairs' .did you mean 'pair'"),
        ({"pairs": {"x": np.zeros((16, 8))}}, "a batch has no 'y'"),
        (
            {"pairs": {**good, "y": np.zeros((16, 5))}},
            r"'y' has examples of shape \(5,\)",
        ),
        ({"pairs": tiny.make_batch(0, size=8)}, "has 8 examples .* must be 16"),
    ):
        with pytest.raises(UserError, match=said):
            run(tmp_path, batches=lambda start, given=batches: iter([given]))


def test_a_folder_that_cannot_be_made_is_one_line():
    with pytest.raises(UserError, match="cannot write in '/proc/nothing'.*--workdir"):
        run("/proc/nothing")


def test_tensorboard_is_written_when_asked_for(tmp_path):
    pytest.importorskip("tensorboardX")
    run(tmp_path, total_steps=2, tensorboard=True)
    assert list((tmp_path / "tensorboard").glob("events*"))


@pytest.mark.slow
def test_checkpoints_of_versions_that_kept_constants_in_the_state(tmp_path):
    system = tiny.make_system(dropout=0.3)
    network = {"kernel": np.ones((3, 2), np.float32)}

    def old_state():
        return {**system.init_state(), "network": jax.numpy.asarray(network["kernel"])}

    def as_it_was(loss):
        def old(params, state, *given):
            own = {k: v for k, v in state.items() if k != "network"}
            value, (own, metrics) = loss(params, own, *given)
            return value, ({**own, "network": state["network"]}, metrics)

        return old

    phases = tuple(
        dataclasses.replace(phase, loss=as_it_was(phase.loss))
        for phase in system.phases
    )
    old = dataclasses.replace(system, init_state=old_state, phases=phases)
    with pytest.raises(Interrupt):
        run(tmp_path / "old", old, batches=crashing(5))
    new = dataclasses.replace(system, constants={"network": network["kernel"]})
    resumed = run(tmp_path / "old", new)
    assert set(resumed.state) == {"seen", "mean"}
    assert_bitwise_equal(resumed.params, run(tmp_path / "whole", new).params)
