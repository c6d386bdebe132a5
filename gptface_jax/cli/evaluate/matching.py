"""how often a model tells that a picture and a text match

gptface evaluate matching --model demo --images synthetic --limit 512 --seed 77
gptface evaluate matching --model my_model --images photos --attributes Smiling Male

Printed as JSON: the share of right verdicts on pairs of which half match ("accuracy",
0.5 by chance; every picture with its own text and with another's), and for each
attribute how often the sentence that is true of a picture beats the one that is not.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli.evaluate import _shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_photos(parser)
    _shared.add_model(parser)
    _shared.add_attributes(parser, "six of CelebA's, and all in the texts")
    _shared.add_max_phrases(parser)
    _shared.add_out(parser)


def run(options: argparse.Namespace) -> None:
    from gptface_jax.protocols.matching import matching

    model = _shared.model(options, "edit")
    figures = matching(
        model,
        _shared.records(options, model.size),
        max_phrases=options.max_phrases,
        attributes=options.attributes,
    )
    figures["by_attribute"] = _shared.defined(figures["by_attribute"])
    _shared.show(figures, options)
