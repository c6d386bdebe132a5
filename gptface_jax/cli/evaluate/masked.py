"""how likely the codes behind spans and random masks are, as JSON"""

from __future__ import annotations

import argparse

from gptface_jax.cli.evaluate import _shared
from gptface_jax.cli.evaluate._shared import add_arguments as add_arguments


def run(options: argparse.Namespace) -> None:
    import tqdm

    from gptface_jax.protocols.likelihood import masked

    _shared.need(options, "run")
    limit = options.limit or 512
    runs = tqdm.tqdm(options.run, unit="run", disable=options.quiet)
    found = {run: masked(run, options.ratios, records=limit) for run in runs}
    if options.plot:
        from gptface_jax.apps import plotting

        plotting.hidden_codes(found, options.plot)
    _shared.show(found, options)
