"""image-text matching on balanced held-out pairs, as JSON"""

from __future__ import annotations

import argparse

from gptface_jax.cli.evaluate import _shared
from gptface_jax.cli.evaluate._shared import add_arguments as add_arguments


def run(options: argparse.Namespace) -> None:
    from gptface_jax.protocols.matching import matching

    figures = matching(
        _shared.model(options),
        _shared.records(options),
        max_phrases=options.max_phrases,
        attributes=options.attributes,
    )
    _shared.show(figures, options)
