"""masked likelihoods and matching of GPTFace runs on held-out tokens

gptface evaluate likelihood --run runs/gptface
gptface evaluate likelihood --run runs/a runs/b --tokens tokens/lfw_test --out nll.json

Printed as JSON: mean negative log likelihood in nats of masked codes and words, with
and without the other half of the pair, beside that of their frequencies in the training
set (unigram_nll), and the share of pairs whose match is told right.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _source
from gptface_jax.cli.evaluate import _shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_run(parser)
    parser.add_argument(
        "--tokens",
        metavar="CACHE",
        help="token cache to evaluate on; default the run's own held-out one",
    )
    _source.add_limit(parser, "held-out records that are used; default 1024")
    _shared.add_out(parser)


def run(options: argparse.Namespace) -> None:
    from gptface_jax.protocols.likelihood import likelihood

    spec = {"kind": "tokens", "path": options.tokens} if options.tokens else None
    limit = _source.limit(options, 1024)
    found = {
        run: likelihood(run, spec, records=limit, progress=not options.quiet)
        for run in options.run
    }
    _shared.show(found if len(found) > 1 else found[options.run[0]], options)
