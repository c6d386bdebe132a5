"""Words and sentences that fit a photo, and how well.

gptface tag --image photo.jpg
gptface tag --image photo.jpg --text "a smiling woman" --text "a man with a beard"
gptface tag --image photo.jpg --caption 8
gptface tag --jobs photos/ --out tags/

The model sees the face of the photo, brought upright. It describes what is seen; it
knows no names. The demo model has few words and is often wrong. "match" is p(text
matches), "probability" the word's own, and "score", which ranks them, their product.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys

from gptface_jax.cli import _jobs, _photo
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", help="the photo")
    parser.add_argument("--count", type=int, default=10, help="number of tags")
    parser.add_argument(
        "--text", action="append", help="score this sentence instead; repeatable"
    )
    parser.add_argument(
        "--caption", type=int, metavar="N", help="write sentences of N words instead"
    )
    parser.add_argument("--json", metavar="FILE", help="the same figures as JSON")
    parser.add_argument("--out", help="folder for the results.jsonl of --jobs")
    _photo.add_face(parser)
    _photo.add_model(parser)
    _jobs.add_arguments(parser, pictures=False)


def run(options: argparse.Namespace) -> None:
    verb, arguments = "tag", {"count": options.count}
    if options.caption is not None:
        verb, arguments = "caption", {"words": options.caption}
    face = _photo.face(options, every=False)
    arguments |= {"seed": options.seed, **face, **_photo.decode_options(options)}
    if options.jobs:
        if options.text:
            raise UserError("--text scores one photo; leave it out with --jobs")
        if options.json:
            raise UserError(
                "--json is for one --image; --jobs write results.jsonl to --out"
            )
        return _jobs.run(options, verb, arguments)
    _jobs.need(options, "image")
    with _photo.notes(), _photo.elapsed_time("reading the photo"):
        model = _photo.load(options)
        found = list(_read(model, options, arguments, face))
    if options.json:
        _photo.write_json(options, model, arguments, found)
    if found:
        first, *names = found[0]
        print("  ".join([f"{first:30s}", *names]), file=sys.stderr)
    for row in found:
        (_, label), *figures = row.items()
        shown = [f"{value:{len(name)}.3f}" for name, value in figures]
        print("  ".join([f"{label:30s}", *shown]))


def _read(model, options: argparse.Namespace, arguments: dict, face: dict):
    """Rows of what was asked for."""
    if options.text:
        matches = model.match(options.image, options.text, **face)
        for text, match in zip(options.text, matches):
            yield {"text": text, "match": float(match)}
    elif options.caption is not None:
        for text, match in model.caption(options.image, **arguments):
            yield {"text": text, "match": match}
    else:
        yield from map(dataclasses.asdict, model.tag(options.image, **arguments))
