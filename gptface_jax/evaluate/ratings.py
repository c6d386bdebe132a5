"""Ratings of people: intervals of means, and how far raters agree."""

from __future__ import annotations

import numpy as np


def interval(values: np.ndarray, count: int = 2000, seed: int = 0) -> tuple[float, ...]:
    """95 % interval of the mean of values [N], by the percentile bootstrap.

    (NaN, NaN) of fewer than two values.
    """
    if len(values) < 2:
        return float("nan"), float("nan")
    rng = np.random.default_rng(seed)
    drawn = values[rng.integers(len(values), size=(count, len(values)))]
    return tuple(float(x) for x in np.percentile(drawn.mean(axis=1), (2.5, 97.5)))


def krippendorff_alpha(values: np.ndarray) -> float:
    """Krippendorff's alpha of ordinal ratings: 1 full agreement, 0 that of chance.

    Args:
      values: float [raters, units], NaN where a rater said nothing of a unit.

    Returns:
      1 - observed / expected disagreement of pairs of ratings (Krippendorff 2011,
      "Computing Krippendorff's alpha-reliability"); NaN where no unit has two ratings,
      or all ratings are alike.
    """
    values = np.asarray(values, float)
    values = values[:, (~np.isnan(values)).sum(axis=0) >= 2]
    levels = np.unique(values[~np.isnan(values)])
    # How often each level was given to each unit.
    counts = np.array([(values == level).sum(axis=0) for level in levels], float)
    if len(levels) < 2:
        return float("nan")
    of_unit = counts.sum(axis=0)
    pairs = (counts / (of_unit - 1)) @ counts.T
    pairs -= np.diag((counts / (of_unit - 1)).sum(axis=1))  # nobody pairs with himself
    total = pairs.sum(axis=1)
    # Distance of two levels: how many ratings lie between them, half of their own.
    before = np.cumsum(total) - total / 2
    distance = (before[:, None] - before) ** 2
    expected = np.outer(total, total) - np.diag(total)
    observed = (pairs * distance).sum() / total.sum()
    by_chance = (expected * distance).sum() / (total.sum() * (total.sum() - 1))
    return float(1 - observed / by_chance)
