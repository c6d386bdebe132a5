"""Rankings of tags against graded truth (SPEC A.12.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

DEPTHS = (5, 10, 20)
# Grade 0..2 -> gain.
GAINS = {
    "ndcg": lambda grade: 2.0**grade - 1.0,
    "linear_ndcg": lambda grade: np.asarray(grade, float),
}


def dcg(gains: np.ndarray, depth: int) -> float:
    """Sum of gain / log2(rank + 1) over the first `depth` ranks."""
    gains = np.asarray(gains, float)[:depth]
    return float(np.sum(gains / np.log2(np.arange(len(gains)) + 2)))


def average_precision(grades: np.ndarray, pooled: np.ndarray, most: int = 30) -> float:
    """Mean precision at the relevant results; relevant is a grade of 1 or more.

    Args:
      grades: [N] of the first results of a system, best first.
      pooled: [M] of what all systems found for the picture.
      most: results that count.

    Returns:
      0 to 1: divided by the pooled relevant ones, at most `most`; NaN without any.
    """
    relevant = np.asarray(grades)[:most] >= 1
    there = min(most, int(np.sum(np.asarray(pooled) >= 1)))
    if not there:
        return float("nan")
    precision = np.cumsum(relevant) / (np.arange(len(relevant)) + 1)
    return float(np.sum(precision * relevant) / there)


def evaluate(
    rankings: Mapping[str, Sequence[Sequence[str]]],
    grades: Sequence[Mapping[str, float]],
    depths: Sequence[int] = DEPTHS,
    most: int = 30,
) -> dict[str, dict[str, np.ndarray]]:
    """Figures of several systems on the same pictures.

    The ideal ranking of a picture is that of the pooled results of all systems, so
    that a system is not rewarded for finding little and ordering it well.

    Args:
      rankings: system -> for every picture its words, distinct, best first.
      grades: for every picture the words that are true of it -> 1 or 2, or what lies
        between where it is the mean of several raters; any other word counts 0.
      depths: of the NDCG.
      most: results of a system that count.

    Returns:
      system -> {"ndcg@5": float [pictures], ..., "linear_ndcg@5", ..., "map"}; NaN
      where no system found anything true.

    Raises:
      ValueError: a ranking repeats a word, or a system misses pictures.
    """
    for name, lists in rankings.items():
        if len(lists) != len(grades):
            raise ValueError(
                f"'{name}' ranked tags of {len(lists)} pictures, there are "
                f"{len(grades)}; rank all of them"
            )
        for words in lists:
            if len(set(words)) < len(words):
                raise ValueError(f"'{name}' ranks a word twice: {list(words)}")
    metrics = [f"{gain}@{depth}" for gain in GAINS for depth in depths]
    figures = {name: {m: [] for m in (*metrics, "map")} for name in rankings}
    for picture, truth in enumerate(grades):
        found = {
            name: np.array([truth.get(w, 0) for w in lists[picture][:most]], float)
            for name, lists in rankings.items()
        }
        words = {w for lists in rankings.values() for w in lists[picture][:most]}
        pooled = np.sort([truth.get(w, 0) for w in words])[::-1]
        for name, own in found.items():
            row = figures[name]
            for gain, function in GAINS.items():
                for depth in depths:
                    ideal = dcg(function(pooled), depth)
                    share = dcg(function(own), depth) / ideal if ideal else np.nan
                    row[f"{gain}@{depth}"].append(share)
            row["map"].append(average_precision(own, pooled, most))
    return {
        name: {metric: np.array(values) for metric, values in row.items()}
        for name, row in figures.items()
    }
