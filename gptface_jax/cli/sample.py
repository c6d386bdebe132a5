"""Draw faces out of nothing, or after a sentence.

gptface sample --count 8 --out faces.png
gptface sample --count 8 --text "a man with a beard" --out faces.png
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _photo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--count", type=int, default=8, help="faces, on one sheet")
    parser.add_argument("--text", default="", help="a sentence to follow")
    parser.add_argument("--out", required=True, help="FILE.png for the sheet")
    _photo.add_model(parser)


def run(options: argparse.Namespace) -> None:
    import numpy as np

    from gptface_jax.apps import pictures

    drawn = _photo.load(options).sample(
        options.count, options.text, seed=options.seed, **_photo.decode_options(options)
    )
    sheet = pictures.sheet([np.asarray(x) for x in drawn], min(8, len(drawn)))
    pictures.save(sheet, options.out, {"Comment": pictures.MARK})
    print(f"wrote {options.out}")
