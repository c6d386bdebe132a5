"""Fill a region of a photo without a text.

gptface inpaint --image photo.jpg --box 40,60,90,100 --out new.png
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _photo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _photo.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    _photo.check_out(options, options.image, options.mask)
    model = _photo.load(options)
    edit = model.inpaint(options.image, **_photo.arguments(options))
    _photo.finish(edit, options.out)
