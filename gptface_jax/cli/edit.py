"""Edit a region of a photo with a sentence.

gptface edit --image photo.jpg --region mouth --text "a smiling woman" --out new.png

Without --mask, --box or --region the model proposes a region by itself.

Beside FILE.png, at the photo's own resolution, come FILE.strip.png (before, mask,
after) and FILE.json (seed, text, mask, model, match score per iteration).
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _photo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _photo.add_arguments(parser)
    _photo.add_guidance(parser)


def run(options: argparse.Namespace) -> None:
    _photo.check_out(options, options.image, options.mask)
    changes = {"guidance": options.guidance, "step_size": options.step_size}
    model = _photo.load(options)
    edit = model.edit(
        options.image,
        options.text,
        samples=options.samples,
        area=options.area,
        **_photo.arguments(options),
        **{k: v for k, v in changes.items() if v is not None},
    )
    _photo.finish(edit, options.out)
