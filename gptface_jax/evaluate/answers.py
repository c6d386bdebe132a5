"""Answers about pictures against the truth, unreadable ones included (SPEC B.9.1).

An answer that could not be read is None: it is wrong, and it is counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError


def _count(said: Sequence[Any], truth: Sequence[Any]) -> int:
    if len(said) != len(truth) or not len(truth):
        raise UserError(
            f"{len(said)} answers and {len(truth)} truths; give one answer a picture, "
            "and one picture at least"
        )
    return len(truth)


def accuracy(said: Sequence[Any], truth: Sequence[Any]) -> dict[str, float]:
    """Shares of right answers to one question.

    Args:
      said: bool, word or number of each picture, None where the answer was none.
      truth: likewise, always known.

    Returns:
      accuracy: share that is right; balanced_accuracy: mean of the shares among the
      pictures of each true value, NaN where there is but one; coverage: share of
      answers that could be read; count: pictures.

    Raises:
      UserError: no pictures, or not one answer for each.
    """
    count = _count(said, truth)
    right = np.array([a is not None and a == b for a, b in zip(said, truth)])
    values = sorted(set(truth), key=str)
    hits = [right[[b == value for b in truth]].mean() for value in values]
    return {
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean(hits)) if len(hits) > 1 else float("nan"),
        "coverage": sum(a is not None for a in said) / count,
        "count": float(count),
    }


def age_errors(
    said: Sequence[float | None],
    truth: Sequence[float],
    median: float | None = None,
) -> dict[str, float]:
    """Mean absolute errors of ages, in years.

    Args:
      said: the ages, None where the answer was none.
      truth: likewise, always known.
      median: of the training set, which stands in for what could not be read; None
        where it is not known.

    Returns:
      mae: of the answers that could be read, NaN without any; mae_with_median: of all,
      NaN where it would need a median that is not known; coverage: share that could be
      read; count: pictures.

    Raises:
      UserError: as of `accuracy`.
    """
    count = _count(said, truth)
    real = np.asarray(truth, float)
    given = np.array([np.nan if a is None else a for a in said], float)
    read = ~np.isnan(given)
    error = np.abs(np.where(read, given, np.nan if median is None else median) - real)
    return {
        "mae": float(error[read].mean()) if read.any() else float("nan"),
        "mae_with_median": float(error.mean()),
        "coverage": float(read.mean()),
        "count": float(count),
    }
