"""Draw faces out of nothing, or after a sentence.

gptface sample --count 8 --out faces.png
gptface sample --count 8 --text "a man with a beard" --out faces.png

FILE.png is a sheet of the faces, at the model's own resolution; FILE.json beside it
says how they were made (seed, text, model). A Talk2Face draws by `gptface synthesize`.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _photo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--count", type=int, default=8, help="number of faces, on one sheet"
    )
    parser.add_argument("--text", default="", help="text prompt")
    parser.add_argument("--out", required=True, help="FILE.png for the sheet")
    _photo.add_model(parser)


def run(options: argparse.Namespace) -> None:
    _photo.check_out(options)
    decode = _photo.decode_options(options)
    with _photo.notes(), _photo.elapsed_time("drawing"):
        drawn = _photo.load(options).sample(
            options.count, options.text, seed=options.seed, **decode
        )
    with _photo.notes():
        paths = drawn.save(options.out)
    print("wrote " + ", ".join(map(str, paths)))
