"""balanced accuracy of a judge, attribute by attribute

gptface evaluate judge --judge runs/judge --images synthetic --limit 1000 --seed 77

A judge is a classifier that is trained apart (configs/judge) and says whether edits
show what was asked for. Printed as JSON: for each attribute the mean of the shares that
it gets right where the attribute is there and where it is not, 0.5 by chance. One of
expressions (configs/judge/faces64.py:expressions) writes --samples instead, the surest
expression of each picture, for evaluate folds.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _source
from gptface_jax.cli.evaluate import _shared
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_photos(parser)
    _shared.add_judge(parser)
    _shared.add_fold(parser, "of expressions")
    _shared.add_out(parser)


def run(options: argparse.Namespace) -> None:
    from gptface_jax.protocols import samples
    from gptface_jax.protocols.records import open_records

    judge = _shared.open_judge(options)
    spec = _shared.fold_of(options, judge.size)
    records = open_records(spec, _source.limit(options, 256))
    if options.samples:
        rows = judge.expressions(records)
        samples.write(options.samples, rows)
        right = sum(row["said"] == row["truth"] for row in rows)
        print(f"{right} of {len(rows)} expressions are right -> {options.samples}")
        return
    figures = _shared.defined(judge.balanced_accuracy(records))
    if not figures:
        raise UserError(
            f"'{options.images}' has no labels to judge by; the judge tells "
            + ", ".join(judge.attributes)
        )
    mean = sum(figures.values()) / len(figures)
    _shared.show({**figures, "mean": mean}, options)
