"""Paint over the scratches and cracks of an old photo.

gptface restore --image old.jpg --out new.png
gptface restore --image old.jpg --damage marked.png --out new.png
gptface restore --jobs old_photos/ --out restored/

Scratches are found by themselves (thin bright or dark lines) or marked in white in a
picture of the photo's size. The strip FILE.strip.png shows what was painted over.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _jobs, _photo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", help="the photo")
    parser.add_argument("--damage", help="mask image, white = damaged")
    parser.add_argument(
        "--kind",
        choices=("bright", "dark", "both"),
        default="both",
        help="colour of the scratches to detect",
    )
    parser.add_argument(
        "--thin",
        type=float,
        default=1.0,
        help="inpaint damage up to this many tokens wide without the model; default 1",
    )
    parser.add_argument(
        "--paint",
        choices=("damage", "tokens"),
        default="damage",
        help="replace damaged pixels only, or all redrawn tokens (wide scratches)",
    )
    _photo.add_change(parser, "the damage")
    parser.add_argument("--out", required=True, help="FILE.png for the result")
    _photo.add_kept(parser)
    _photo.add_model(parser)
    _jobs.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    arguments = {
        "damage": options.damage,
        "kind": options.kind,
        "thin": options.thin,
        "paint": options.paint,
        "seed": options.seed,
        **_photo.change(options),
        **_photo.kept(options),
        **_photo.decode_options(options),
    }
    if options.jobs:
        return _jobs.run(options, "restore", arguments)
    _jobs.need(options, "image")
    _photo.check_out(options, options.image, options.damage)
    with _photo.elapsed_time("restoring"):
        restored = _photo.load(options).restore(options.image, **arguments)
    _photo.finish(restored, options.out)
