"""Sentences for a photo, and how likely each is.

gptface caption --model my_model --image photo.jpg
gptface caption --model my_model --image photo.jpg --samples 8 --json captions.json
gptface caption --model my_model --jobs photos/ --out captions/

A Talk2Face (configs/talk2face) writes a sentence and gives the mean probability of its
words; a GPTFace, such as the bundled demo model, fills in --words words and gives the
probability that they match. Of a model that is both the Talk2Face writes, or with
--words the GPTFace; --system says so, too. The model sees the face of the photo,
brought upright; it knows no names.
"""

from __future__ import annotations

import argparse
import sys

from gptface_jax.cli import _jobs, _photo
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--image", help="the photo")
    parser.add_argument(
        "--samples",
        type=int,
        help="sentences to write, of which equal ones are given once; default the "
        "likeliest alone, or 8 by a GPTFace",
    )
    parser.add_argument(
        "--words", type=int, help="words of a sentence (GPTFace); default 8"
    )
    _photo.add_rank_by(
        parser, "with --samples, of a Talk2Face: put first what matches best by this"
    )
    parser.add_argument("--json", metavar="FILE", help="the same figures as JSON")
    parser.add_argument("--out", help="folder for the results.jsonl of --jobs")
    _photo.add_face(parser)
    _photo.add_model(parser, options="GenerateConfig or DecodeConfig, by the model")
    _jobs.add_arguments(parser, pictures=False)


def run(options: argparse.Namespace) -> None:
    if options.system is None and options.words is None:
        from gptface_jax.experiments import opening

        if "talk2face" in opening.systems_of(options.model):
            options.system = "talk2face"
    given = {n: getattr(options, n) for n in ("samples", "words", "rank_by")}
    arguments = {
        "seed": options.seed,
        **{name: value for name, value in given.items() if value is not None},
        **_photo.face(options, every=False),
        **_photo.decode_options(options),
    }
    if options.jobs:
        if options.json:
            raise UserError(
                "--json is for one --image; --jobs write results.jsonl to --out"
            )
        return _jobs.run(options, "caption", arguments)
    _jobs.need(options, "image")
    with _photo.notes(), _photo.elapsed_time("reading the photo"):
        model = _photo.load(options)
        found = model.caption(options.image, **arguments)
    rows = [{"text": text, "probability": chance} for text, chance in found]
    if options.json:
        _photo.write_json(options, model, arguments, rows)
    print("probability  text", file=sys.stderr)
    for text, chance in found:
        print(f"{chance:.3f}        {text}")
