"""A system is added by a folder, a file and a row, and everything knows it."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import ml_collections
import numpy as np
import pytest
import simulated_devices
import toy_experiment

import gptface_jax
from gptface_jax.apps import describing, exporting
from gptface_jax.core.errors import UserError
from gptface_jax.experiments import registry, training
from gptface_jax.train import loop


@pytest.fixture(autouse=True)
def row(monkeypatch):
    monkeypatch.setitem(registry.SYSTEMS, "toy", "toy_experiment")


def config(**changes):
    return ml_collections.ConfigDict(
        {
            "system": "toy",
            "seed": 1,
            "total_steps": 40,
            "batch_size": {"named": 8, "plain": 24},
            "log_every": 10,
            "checkpoint_every": 20,
            "best_metric": "eval/accuracy",
            "best_mode": "max",
            "model": {"features": 8},
            "objective": {"network": 5},
            "data": {"train": {"kind": "toy"}, "eval_records": 16},
            "optim": {"peak_lr": 0.1, "start_lr": 0.1, "warmup_fraction": 0.0},
            **changes,
        }
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("toy") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry.SYSTEMS, "toy", "toy_experiment")
        state = training.train(config(), folder, progress=False)
    return folder, state


def rows(folder):
    return [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]


def test_it_trains_and_evaluates(run):
    folder, state = run
    log = rows(folder)
    assert log[-1]["eval/accuracy"] == 1.0 and log[0]["naming"] < 1.2
    assert log[-2]["loss"] < 0.5 * log[0]["loss"]
    assert log[0]["images_per_s"] > 0 and np.abs(state.state["mean"]).max() > 0.1
    # The constant is part of no checkpoint, and its digest is of all of them.
    saved = folder / "checkpoints/40"
    assert not (saved / "constants").exists()
    meta = json.loads((saved / "meta/metadata").read_text())
    assert set(meta["constants"]) == {"network"}


def test_a_cut_run_resumes_bit_for_bit(run, tmp_path):
    _, whole = run
    experiment = training.build(config(), tmp_path)

    def cut(start):
        for number, batches in enumerate(experiment.batches_fn(start), start):
            if number == 25:
                return
            yield batches

    with pytest.raises(UserError, match="ended after 25 of 40"):
        loop.train(config(), experiment.system, cut, tmp_path, progress=False,
                   extra_files=experiment.extra_files)  # fmt: skip
    resumed = training.train(config(), tmp_path, progress=False)
    assert jax.tree.structure(resumed) == jax.tree.structure(whole)
    for a, b in zip(jax.tree.leaves(resumed), jax.tree.leaves(whole)):
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


def test_another_constant_is_refused(run, tmp_path):
    folder, _ = run
    other = config(objective={"network": 6})
    with pytest.raises(UserError, match="constant 'network' has the digest"):
        # As if somebody had exchanged the weights behind an unchanged config.
        experiment = training.build(other, folder)
        loop.train(config(), experiment.system, experiment.batches_fn, folder,
                   extra_files=experiment.extra_files, progress=False)  # fmt: skip


def test_what_the_system_says_may_change(run):
    folder, _ = run
    values = config()
    values.model.note = "anything"
    system = training.build(config(), folder)
    loop.train(values, system.system, system.batches_fn, folder,
               extra_files=system.extra_files, progress=False)  # fmt: skip
    values.model.width = 9
    with pytest.raises(UserError, match="model.width is"):
        loop.train(values, system.system, system.batches_fn, folder,
                   extra_files=system.extra_files, progress=False)  # fmt: skip


def test_it_is_described(run):
    folder, _ = run
    text = describing.of_config(config())
    assert "encode/kernel" in text and text.endswith("a toy")
    assert "encode" in describing.of_model(str(folder))
    planned, _, _ = describing.cost_of(config(), mesh="1x1x1")
    assert planned.memory.other == 8 * 4 + 4 + 3 * 8 * 4  # mean, step, constant
    assert planned.memory.batch == 4 * (8 * (48 + 1) + 24 * 48)


@pytest.mark.parametrize("exported", [False, True])
def test_it_is_exported_and_loaded(run, tmp_path, exported):
    folder, _ = run
    if exported:
        out = tmp_path / "model"
        assert list(exporting.export_run(folder, out, dtype="float32")) == ["toy"]
        assert "system `toy`" in (out / "README.md").read_text()
        folder = out
    namer = gptface_jax.load(folder)
    for index in range(6):
        given = toy_experiment.example(100 + index, None)
        name = ("red", "green", "blue")[int(given["colour"])]
        assert namer.name(given["image"]) == name
    assert "name" in registry.verbs()


def test_a_feed_that_does_not_divide_is_named(tmp_path):
    sizes = {"named": 8, "plain": 9}
    with pytest.raises(UserError, match="batch_size of 'plain' 9 does not divide by 2"):
        training.train(config(batch_size=sizes, grad_accum=2), tmp_path)
    with pytest.raises(UserError, match="batch_size of 'plain' is -1; use 1 or more"):
        training.train(config(batch_size={**sizes, "plain": -1}), tmp_path)


def on_eight_devices(folder, count, *meshes):
    """{mesh: losses} of runs that so many processes share."""
    here = pathlib.Path(__file__).parent
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "PYTHONPATH": f"{here}{os.pathsep}{here.parent}",
    }
    port = simulated_devices.free_port()
    command = [sys.executable, str(here / "toy_worker.py")]
    workers = [
        subprocess.Popen(
            [*command, str(i), str(count), str(port), str(folder), *meshes],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment,
        )
        for i in range(count)
    ]  # fmt: skip
    said = [worker.communicate(timeout=300) for worker in workers]
    for worker, (_, errors) in zip(workers, said):
        assert worker.returncode == 0, errors[-2000:]
    lines = said[0][0].splitlines()
    return json.loads(next(x for x in lines if x.startswith("RESULT"))[6:])


@pytest.mark.slow
def test_feeds_of_two_sizes_train_alike_on_every_mesh(tmp_path):
    meshes = ("1x1x1", "8x1x1", "2x2x2")
    found = on_eight_devices(tmp_path / "one", 1, *meshes)
    found["two processes"] = on_eight_devices(tmp_path / "two", 2, "8x1x1")["8x1x1"]
    expected = found.pop("1x1x1")
    assert len(expected) == 7 and expected[-2] < expected[0]
    for name, losses in found.items():
        np.testing.assert_allclose(losses, expected, rtol=1e-5, err_msg=name)
