"""what people said on the page of `gptface serve --rate DIR`, as tables

gptface evaluate ratings DIR
gptface evaluate ratings DIR/ratings/ann.jsonl DIR/ratings/bob.jsonl --out figures.json

Of edits the mean quality and agreement with the text, 1 to 5; of tags NDCG at 5, 10 and
20 and mean average precision in percent, by the mean grade of all raters; in brackets
the 95 % interval (bootstrap over photographs). Of a folder the ranks of words are those
that its systems have now. Below how far raters agree: Krippendorff's
alpha for ordinal answers, 1 in full, 0 as by chance.
"""

from __future__ import annotations

import argparse
import os

from gptface_jax.cli.evaluate import _shared


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files", nargs="+", metavar="FILE.jsonl|DIR", help="of raters, or what they saw"
    )
    parser.add_argument("--out", metavar="FILE.json", help="the figures as JSON")


def run(options: argparse.Namespace) -> None:
    from gptface_jax.apps import rated
    from gptface_jax.data import ratings as answers
    from gptface_jax.protocols import ratings

    rows = answers.read(options.files)
    for folder in filter(os.path.isdir, options.files):
        rows = rated.as_now(rows, folder)
    found = ratings.figures(rows)
    print(ratings.tables(found))
    _shared.write(found, options.out)
