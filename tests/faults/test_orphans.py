"""Workers end with the process that started them, however that ended."""

import os
import pathlib
import subprocess
import sys
import time

import pytest

PREPARE = (
    "prepare --quiet --images synthetic --limit 100000 --shard-size 100000 "
    "--workers 1 --out OUT"
)
TRAIN = (
    "train --quiet --config configs/judge/faces64.py:tiny --config.data.workers=1 "
    "--config.total_steps=1000000 --workdir OUT"
)


def children(process) -> set[str]:
    """Numbers of the processes that it started."""
    threads = pathlib.Path(f"/proc/{process.pid}/task").iterdir()
    return {n for thread in threads for n in (thread / "children").read_text().split()}


def running(number: str) -> bool:
    try:
        return pathlib.Path(f"/proc/{number}/stat").read_text().split()[2] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("command", "file", "size"),
    [(PREPARE, "*part-00000*", 0), (TRAIN, "metrics.jsonl", 1)],
)
def test_workers_of_a_killed_process_end(command, file, size, tmp_path):
    if not pathlib.Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").exists():
        pytest.skip("this system does not list a process's children")
    words = command.replace("OUT", str(tmp_path)).split()
    process = subprocess.Popen([sys.executable, "-m", "gptface_jax.cli.main", *words])
    end = time.monotonic() + 240
    while not any(p.stat().st_size >= size for p in tmp_path.glob(file)):
        assert time.monotonic() < end and process.poll() is None
        time.sleep(0.1)
    workers = children(process)
    assert workers
    process.kill()
    process.wait()
    end = time.monotonic() + 60
    while any(map(running, workers)):
        assert time.monotonic() < end, "a worker goes on alone"
        time.sleep(0.1)
