"""Several processes on one machine: one run, the same numbers, stopping together."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from gptface_jax.train.checkpoint import restore_params

HERE = pathlib.Path(__file__).parent


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def run(workdir, count, **options):
    """Runs COUNT processes; when one ends in error the others are killed, as SLURM
    does. Returns [(exit status, words of its RESULT line, errors)].
    """
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE)}
    environment.pop("XLA_FLAGS", None)
    port, options = free_port(), json.dumps(options)
    logs = [(f"{workdir}.out.{i}", f"{workdir}.err.{i}") for i in range(count)]
    workers = []
    for i, (out, err) in enumerate(logs):
        arguments = [str(i), str(count), str(port), str(workdir), options]
        command = [sys.executable, str(HERE / "process_worker.py"), *arguments]
        with open(out, "w") as stdout, open(err, "w") as stderr:
            workers.append(
                subprocess.Popen(
                    command, stdout=stdout, stderr=stderr, cwd=HERE, env=environment
                )
            )
    end = time.monotonic() + 240
    while any(w.poll() is None for w in workers):
        if time.monotonic() > end or any(w.poll() for w in workers):
            for worker in workers:
                worker.kill()
        time.sleep(0.05)
    results = []
    for worker, (out, err) in zip(workers, logs):
        lines = pathlib.Path(out).read_text().splitlines()
        words = next((x.split()[1:] for x in lines if x.startswith("RESULT")), None)
        results.append((worker.wait(), words, pathlib.Path(err).read_text()[-3000:]))
    return results


def lines(workdir, key="loss"):
    text = (workdir / "metrics.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    return {r["step"]: r[key] for r in records if key in r}


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


def test_killed_as_two_resumed_as_one_and_as_four(undisturbed, tmp_path):
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
    four = run(workdir, 4, config=config)
    for status, words, errors in four:
        assert (status, words) == (0, ["20", "False"]), errors
    for key in ("loss", "eval/loss"):
        ours, theirs = lines(workdir, key), lines(undisturbed, key)
        assert list(ours) == list(theirs)
        np.testing.assert_allclose(
            list(ours.values()), list(theirs.values()), rtol=1e-4, err_msg=key
        )
    # Every process read its own rows, those of a fourth of each batch.
    shares = [read_by(workdir, 4, i) for i in range(4)]
    whole = len(read_by(undisturbed, 1, 0))
    assert all(0 < len(share) <= whole // 4 for share in shares)


def test_a_signal_to_one_process_stops_all_of_them(tmp_path):
    workdir = tmp_path / "run"
    results = run(workdir, 2, config=CONFIG, kill_at=4, killer=1, signal="SIGTERM")
    for status, words, errors in results:
        assert status == 0 and words[1] == "True", errors
    assert results[0][1] == results[1][1]
    assert restore_params(workdir)[1]["step"] == int(results[0][1][0])
    assert len(list(tmp_path.glob("run/metrics.jsonl"))) == 1
