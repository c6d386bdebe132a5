"""masked likelihoods of a training run on held-out tokens, as JSON"""

from __future__ import annotations

import argparse

from gptface_jax.cli.evaluate import _shared
from gptface_jax.cli.evaluate._shared import add_arguments as add_arguments


def run(options: argparse.Namespace) -> None:
    from gptface_jax.protocols.likelihood import likelihood

    _shared.need(options, "run")
    spec = {"kind": "tokens", "path": options.tokens} if options.tokens else None
    found = {
        run: likelihood(run, spec, records=options.limit or 1024) for run in options.run
    }
    _shared.show(found if len(found) > 1 else found[options.run[0]], options)
