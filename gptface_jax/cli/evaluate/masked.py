"""how likely the codes behind spans and behind random masks are

gptface evaluate masked --run runs/masks/span runs/masks/random
gptface evaluate masked --run runs/gptface --ratios 0.2 0.8 --plot masks.png

Printed as JSON: nats a hidden code, its picture's text seen, by shape of the mask and
percent of the codes that it hides ("span_40"), on the held-out records of each run.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _source
from gptface_jax.cli.evaluate import _shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_run(parser)
    parser.add_argument(
        "--ratios",
        nargs="+",
        type=float,
        default=[0.15, 0.4, 0.65, 0.85],
        help="shares of the codes that are hidden, above 0 and at most 1",
    )
    _source.add_limit(parser, "held-out records that are used; default 512")
    parser.add_argument("--plot", metavar="FILE.png", help="the figures as a picture")
    _shared.add_out(parser)


def run(options: argparse.Namespace) -> None:
    from gptface_jax.protocols.likelihood import masked

    limit = _source.limit(options, 512)
    found = {
        run: masked(run, options.ratios, records=limit, progress=not options.quiet)
        for run in options.run
    }
    if options.plot:
        from gptface_jax.apps import plotting

        plotting.hidden_codes(found, options.plot)
    _shared.show(found, options)
