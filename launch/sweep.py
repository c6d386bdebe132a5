"""Runs every point of a config's `get_sweep()`; run it again to go on.

  python launch/sweep.py --config configs/experiments/tokenizers64.py --out runs/f_k
  python launch/sweep.py --config ... --out ... --parallel 2 --config.total_steps=1000
  python launch/sweep.py --config ... --out /scratch/x --executor slurm \\
      --set slurm_partition=gpu gpus_per_node=8 timeout_min=1440

`get_sweep()` of a config file returns {name: {"optim.peak_lr": 1e-3, ...}}. A point is
`gptface train` with these changes in the folder OUT/NAME, submitted through submitit
(extra `launch`). Finished points are passed over and started ones resume; a point that
fails is tried again. At the end OUT gets results.json, results.md and results.png.

On this machine (--executor local) the points share its cores evenly; on SLURM they are
one array, and a point that meets its time limit saves and is queued again. Ctrl-C or
SIGTERM lets the points save and stops.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import pathlib
import signal
import subprocess
import sys
import time

from tqdm import tqdm

from gptface_jax.apps import plotting
from gptface_jax.core import files, locks
from gptface_jax.core.config import (
    assignments,
    load_config,
    load_sweep,
    override,
    split_overrides,
)
from gptface_jax.core.errors import UserError

FINISHED = "finished"  # file in a point's folder


class Point:
    """One point, as submitit runs it."""

    def __init__(self, command: list[str], folder: str, cores: list[int] | None):
        self.command, self.folder, self.cores = command, folder, cores
        self.process: subprocess.Popen | None = None

    def __call__(self) -> int:
        """Runs to the end; the exit status of a failure is an exception."""
        if self.cores:
            os.sched_setaffinity(0, self.cores)
        signal.signal(signal.SIGINT, self._stop)
        with (
            open(os.path.join(self.folder, "lock"), "w") as lock,
            open(os.path.join(self.folder, "log.txt"), "ab") as log,
        ):
            # A sweep that was killed may have left this point running.
            fcntl.flock(lock, fcntl.LOCK_EX)
            self.process = subprocess.Popen(self.command, stdout=log, stderr=log)
            status = self.process.wait()
        if status:
            raise RuntimeError(f"exit status {status}, see {self.folder}/log.txt")
        pathlib.Path(self.folder, FINISHED).touch()
        return status

    def _stop(self, *_) -> None:
        if self.process:
            self.process.terminate()  # it saves and ends

    def checkpoint(self):
        """The time is up: saves, and asks to be queued again."""
        import submitit

        self._stop()
        if self.process:
            self.process.wait()
        again = Point(self.command, self.folder, self.cores)
        return submitit.helpers.DelayedSubmission(again)


def open_points(options, overrides: list[str]) -> dict[str, list[str]]:
    """{name: command} of every point, each config checked before anything runs."""
    points = {}
    for name, changes in load_sweep(options.config).items():
        given = [f"{key}={value!r}" for key, value in changes.items()] + overrides
        override(load_config(options.config), given)
        folder = options.out / name
        points[name] = [
            *(sys.executable, "-m", "gptface_jax.cli.main", "train", "--quiet"),
            *("--config", options.config, "--workdir", str(folder)),
            *(f"--config.{change}" for change in given),
        ]
    return points


def make_executor(options):
    import submitit

    executor = submitit.AutoExecutor(options.out / "jobs", cluster=options.executor)
    values = assignments("--set", options.set)
    if options.executor == "slurm":
        values.setdefault("slurm_array_parallelism", options.parallel)
    executor.update_parameters(**{"name": "gptface", "timeout_min": 10080, **values})
    return executor


def run(points: dict[str, list[str]], options) -> dict[str, str]:
    """Runs what is not finished; returns {name: why} of what failed for good."""
    executor = make_executor(options)
    local = options.executor == "local"
    left = [name for name in points if not (options.out / name / FINISHED).exists()]
    tries = dict.fromkeys(left, 0)
    jobs, failed, slots = {}, {}, {}
    bar = tqdm(
        total=len(points),
        initial=len(points) - len(left),
        unit="point",
        mininterval=0.5 if sys.stderr.isatty() else 60.0,
    )

    def submit(names: list[str]) -> None:
        made = []
        for name in names:
            folder = options.out / name
            folder.mkdir(parents=True, exist_ok=True)
            if local:
                slots[name] = min(set(range(options.parallel)) - set(slots.values()))
            cores = share(slots[name], options.parallel) if local else None
            made.append(Point(points[name], str(folder), cores))
            tries[name] += 1
        with executor.batch():  # SLURM: one array
            started = [executor.submit(point) for point in made]
        jobs.update(zip(names, started))

    try:
        while left or jobs:
            room = options.parallel - len(jobs) if local else len(left)
            if left and room > 0:
                chosen, left = left[:room], left[room:]
                submit(chosen)
            for name in [n for n, job in jobs.items() if job.done()]:
                error = jobs.pop(name).exception()
                slots.pop(name, None)
                if error is None:
                    bar.update()
                elif tries[name] <= options.retries:
                    why = reason(error)
                    bar.write(f"{name} failed ({why}); trying again", sys.stderr)
                    left.append(name)
                else:
                    failed[name] = reason(error)
                    message = f"{name} failed {tries[name]} times: {failed[name]}"
                    bar.write(message, sys.stderr)
            bar.set_postfix(running=len(jobs), failed=len(failed), refresh=False)
            time.sleep(options.poll)
    except KeyboardInterrupt:
        for job in jobs.values():
            job.cancel()
        if local:
            for job in jobs.values():
                job.wait()
        raise
    finally:
        bar.close()
    return failed


def reason(error: Exception) -> str:
    """The line of submitit's report that says what went wrong."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    message = [line for line in lines if line.startswith("RuntimeError: ")]
    return (message or lines)[-1].strip()


def share(slot: int, slots: int) -> list[int]:
    """The cores of one of so many points that run at a time; all, if too few."""
    cores = sorted(os.sched_getaffinity(0))
    return cores[slot::slots] if slots <= len(cores) else cores


def results(points, failed, options) -> None:
    """Writes results.json, results.md (also printed) and results.png."""
    changes = load_sweep(options.config)
    logs, table = {}, []
    for name in points:
        try:
            logs[name] = log = plotting.read_log(options.out / name)
        except UserError:
            log = {}
        row = {"name": name, "changes": changes[name]}
        row["state"] = "failed: " + failed[name] if name in failed else "finished"
        row["step"] = int(max((steps[-1] for steps, _ in log.values()), default=0))
        row |= {m: float(log[m][1][-1]) for m in options.metric if m in log}
        table.append(row)
    files.write_text(options.out / "results.json", json.dumps(table, indent=2) + "\n")
    head = ["name", "step", *options.metric, "state"]
    lines = [head, ["---"] * len(head)]
    for row in table:
        shown = [row.get(m, "") for m in options.metric]
        shown = [f"{x:.4g}" if isinstance(x, float) else x for x in shown]
        lines.append([row["name"], str(row["step"]), *shown, row["state"]])
    text = "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"
    files.write_text(options.out / "results.md", text)
    print(text)
    if logs:
        plotting.plot(logs, options.out / "results.png", options.metric)
        print(f"drawn: {options.out / 'results.png'}")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--config", required=True, help="a file with get_sweep()")
    parser.add_argument("--out", required=True, type=pathlib.Path)
    parser.add_argument("--executor", choices=("local", "slurm"), default="local")
    parser.add_argument(
        "--parallel", type=int, default=1, help="points that run at a time"
    )
    parser.add_argument("--retries", type=int, default=1, help="of a point that fails")
    parser.add_argument(
        "--set", nargs="+", default=[], metavar="KEY=VALUE",
        help="parameters of submitit, such as slurm_partition=gpu",
    )  # fmt: skip
    parser.add_argument(
        "--metric", nargs="+", default=["eval/loss"], help="columns of the table"
    )
    parser.add_argument(
        "--poll", type=float, default=2.0, help="seconds between looks at the jobs"
    )
    parser.add_argument("--dry-run", action="store_true", help="print the commands")
    words, overrides = split_overrides(sys.argv[1:])
    options = parser.parse_args(words)
    if options.parallel < 1:
        parser.error(f"--parallel is {options.parallel}; use 1 or more")
    # Both end the sweep, also where a shell has it in the background.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        points = open_points(options, overrides)
        if options.dry_run:
            for command in points.values():
                print(subprocess.list2cmdline(command))
            return 0
        lock = options.out / "sweep.lock"
        with locks.held(lock, "runs a sweep", "choose another --out"):
            failed = run(points, options)
            results(points, failed, options)
    except UserError as error:
        print(f"sweep: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("sweep: stopped; run the same command again to go on", file=sys.stderr)
        return 130
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
