"""How a Talk2Face finds its answers to questions."""

from __future__ import annotations

import argparse
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--open", action="store_true", help="let the model write its answers freely"
    )
    parser.add_argument(
        "--score",
        choices=("sum", "mean"),
        default="sum",
        help="of an answer to choose: the logarithms of its tokens' probabilities as a "
        "sum, or as their mean, by which long answers do not lose",
    )
    parser.add_argument(
        "--prior",
        action="store_true",
        help="choose by how much likelier an answer is than of a grey picture",
    )


def options(options: argparse.Namespace) -> dict[str, Any]:
    """The arguments of `add_arguments`, by the names that Python has for them."""
    return {
        "closed": not options.open, "score": options.score, "prior": options.prior
    }  # fmt: skip
