"""Fill a region of a photo without a text.

gptface inpaint --image photo.jpg --box 40,60,90,100 --out new.png
gptface inpaint --image photo.jpg --region span:0.4 --out new.png
gptface inpaint --jobs photos/ --region mouth --out filled/

The face is found wherever it is, brought upright, filled in, and carried back. Beside
FILE.png, at the photo's own resolution, come FILE.strip.png (before, mask, after) and
FILE.json (seed, mask, model). With a sentence it is `gptface edit`.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _jobs, _photo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _photo.add_arguments(parser)
    _jobs.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    if options.jobs:
        return _jobs.run(options, "inpaint", _photo.arguments(options))
    _jobs.need(options, "image")
    _photo.check_out(options, options.image, options.mask)
    with _photo.elapsed_time("inpainting"):
        model = _photo.load(options)
        edit = model.inpaint(options.image, **_photo.arguments(options))
    _photo.finish(edit, options.out)
