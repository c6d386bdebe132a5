"""Join two photos along a seam; the model draws what lies along it.

gptface stitch --first a.jpg --second b.jpg --out both.png
gptface stitch --first a.jpg --second b.jpg --seam mask.png --out both.png
gptface stitch --jobs pairs.jsonl --out joined/

Both should show a face upright in the same place. The first gives the size; the
second gets its colours.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _jobs, _photo


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--first", help="left or top photo")
    parser.add_argument("--second", help="right or bottom photo")
    parser.add_argument(
        "--seam",
        default="vertical",
        help="vertical, horizontal, or a mask image, white = second photo",
    )
    parser.add_argument(
        "--at", type=float, default=0.5, help="position of a straight seam, 0 to 1"
    )
    parser.add_argument(
        "--band",
        type=float,
        default=1.0,
        help="width in tokens of the band to be redrawn",
    )
    parser.add_argument(
        "--keep-colours",
        action="store_true",
        help="no colour matching of the second photo",
    )
    parser.add_argument(
        "--text", default="", help="text prompt: what the seam should show"
    )
    parser.add_argument(
        "--samples",
        type=int,
        default=1,
        help="candidates, of which the best match is kept",
    )
    parser.add_argument("--out", required=True, help="FILE.png for the result")
    _photo.add_kept(parser)
    _photo.add_model(parser)
    _jobs.add_arguments(parser)


def run(options: argparse.Namespace) -> None:
    arguments = {
        "seam": options.seam,
        "at": options.at,
        "band": options.band,
        "colours": not options.keep_colours,
        "text": options.text,
        "samples": options.samples,
        "seed": options.seed,
        **_photo.kept(options),
        **_photo.decode_options(options),
    }
    if options.jobs:
        return _jobs.run(options, "stitch", arguments)
    _jobs.need(options, "first", "second")
    _photo.check_out(options, options.first, options.second, options.seam)
    with _photo.elapsed_time("stitching"):
        model = _photo.load(options)
        joined = model.stitch(options.first, options.second, **arguments)
    _photo.finish(joined, options.out)
