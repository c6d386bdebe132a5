"""Several processes on one machine: one run, the same numbers, stopping together."""

import pathlib
import signal

import numpy as np
import pytest
from processes import lines, run

from gptface_jax.train.checkpoint import restore_params


def read_by(workdir, count, index):
    return pathlib.Path(f"{workdir}.read.{count}.{index}").read_text().split()


CONFIG = {"total_steps": 20, "checkpoint_every": 4, "keep": 2, "log_every": 1}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("undisturbed") / "run"
    config = {**CONFIG, "mesh": {"preset": "fsdp"}}
    ((status, words, errors),) = run(workdir, 1, config=config)
    assert (status, words) == (0, ["20", "False"]), errors
    return workdir


@pytest.mark.parametrize("many", [2, pytest.param(4, marks=pytest.mark.slow)])
def test_killed_as_two_resumed_as_one_and_as_many(undisturbed, tmp_path, many):
    workdir = tmp_path / "run"
    config = {**CONFIG, "mesh": {"preset": "mixed"}}
    two = run(workdir, 2, config=config, kill_at=11, killer=1)
    assert two[1][0] == -signal.SIGKILL
    saved = restore_params(workdir)[1]["step"]
    assert saved in (4, 8)
    config["mesh"] = {"preset": "fsdp"}
    one = run(workdir, 1, config=config, kill_at=15)
    assert one[0][0] == -signal.SIGKILL
    assert restore_params(workdir)[1]["step"] in (8, 12)
    config["mesh"] = {"preset": "data", "fsdp": 2}
    for told in tmp_path.glob("run.read.*"):  # of the first two
        told.unlink()
    for status, words, errors in run(workdir, many, config=config):
        assert (status, words) == (0, ["20", "False"]), errors
    for key in ("loss", "eval/loss"):
        ours, theirs = lines(workdir, key), lines(undisturbed, key)
        assert list(ours) == list(theirs)
        np.testing.assert_allclose(
            list(ours.values()), list(theirs.values()), rtol=1e-4, err_msg=key
        )
    # Every process read its own rows, those of its share of each batch.
    shares = [read_by(workdir, many, i) for i in range(many)]
    whole = len(read_by(undisturbed, 1, 0))
    assert all(0 < len(share) <= whole // many for share in shares)


@pytest.mark.slow
def test_processes_that_hold_the_same_examples_train_as_one_does(tmp_path):
    config = {**CONFIG, "total_steps": 4, "mesh": {"data": 1, "tensor": 2}}
    ((status, *_, errors),) = run(tmp_path / "one", 1, config=config, devices=2)
    assert status == 0, errors
    for status, _, errors in run(tmp_path / "two", 2, config=config, devices=2):
        assert status == 0, errors
    for key in ("loss", "eval/loss"):
        ours, theirs = lines(tmp_path / "two", key), lines(tmp_path / "one", key)
        assert list(ours) == list(theirs)
        np.testing.assert_allclose(
            list(ours.values()), list(theirs.values()), rtol=1e-5, err_msg=key
        )


@pytest.mark.slow
def test_a_signal_to_one_process_stops_all_of_them(tmp_path):
    workdir = tmp_path / "run"
    results = run(workdir, 2, config=CONFIG, kill_at=4, killer=1, signal="SIGTERM")
    for status, words, errors in results:
        assert status == 0 and words[1] == "True", errors
    assert results[0][1] == results[1][1]
    assert restore_params(workdir)[1]["step"] == int(results[0][1][0])
    assert len(list(tmp_path.glob("run/metrics.jsonl"))) == 1
