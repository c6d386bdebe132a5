"""Runs process_worker.py, in one process or several."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
import time

from simulated_devices import free_port

HERE = pathlib.Path(__file__).parent


def run(
    workdir, count=1, *, kill_after=None, victim=0, seconds=240, logs=None, **options
):
    """Runs COUNT processes; when one ends in error the others are killed, as SLURM
    does.

    Args:
      workdir: of the run.
      count: processes, which share eight devices.
      kill_after: seconds after the first batch was asked for (when compiling begins)
        until process `victim` is killed.
      victim: see there.
      seconds: until all are killed.
      logs: how their names begin; default beside the workdir.
      options: of the worker.

    Returns:
      [(exit status, words of its RESULT line, errors)].
    """
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "PYTHONPATH": str(HERE)}
    port, options = free_port(), json.dumps(options)
    logs = logs or workdir
    logs = [(f"{logs}.out.{i}", f"{logs}.err.{i}") for i in range(count)]
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
    end = time.monotonic() + seconds
    began = pathlib.Path(f"{workdir}.began.{victim}")
    began.unlink(missing_ok=True)
    kill_at = None
    while any(w.poll() is None for w in workers):
        if kill_after is not None and kill_at is None and began.exists():
            kill_at = time.monotonic() + kill_after
        if kill_at is not None and time.monotonic() > kill_at:
            workers[victim].kill()
        if time.monotonic() > end or any(w.poll() for w in workers):
            for worker in workers:
                worker.kill()
        time.sleep(0.05)
    results = []
    for worker, (out, err) in zip(workers, logs):
        lines = pathlib.Path(out).read_text().splitlines()
        words = next((x.split()[1:] for x in lines if x.startswith("RESULT")), None)
        results.append((worker.wait(), words, pathlib.Path(err).read_text()))
    return results


def lines(workdir, key="loss"):
    text = (workdir / "metrics.jsonl").read_text()
    records = [json.loads(line) for line in text.splitlines()]
    return {r["step"]: r[key] for r in records if key in r}
