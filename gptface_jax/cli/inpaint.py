"""Fill a region of a photo without a text.

gptface inpaint --image photo.jpg --box 40,60,90,100 --out new.png
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _photo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _photo.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    import gptface_jax

    _photo.check_out(options)
    model = gptface_jax.load(options.model, tokenizer=options.tokenizer)
    edit = model.inpaint(options.image, **_photo.arguments(options))
    _photo.finish(edit, options.out)
