"""balanced accuracy of a judge, attribute by attribute

gptface evaluate judge --judge runs/judge --images synthetic --limit 1000 --seed 77

A judge is a classifier that is trained apart (configs/judge) and says whether edits
show what was asked for. Printed as JSON: for each attribute the mean of the shares that
it gets right where the attribute is there and where it is not, 0.5 by chance.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli.evaluate import _shared
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_photos(parser)
    _shared.add_judge(parser)
    _shared.add_out(parser)


def run(options: argparse.Namespace) -> None:
    judge = _shared.open_judge(options)
    figures = _shared.defined(judge.balanced_accuracy(_shared.records(options)))
    if not figures:
        raise UserError(
            f"'{options.images}' has no labels to judge by; the judge tells "
            + ", ".join(judge.attributes)
        )
    mean = sum(figures.values()) / len(figures)
    _shared.show({**figures, "mean": mean}, options)
