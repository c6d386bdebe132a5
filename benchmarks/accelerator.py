"""Everything that waits for an accelerator, in one run, most valuable first.

    bash benchmarks/accelerator.sh --out DIR                 # twelve minutes of a GPU
    bash benchmarks/accelerator.sh --out DIR --tiny          # rehearsal on a CPU
    bash benchmarks/accelerator.sh --out DIR --only pretrain decode
    python benchmarks/accelerator.py --merge DIR             # into docs/results

DIR gets results.json, written anew after every step: what ran, for how long, what it
printed. A step that is done is not done again; one that was killed, or that failed, is.
A step has a limit of its own, and none begins that the rest of --minutes is too short
for. The last is a training that goes on where it was stopped, with whatever time is
left; its weights come as DIR/model.tar.00, .01, ... of 15 MiB each. What it reads:
token caches in tokens/128, and --train-options KEY=VALUE of its config.
"""

from __future__ import annotations

import argparse
import dataclasses
import datetime
import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tarfile
import threading
import time

HERE = pathlib.Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "results" / "accelerator.md"
PART = 15 * 2**20
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
        "device_checks.py", "device_checks.py", 120,
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
    """

    def __init__(self, out: pathlib.Path, minutes: float):
        self.out, self.end = out, time.monotonic() + 60 * minutes
        out.mkdir(parents=True, exist_ok=True)
        self.file = out / "results.json"
        self.results = json.loads(self.file.read_text()) if self.file.exists() else {}
        self.process: subprocess.Popen | None = None
        self.stopped = False
        signal.signal(signal.SIGTERM, self.stop)

    @property
    def left(self) -> float:
        """Seconds that are left."""
        return self.end - time.monotonic()

    def stop(self, *_) -> None:
        """Lets the running command save, and begins no other."""
        self.stopped = True
        if self.process:
            os.killpg(self.process.pid, signal.SIGTERM)

    def record(self, name: str, **entries) -> None:
        """Writes what is known of a step, whole or not at all."""
        self.results[name] = entries
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps(self.results, indent=1) + "\n")
        part.replace(self.file)

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

    def step(self, step: Step, tiny: bool) -> None:
        """Runs a step that is not done, if there is time for it."""
        if self.results.get(step.name, {}).get("status") == 0 or self.stopped:
            return
        if self.left < 30:
            self.record(step.name, status="no time", title=step.title)
            return
        script, *words = (step.tiny if tiny else step.command).split()
        print(f"== {step.name}, {self.left:.0f} s left", flush=True)
        began = time.monotonic()
        limit = min(step.seconds, self.left - 10)
        status, output = self.command(
            [sys.executable, str(HERE / script), *words], limit
        )
        self.record(
            step.name,
            status=status,
            title=step.title,
            command=f"python benchmarks/{script} {' '.join(words)}".strip(),
            seconds=round(time.monotonic() - began, 1),
            date=datetime.date.today().isoformat(),
            output=output[-6000:],
        )

    def training(self, tiny: bool, options: list[str]) -> None:
        """Trains on until the time is up, and packs the weights."""
        if self.stopped or self.left < 40:
            self.record("training", status="no time", title="A training that resumes")
            return
        workdir = self.out / "train"
        words = ["-m", "gptface_jax.cli.main", "train", "--quiet", "--workdir"]
        words += [str(workdir), "--config", CONFIG + ":tiny" * tiny]
        words += [f"--config.{option}" for option in options]
        print(f"== training, {self.left:.0f} s left", flush=True)
        began = time.monotonic()
        # Time to save, to export and to pack.
        status, output = self.command([sys.executable, *words], self.left - 30)
        rows = []
        if (workdir / "metrics.jsonl").exists():
            rows = (workdir / "metrics.jsonl").read_text().splitlines()
        parts = []
        if status in (0, 75) and (workdir / "checkpoints").exists():
            parts = self.packed(workdir)
        self.record(
            "training",
            status=status,
            title="A training that resumes",
            command=f"python {' '.join(words)}",
            seconds=round(time.monotonic() - began, 1),
            date=datetime.date.today().isoformat(),
            output=output[-2000:] + "\n".join(rows[-3:]),
            parts=parts,
        )

    def packed(self, workdir: pathlib.Path) -> list[str]:
        """Names of the parts of a tar of the last checkpoint, config and log."""
        whole = self.out / "model.tar"
        with tarfile.open(whole, "w") as tar:
            for name in ("checkpoints", "config.json", "metrics.jsonl", "vocab.txt"):
                if (workdir / name).exists():
                    tar.add(workdir / name, f"train/{name}")
        names = []
        with open(whole, "rb") as file:
            while block := file.read(PART):
                names.append(f"model.tar.{len(names):02d}")
                (self.out / names[-1]).write_bytes(block)
        whole.unlink()
        return names


def device() -> str:
    """Names of device, JAX and PyTorch, from a process of its own."""
    code = (
        "import jax; d = jax.devices()[0]; print(d.device_kind, 'jax', jax.__version__)"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    return found.stdout.strip() or found.stderr.strip().splitlines()[-1]


def merge(out: pathlib.Path, page: pathlib.Path = PAGE) -> None:
    """Puts the tables of a run into a page of results, one section a step.

    A section of that name that is there is replaced.
    """
    results = json.loads((out / "results.json").read_text())
    where = results["device"]["kind"]
    text = page.read_text() if page.exists() else "# On an accelerator\n"
    for name, found in results.items():
        if name == "device" or "output" not in found:
            continue
        said = {0: "", 75: " (stopped, goes on)"}.get(
            found["status"], f" (failed, status {found['status']})"
        )
        shown = [w for w in found["output"].splitlines() if not _noise(w)]
        section = (
            f"## {found['title']}\n\n{where}, {found['date']}, "
            f"{found['seconds']:.0f} s{said}.\n\n```\n{found['command']}\n```\n\n```\n"
            + "\n".join(shown[-40:])
            + "\n```\n"
        )
        old = re.compile(rf"## {re.escape(found['title'])}\n.*?(?=\n## |\Z)", re.S)
        if old.search(text):
            text = old.sub(lambda _, new=section: new.rstrip() + "\n", text, count=1)
        else:
            text = f"{text.rstrip()}\n\n{section}"
    page.write_text(text.rstrip() + "\n")


def _noise(line: str) -> bool:
    return bool(re.match(r"^([IWE]\d{4} |WARNING:|.*Warning: )", line))


def read_options(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=pathlib.Path, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=12.0)
    parser.add_argument("--tiny", action="store_true", help="rehearsal on a CPU")
    parser.add_argument("--only", nargs="+", choices=[s.name for s in STEPS])
    parser.add_argument("--no-training", action="store_true")
    parser.add_argument("--train-options", nargs="+", default=[], metavar="KEY=VALUE")
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
    run = Run(options.out, options.minutes)
    run.record("device", kind=device())
    print(run.results["device"]["kind"])
    for step in STEPS:
        if not options.only or step.name in options.only:
            run.step(step, options.tiny)
    if not options.no_training and not options.only:
        run.training(options.tiny, options.train_options)
    wrong = [n for n, r in run.results.items() if r.get("status", 0) not in (0, 75)]
    print(f"not done: {', '.join(wrong) or 'nothing'}")
    return 75 if run.stopped else int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
