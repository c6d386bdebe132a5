"""Two runs in one work folder: the second stops, and the first never notices."""

import json
import subprocess
import sys
import time

import processes
import pytest
import regression_system as tiny

from gptface_jax.core.errors import UserError
from gptface_jax.train.loop import train

CONFIG = {"total_steps": 20, "checkpoint_every": 2, "log_every": 1}
OPTIONS = {"config": CONFIG, "devices": 1, "pause": 0.1}


def begin(workdir, **options):
    """A run in a process of its own."""
    arguments = ["0", "1", "0", str(workdir), json.dumps({**OPTIONS, **options})]
    return subprocess.Popen(
        [sys.executable, str(processes.HERE / "process_worker.py"), *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=processes.HERE,
    )


def test_the_second_run_stops_and_the_first_goes_on(tmp_path):
    first = begin(tmp_path / "run")
    end = time.monotonic() + 120
    while not any((tmp_path / "run").glob("checkpoints/[0-9]*")):
        assert time.monotonic() < end and first.poll() is None
        time.sleep(0.05)
    with pytest.raises(UserError, match=rf"in use: process {first.pid} on .* trains"):
        train(
            tiny.config(**CONFIG),
            tiny.make_system(weighted=True),
            tiny.batches_fn,
            tmp_path / "run",
            progress=False,
        )
    out, err = first.communicate(timeout=120)
    assert out == "RESULT 20 False\n", err
    steps = [
        json.loads(x)["step"]
        for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == sorted(steps) and set(steps) == set(range(1, 21))
    assert not list((tmp_path / "run").glob("running.lock*"))


@pytest.mark.slow
def test_of_two_runs_started_at_once_one_trains(tmp_path):
    runs = [begin(tmp_path / "run", pause=0.2) for _ in range(2)]
    said = [run.communicate(timeout=240) for run in runs]
    assert sorted(out for out, _ in said) == ["", "RESULT 20 False\n"]
    (loser,) = [err for out, err in said if not out]
    assert "is in use: process" in loser and "choose another --workdir" in loser
    assert list(processes.lines(tmp_path / "run")) == list(range(1, 21))


def test_all_processes_of_a_refused_run_end(tmp_path):
    first = begin(tmp_path / "run", pause=0.5)
    end = time.monotonic() + 120
    while not (tmp_path / "run" / "running.lock.json").exists():
        assert time.monotonic() < end and first.poll() is None
        time.sleep(0.05)
    found = processes.run(
        tmp_path / "run", 2, logs=tmp_path / "log", **{**OPTIONS, "devices": 2}
    )
    first.kill()
    first.communicate()
    assert all(status != 0 for status, *_ in found)
    assert f"process {first.pid} on" in found[0][2]
