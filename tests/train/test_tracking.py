"""What a run shows while it trains: pictures, profile, trackers; and when it ends."""

import json
import re
import sys
import types

import jax.numpy as jnp
import numpy as np
import pytest
import regression_system as tiny
from PIL import Image

from gptface_jax.core import extras
from gptface_jax.core.errors import UserError
from gptface_jax.train.loop import train
from gptface_jax.train.monitors import EarlyStop
from gptface_jax.train.settings import EarlyStopConfig

HELD_OUT = [tiny.make_batch(90)]
STILL = {"peak_lr": 0.0, "start_lr": 0.0, "end_lr": 0.0, "weight_decay": 0.0}


def run(workdir, samples=None, **changes):
    return train(
        tiny.config(**changes),
        tiny.make_system(held_out=HELD_OUT),
        tiny.batches_fn,
        workdir,
        samples=samples,
        progress=False,
    )


def lines(workdir):
    return [json.loads(x) for x in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_early_stop_by_hand():
    watch = EarlyStop(EarlyStopConfig("eval/loss", patience=2, min_delta=0.1))
    for value, ends in ((3.0, False), (2.95, False), (2.8, False), (2.75, False)):
        watch.seen({"eval/loss": value})
        assert watch.ends is ends
    assert (watch.best, watch.waited) == (2.8, 1)
    again = EarlyStop(watch.config, watch.known)
    again.seen({"eval/other": 1.0})
    assert not again.ends
    again.seen({"eval/loss": 2.71})
    assert again.ends
    # Another metric starts anew.
    other = EarlyStop(EarlyStopConfig("eval/psnr", mode="max"), watch.known)
    assert (other.best, other.waited) == (None, 0)
    assert other.config.better(2.0, 1.0) and not other.config.better(1.0, 1.0)
    with pytest.raises(UserError, match="patience 0"):
        EarlyStopConfig(patience=0)


def test_a_run_that_gets_no_better_ends_saves_and_stays_ended(tmp_path, capsys):
    options = {"total_steps": 9, "eval_every": 2, "optim": STILL}
    options["early_stop"] = {"metric": "eval/loss", "patience": 2}
    state = run(tmp_path, **options)
    # Best at 2, no better at 4 and 6.
    assert int(state.step) == 6 and not state.stopped
    assert "step 6: eval/loss has not been better" in capsys.readouterr().err
    assert max(int(p.name) for p in (tmp_path / "checkpoints").glob("[0-9]*")) == 6
    before = lines(tmp_path)
    again = run(tmp_path, **options)
    assert int(again.step) == 6 and lines(tmp_path) == before
    # More patience goes on where the count stands.
    options["early_stop"]["patience"] = 3
    assert int(run(tmp_path, **options).step) == 8


def test_a_wrong_metric_to_stop_by_is_found_before_training(tmp_path):
    with pytest.raises(UserError, match="early_stop.metric 'eval/los' is not eval"):
        run(tmp_path, early_stop={"metric": "eval/los"})


def test_pictures_are_kept_and_tracked(tmp_path, monkeypatch):
    seen = []

    class Tracker:
        def __init__(self, project, workdir, config):
            assert project == "faces" and config["total_steps"] == 4

        def write(self, record):
            seen.append(record["step"])

        def picture(self, step, name, image):
            seen.append((step, name, image.shape))

        def close(self):
            seen.append("closed")

    monkeypatch.setattr("gptface_jax.train.metrics.WeightsAndBiases", Tracker)

    def samples(params, state):
        del state
        level = float(jnp.abs(params["net"]["up"]["kernel"]).mean())
        return {"grid": np.full((4, 6, 3), round(50 * level), np.uint8)}

    run(tmp_path, samples, total_steps=4, sample_every=2, wandb="faces")
    files = sorted((tmp_path / "samples").iterdir())
    assert [f.name for f in files] == ["grid_0000002.png", "grid_0000004.png"]
    assert Image.open(files[0]).size == (6, 4)
    assert (2, "grid", (4, 6, 3)) in seen and seen[-1] == "closed"


def test_weights_and_biases_goes_on_with_its_run(tmp_path, monkeypatch):
    started, logged = [], []
    fake = types.SimpleNamespace(
        id="abc",
        log=lambda values, step: logged.append((step, values)),
        finish=lambda: logged.append("finished"),
    )

    def init(**options):
        started.append(options)
        return fake

    module = types.SimpleNamespace(init=init, Image=lambda x: ("image", x.shape))
    monkeypatch.setitem(sys.modules, "wandb", module)
    run(tmp_path, total_steps=2, wandb="faces")
    assert started[0]["project"] == "faces" and started[0]["id"] is None
    assert started[0]["config"]["total_steps"] == 2
    assert {step for step, _ in logged[:-1]} == {1, 2} and logged[-1] == "finished"
    assert all("step" not in values for _, values in logged[:-1])
    run(tmp_path, total_steps=2, wandb="faces")
    assert started[1]["id"] == "abc"


def test_a_missing_tracker_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(UserError, match=re.escape(extras.install("wandb"))):
        run(tmp_path, wandb="faces")


@pytest.mark.slow
def test_some_steps_are_profiled(tmp_path):
    run(tmp_path, total_steps=9, profile_steps=2)
    (trace,) = (tmp_path / "profile").rglob("*.xplane.pb")
    content = trace.read_bytes()
    assert b"train_step" in content and len(content) > 10_000
