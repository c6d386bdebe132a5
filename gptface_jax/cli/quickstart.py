"""Four or more text-guided edits with the bundled demo model, on one sheet.

gptface quickstart
gptface quickstart --image me.jpg --crop 120,40,420,340

Needs no network and no training; takes about a minute on two cores, most of it
compilation. Writes into ./gptface-quickstart/.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--image", help="a photo of yours instead, in which the face is found"
    )
    parser.add_argument(
        "--crop", metavar="x0,y0,x1,y1", help="square around the head in --image"
    )
    parser.add_argument(
        "--out", default="gptface-quickstart", help="folder of the results"
    )
    parser.add_argument(
        "--model", default="demo", help="bundled name, model directory or training run"
    )
    parser.add_argument("--seed", type=int, default=1, help="random seed")


def run(options: argparse.Namespace) -> None:
    import time

    from gptface_jax.apps import quickstart
    from gptface_jax.cli import _photo

    start = time.perf_counter()
    sheet = quickstart.run(
        options.out,
        image=options.image,
        crop=_photo.box(options.crop, "--crop"),
        model=options.model,
        seed=options.seed,
    )
    print(
        f"wrote {sheet} ({time.perf_counter() - start:.0f} s); the edits are beside it"
    )
