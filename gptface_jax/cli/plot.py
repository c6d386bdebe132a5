"""The curves of one or more runs in one picture.

  gptface plot runs/*
  gptface plot runs/a runs/b --metric loss "itm_*" --smooth 10 --out curves.png

Reads metrics.jsonl of each run, also while it is training; the last values are printed.
A metric and its held-out form share a panel. Needs the extra `plot`.
"""

from __future__ import annotations

import argparse
import sys

from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("runs", nargs="+", metavar="RUN", help="work folders")
    parser.add_argument(
        "--metric", nargs="+", default=[], help='names or patterns such as "itm_*"'
    )
    parser.add_argument(
        "--smooth", type=int, default=1, help="average so many lines of the log"
    )
    parser.add_argument("--out", default="curves.png", help="the picture")


def run(options: argparse.Namespace) -> None:
    from gptface_jax.apps import plotting

    plotting.check(options.out)
    if options.smooth < 1:
        raise UserError(f"--smooth is {options.smooth}; use 1 or more")
    found = {}
    for label, path in zip(plotting.labels(options.runs), options.runs):
        try:
            found[label] = plotting.read_log(path)
        except UserError as error:
            # A pattern such as runs/* also meets folders of other things.
            if len(options.runs) == 1:
                raise
            print(f"passed over: {error}", file=sys.stderr)
    if not found:
        raise UserError("none of these folders is a training run")
    names = plotting.panels([n for run in found.values() for n in run], options.metric)
    plotting.plot(found, options.out, options.metric, options.smooth)
    for label, curves in found.items():
        last = max((steps[-1] for steps, _ in curves.values()), default=0)
        shown = [
            f"{name} {curves[name][1][-1]:.4g}"
            for base in names
            for name in (base, f"eval/{base}")
            if name in curves
        ]
        print(f"{label}, step {last}: {', '.join(shown)}")
    print(f"drawn: {options.out}")
