"""How well proposed masks fit, as JSON.

The masks that a sentence proposes against the pixels that two drawings differ in.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli.evaluate import _shared
from gptface_jax.cli.evaluate._shared import add_arguments as add_arguments


def run(options: argparse.Namespace) -> None:
    from gptface_jax.protocols import proposals

    figures = proposals.proposals(
        _shared.model(options),
        options.attributes or proposals.SHOWN,
        options.limit or 64,
        method=options.method,
        seed=options.seed or 0,
        progress=not options.quiet,
    )
    _shared.show(figures, options)
