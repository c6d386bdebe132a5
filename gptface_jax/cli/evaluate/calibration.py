"""how far what a model is sure of is right

gptface evaluate calibration --model demo --images synthetic --seed 77 --limit 256
gptface evaluate calibration --model my_talk2face --images synthetic --seed 77 \\
    --limit 256 --questions Smiling gender --plot reliability.png

Of a GPTFace whether picture and text match, on balanced pairs; of a model that answers
its answers. A temperature is fitted on a half and all is told of the other: share of
right answers, expected calibration error (15 bins), NLL, both also with the
temperature, and what is right among the surest half, were the others withheld. --plot
draws it.
"""

from __future__ import annotations

import argparse
import sys

from gptface_jax.cli import _source
from gptface_jax.cli.evaluate import _shared
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_photos(parser)
    _shared.add_model(parser)
    parser.add_argument(
        "--questions",
        nargs="+",
        default=[],
        help="as `gptface ask --list` names them; default all that it knows",
    )
    parser.add_argument(
        "--convention",
        default="",
        help="as of `evaluate answers`; default the pictures' own",
    )
    _shared.add_max_phrases(parser)
    parser.add_argument("--plot", metavar="FILE.png", help="reliability, as a picture")
    _shared.add_out(parser)


def run(options: argparse.Namespace) -> None:
    import gptface_jax
    from gptface_jax.apps import plotting
    from gptface_jax.protocols import calibration

    if options.plot:
        plotting.check(options.plot)
    model = gptface_jax.load(options.model, tokenizer=options.tokenizer)
    records = _shared.records(options, model.size)
    found = {}
    if hasattr(model, "editor") and not options.questions:
        found["picture and text match"] = calibration.of_matching(
            model, records, max_phrases=options.max_phrases
        )
    if hasattr(model, "learnt"):
        try:
            found |= calibration.of_answers(
                model,
                records,
                options.questions,
                convention=options.convention,
                progress=not options.quiet,
            )
        except UserError as error:
            if not found:
                raise
            print(f"no answers: {error}", file=sys.stderr)
    if not found:
        raise UserError(f"'{options.model}' neither matches nor answers; --questions?")
    print(calibration.table(found))
    if options.plot:
        plotting.reliability(found, options.plot)
    about = {"model": model.digest, "images": _source.spec(options, model.size)}
    _shared.write({**about, "figures": found}, options.out)
