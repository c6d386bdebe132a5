"""Everything that waits for an accelerator, in one run, most valuable first.

    bash benchmarks/accelerator.sh --out DIR                 # nine minutes of a GPU
    bash benchmarks/accelerator.sh --out DIR                 # again: the rest
    bash benchmarks/accelerator.sh --out DIR --tiny          # rehearsal on a CPU
    bash benchmarks/accelerator.sh --out DIR --only pretrain decode
    python benchmarks/accelerator.py --merge DIR             # into docs/results

DIR gets results.json, written anew after every step: what ran, where, for how long, and
what it printed. What this device has done is not done again; what was killed or failed
is. A step has a limit of its own, and none begins that the rest of --minutes is too
short for. The last two minutes and all that is left are a training's, which the next
run goes on with: its newest checkpoint is DIR/model.tar.00, .01, ..., at most four
files of 15 MiB. They hold the optimizer (54 MiB) but no averaged parameters: with them
(--train-options ema_decay=0.998: 72) the optimizer is left out, and nothing goes on
from that.
Nothing else is in DIR: it can be carried from machine to machine.

What a machine needs beside the checkout, all of it ignored by git: wheels/ (see
accelerator.sh); tokens/128, the caches that the training reads; and golden/, a copy of
the recorded vectors that `device_checks.py` compares with.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import datetime
import importlib.metadata
import io
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile
import tempfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "results" / "accelerator.md"
TITLE = "On an accelerator"
TRAINING = "A training that resumes"
KEPT = 120  # seconds for the training
PART, PARTS = 15 * 2**20, 4
CONFIG = "configs/gptface/faces128.py"


@dataclasses.dataclass(frozen=True)
class Step:
    """One command.

    Attributes:
      name: of the step.
      title: heading of its table.
      command: words after `python`, on an accelerator.
      tiny: the same on a CPU.
      seconds: limit of its time.
    """

    name: str
    title: str
    command: str
    tiny: str
    seconds: int


STEPS = (
    Step(
        "correct", "Does it compute what a CPU computes?",
        "device_checks.py", "device_checks.py", 150,
    ),
    Step(
        "pretrain", "Pre-training at the paper's size",
        "pretrain.py --size pretrain_base --batch 64 --device cuda --dtype bfloat16",
        "pretrain.py --size tiny --repeats 1 --no-compile --feed 0.2", 150,
    ),
    Step(
        "decode", "Guided decoding, 32 pictures",
        "decode.py --size pretrain_base --batch 32 --device cuda --dtype bfloat16 "
        "--modes low-rank explicit --repeats 1",
        "decode.py --size tiny --batch 2 --repeats 1 --modes low-rank explicit", 120,
    ),
    Step(
        "vqgan", "Tokenizer of 336 px",
        "vqgan.py --size taming336 --device cuda --dtype bfloat16 --repeats 3",
        "vqgan.py --size tiny --repeats 1 --no-compile", 120,
    ),
    Step(
        "talk2face", "Talk2Face, cached decoding",
        "talk2face.py --size seq2seq_base --samples 8 32 --device cuda --compile "
        "--dtype bfloat16 --repeats 1",
        "talk2face.py --size tiny --samples 2 --repeats 1", 90,
    ),
    Step(
        "render", "Rendered heads",
        "render.py --batch 256 --repeats 3",
        "render.py --size 16 --batch 2 --repeats 1", 60,
    ),
    Step(
        "faceptor", "Six perception tasks in one pass",
        "faceptor.py --size base --batch 16 --device cuda --dtype bfloat16 --compile "
        "--repeats 3",
        "faceptor.py --size tiny --batch 1 --repeats 1", 60,
    ),
)  # fmt: skip


class Run:
    """A run and its results, kept in results.json.

    Args:
      out: the folder.
      minutes: of the whole run.
      device: where it runs; see `device`.
      tiny: a rehearsal.
    """

    def __init__(self, out: pathlib.Path, minutes: float, device: str, tiny: bool):
        self.out, self.end = out, time.monotonic() + 60 * minutes
        self.device, self.tiny = device, tiny
        out.mkdir(parents=True, exist_ok=True)
        self.file = out / "results.json"
        self.results = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.process: subprocess.Popen | None = None
        self.stopped = False
        for sign in (signal.SIGINT, signal.SIGTERM):
            signal.signal(sign, self.stop)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()

    def stop(self, *_) -> None:
        """Lets the running command save, and begins no other."""
        self.stopped = True
        if self.process:
            os.killpg(self.process.pid, signal.SIGTERM)

    def earlier(self, name: str, command: str) -> dict:
        """What is recorded of a command on this device; nothing if it is another."""
        found = self.results.get(name, {})
        same = (found.get("command"), found.get("device")) == (command, self.device)
        return found if same else {}

    def record(self, name: str, **entries) -> None:
        """Writes what is known of a step, whole or not at all."""
        self.results[name] = entries
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.results, indent=1) + "\n")
        part.replace(self.file)

    def timed(self, name, title, command, words, limit) -> tuple[dict, str]:
        """The record of a command that was run with Python, and its whole output."""
        print(f"== {name}, {self.left:.0f} s left", flush=True)
        began = time.monotonic()
        status, output = self.command([sys.executable, *words], limit)
        entries = {
            "status": status,
            "title": title,
            "command": command,
            "device": self.device,
            "rehearsal": self.tiny,
            "seconds": round(time.monotonic() - began, 1),
            "date": datetime.date.today().isoformat(),
        }
        return entries, output

    def command(self, words: list[str], limit: float) -> tuple[int, str]:
        """Status and output of a command; after the limit SIGTERM, later SIGKILL."""
        self.process = subprocess.Popen(
            words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            cwd=HERE.parent, start_new_session=True,
        )  # fmt: skip
        timers = [
            threading.Timer(max(1.0, limit + more), os.killpg, (self.process.pid, sign))
            for more, sign in ((0, signal.SIGTERM), (20, signal.SIGKILL))
        ]
        for timer in timers:
            timer.start()
        lines = []
        for line in self.process.stdout:
            print(line, end="", flush=True)
            lines.append(line)
        status = self.process.wait()
        for timer in timers:
            timer.cancel()
        self.process = None
        return status, "".join(lines)

    def step(self, step: Step, kept: float) -> None:
        """Runs a step that is not done, if there is time for it before the last."""
        script, *words = (step.tiny if self.tiny else step.command).split()
        command = " ".join(["python", f"benchmarks/{script}", *words])
        earlier, left = self.earlier(step.name, command), self.left - kept
        if earlier.get("status") == 0:
            return
        if self.stopped or left < 30:
            if not earlier:
                self.record(step.name, status="no time", title=step.title)
            return
        entries, output = self.timed(
            step.name, step.title, command, [str(HERE / script), *words],
            min(step.seconds, left - 10),
        )  # fmt: skip
        self.record(step.name, **entries, output=output[-6000:])

    def training(self, options: list[str]) -> None:
        """Trains on until the time is up, and packs the newest checkpoint."""
        words = ["train", "--quiet", "--config", CONFIG + ":tiny" * self.tiny]
        words += [f"--config.{option}" for option in options]
        command = " ".join(["gptface", *words, "--workdir", "runs/accelerator"])
        earlier = self.earlier("training", command)
        if earlier.get("status") == 0:
            return
        if self.stopped or self.left < 60:
            if not earlier:
                self.record("training", status="no time", title=TRAINING)
            return
        with tempfile.TemporaryDirectory() as folder:
            workdir = pathlib.Path(folder) / "train"
            self.unpack(workdir)
            entries, output = self.timed(
                "training", TRAINING, command,
                ["-m", "gptface_jax.cli.main", *words, "--workdir", str(workdir)],
                self.left - 40,  # to save and to pack
            )  # fmt: skip
            if entries["status"] in (0, 75):
                entries["parts"] = self.packed(workdir)
            log = workdir / "metrics.jsonl"
            rows = log.read_text().splitlines() if log.exists() else []
        output = "\n".join([output[-2000:].rstrip(), *rows[-3:]])
        self.record("training", **entries, output=output)

    @property
    def tar(self) -> str:
        """Name of the tar of a training, before it is cut."""
        return "rehearsal.tar" if self.tiny else "model.tar"

    def packed(self, workdir: pathlib.Path) -> list[str]:
        """Names of the parts of a tar of a work folder with its newest checkpoint."""
        steps = [s for s in workdir.glob("checkpoints/*") if s.name.isdigit()]
        if not steps:
            return []
        newest = max(steps, key=lambda step: int(step.name))
        whole = workdir.parent / self.tar
        for left_out in ((), ("opt_state",)):
            with tarfile.open(whole, "w") as tar:
                for path in [*workdir.iterdir(), *newest.iterdir()]:
                    if path.name not in ("checkpoints", *left_out):
                        tar.add(path, path.relative_to(workdir))
            if whole.stat().st_size <= PART * PARTS:
                break
        for part in self.out.glob(f"{self.tar}.*"):
            part.unlink()
        names = []
        with open(whole, "rb") as file:
            while block := file.read(PART):
                names.append(f"{self.tar}.{len(names):02d}")
                (self.out / names[-1]).write_bytes(block)
        return names

    def unpack(self, workdir: pathlib.Path) -> None:
        """Puts back what an earlier run packed, if one did."""
        if parts := sorted(self.out.glob(f"{self.tar}.*")):
            data = io.BytesIO(b"".join(part.read_bytes() for part in parts))
            with tarfile.open(fileobj=data) as tar:
                tar.extractall(workdir, filter="data")


def device() -> str:
    """Names of device, JAX and PyTorch, from a process of its own."""
    code = "import jax; print(jax.devices()[0].device_kind)"
    found = subprocess.run(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, check=False
    )
    if found.returncode:
        raise SystemExit("JAX does not start here; what it says is above")
    libraries = []
    for name in ("jax", "torch"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            libraries.append(f"{name} {importlib.metadata.version(name)}")
    return ", ".join([found.stdout.strip(), *libraries])


def merge(out: pathlib.Path, page: pathlib.Path = PAGE) -> None:
    """Puts the tables of a run into a page of results, one section a step.

    A section of that name that is there is replaced, and so is the page's row in the
    index, `results.md` beside the folder. Rehearsals are left out.

    Raises:
      SystemExit: there is nothing else.
    """
    results = json.loads((out / "results.json").read_text())
    ran = [found for found in results.values() if found.get("rehearsal") is False]
    if not ran:
        raise SystemExit(f"'{out}' holds no step that ran on an accelerator")
    text = page.read_text() if page.exists() else f"# {TITLE}\n"
    for found in ran:
        said = {0: "", 75: " (stopped, goes on)"}.get(
            found["status"], f" (failed, status {found['status']})"
        )
        shown = [w for w in found["output"].splitlines() if not _noise(w)]
        section = (
            f"## {found['title']}\n\n{found['device']}, {found['date']}, "
            f"{found['seconds']:.0f} s{said}.\n\n```\n{found['command']}\n```\n\n```\n"
            + "\n".join(shown[-40:])
            + "\n```\n"
        )
        text = _replaced(text, rf"## {re.escape(found['title'])}\n.*?(?=\n\n## |\Z)",
                         section, "\n\n")  # fmt: skip
    page.write_text(text)
    index = page.parent.with_suffix(".md")
    titles = ", ".join(re.findall(r"^## (.*)$", text, re.M))
    row = f"| [{TITLE}]({page.parent.name}/{page.name}) | {titles} |"
    found = rf"\| \[{re.escape(TITLE)}\]\([^\n]*"
    index.write_text(_replaced(index.read_text(), found, row, "\n"))


def _replaced(text: str, old: str, new: str, between: str) -> str:
    """The text with what the pattern finds replaced, or with the new at its end."""
    new = new.rstrip()
    text, count = re.subn(old, lambda _: new, text.rstrip(), count=1, flags=re.S)
    return (text if count else text + between + new) + "\n"


def _noise(line: str) -> bool:
    return bool(re.match(r"^([IWE]\d{4} |WARNING:|.*Warning: )", line))


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=9.0, help="of this run")
    parser.add_argument("--tiny", action="store_true", help="rehearsal on a CPU")
    parser.add_argument("--only", nargs="+", choices=[s.name for s in STEPS])
    parser.add_argument("--no-training", action="store_true")
    parser.add_argument(
        "--train-options", nargs="+", default=["ema_decay=0"], metavar="KEY=VALUE"
    )
    parser.add_argument("--merge", type=pathlib.Path, metavar="DIR")
    options = parser.parse_args(arguments)
    if bool(options.out) == bool(options.merge):
        parser.error("give either --out or --merge")
    return options


def main(arguments: list[str] | None = None) -> int:
    options = read_options(arguments)
    if options.merge:
        merge(options.merge)
        return 0
    where = device()
    if where.startswith("cpu") and not options.tiny:
        raise SystemExit(
            f"JAX finds no accelerator here ({where}): give --tiny to rehearse"
        )
    run = Run(options.out, options.minutes, where, options.tiny)
    print(where)
    trains = not options.no_training and not options.only
    for step in STEPS:
        if not options.only or step.name in options.only:
            run.step(step, KEPT * trains)
    if trains:
        run.training(options.train_options)
    wrong = [n for n, r in run.results.items() if r.get("status", 0) not in (0, 75)]
    print(f"not done: {', '.join(wrong) or 'nothing'}")
    return 75 if run.stopped else int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
