"""Photos through the VQGAN and back: a grid picture, PSNR, SSIM, use of the codes.

gptface reconstruct --images my_photos --tokenizer runs/vqgan --out grid.png
"""

from __future__ import annotations

import argparse
import json

from gptface_jax.cli import _source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _source.add_arguments(parser)
    parser.add_argument(
        "--tokenizer", required=True, help="VQGAN training run or model directory"
    )
    parser.add_argument("--out", help="picture of originals above reconstructions")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> None:
    from gptface_jax.apps import reconstructing

    figures = reconstructing.reconstruct(
        _source.spec(options),
        options.tokenizer,
        options.out,
        progress=not options.quiet,
    )
    print(json.dumps({k: round(v, 4) for k, v in figures.items()}))
