"""how well the masks that a sentence proposes fit what it changes

gptface evaluate proposals --model demo --limit 24 --seed 9

The truth is the tokens in which two drawings of one face, with an attribute and without
it, differ. Printed as JSON: intersection over union of the proposed mask with these,
beside the model's saliency alone, the attribute's usual place (average), the middle of
the face and a random blob of the same size.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _source
from gptface_jax.cli.evaluate import _shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _source.add_limit(parser, "drawn faces an attribute; default 64")
    parser.add_argument("--seed", type=int, default=0, help="of the drawn faces")
    _shared.add_model(parser)
    _shared.add_attributes(parser, "eight that change a part of a drawn face")
    parser.add_argument(
        "--method",
        choices=("likelihood", "gradient", "occlusion"),
        default="likelihood",
        help="what tells where a sentence shows: how the codes' likelihoods differ "
        "from those under the opposite one, the gradient of the match, or its loss "
        "where tokens are hidden",
    )
    _shared.add_out(parser)


def run(options: argparse.Namespace) -> None:
    from gptface_jax.protocols import proposals

    figures = proposals.proposals(
        _shared.model(options, "edit"),
        options.attributes or proposals.SHOWN,
        _source.limit(options, 64),
        method=options.method,
        seed=options.seed,
        progress=not options.quiet,
    )
    _shared.show(figures, options)
