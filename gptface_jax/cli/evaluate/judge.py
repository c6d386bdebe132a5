"""balanced accuracy of a judge by attribute, as JSON"""

from __future__ import annotations

import argparse

from gptface_jax.cli.evaluate import _shared
from gptface_jax.cli.evaluate._shared import add_arguments as add_arguments


def run(options: argparse.Namespace) -> None:
    judge = _shared.open_judge(options)
    figures = judge.balanced_accuracy(_shared.records(options))
    mean = sum(figures.values()) / len(figures)
    _shared.show({**figures, "mean": mean}, options)
