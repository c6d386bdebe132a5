"""Differences between groups of people (SPEC E.7)."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.evaluate.calibration import expected_error
from gptface_jax.evaluate.ratings import interval


def figures(
    said: np.ndarray,
    truth: np.ndarray,
    confidence: np.ndarray,
    axes: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """How predictions about the same people differ with the group they are drawn in.

    Args:
      said: bool [N,G1,...,Gk,A], A predictions of N people, each of whom is there once
        for every combination of groups.
      truth: float likewise, 1 or 0, NaN where it is not known.
      confidence: float likewise in [0,1], of what was said.
      axes: name of an axis -> names of its groups, in the order of G1 to Gk.

    Returns:
      "groups": axis -> group -> accuracy, true_positive, false_positive, ece;
      "gaps": axis -> accuracy of its best group minus that of its worst, with the 95 %
      interval of that pair's difference (bootstrap over people), and the largest
      differences in true and false positives;
      "flips": axis -> share of predictions that change with the group though the truth
      does not;
      "worst", "best": accuracy of the combinations of groups, and which.
    """
    known = ~np.isnan(truth)
    right = np.where(known, said == (truth > 0.5), np.nan)
    of_groups, gaps, flips = {}, {}, {}
    for place, (axis, names) in enumerate(axes.items(), 1):
        parts = [
            tuple(np.moveaxis(x, place, 0)[i] for x in (said, truth, right, confidence))
            for i in range(len(names))
        ]
        rows = {name: _of_group(*part) for name, part in zip(names, parts)}
        of_groups[axis] = rows
        accuracy = [row["accuracy"] for row in rows.values()]
        low, high = int(np.argmin(accuracy)), int(np.argmax(accuracy))
        apart = _by_person(parts[high][2]) - _by_person(parts[low][2])
        gaps[axis] = {
            "accuracy": accuracy[high] - accuracy[low],
            "interval": interval(apart[~np.isnan(apart)]),
            **{
                kind: float(np.ptp([row[kind] for row in rows.values()]))
                for kind in ("true_positive", "false_positive")
            },
        }
        flips[axis] = _flips(said, truth, place)
    combined = {
        ", ".join(groups): float(np.nanmean(right[(slice(None), *where)]))
        for groups, where in zip(
            itertools.product(*axes.values()),
            itertools.product(*(range(len(names)) for names in axes.values())),
        )
    }
    worst, best = (pick(combined, key=combined.__getitem__) for pick in (min, max))
    return {
        "groups": of_groups,
        "gaps": gaps,
        "flips": flips,
        "worst": {"group": worst, "accuracy": combined[worst]},
        "best": {"group": best, "accuracy": combined[best]},
    }


def _of_group(said, truth, right, confidence) -> dict[str, float]:
    known = ~np.isnan(truth)

    def share(where):
        return float(said[where].mean()) if where.any() else float("nan")

    return {
        "accuracy": float(np.nanmean(right)),
        "true_positive": share(known & (truth > 0.5)),
        "false_positive": share(known & (truth < 0.5)),
        "ece": expected_error(confidence[known], right[known] > 0.5),
    }


def _by_person(right: np.ndarray) -> np.ndarray:
    """Share of right predictions about each person; NaN where nothing is known."""
    rows = right.reshape(len(right), -1)
    count = (~np.isnan(rows)).sum(1)
    return np.where(count, np.nansum(rows, 1) / np.maximum(count, 1), np.nan)


def _flips(said: np.ndarray, truth: np.ndarray, place: int) -> float:
    """Of what is true alike in two groups, how often is not the same said?"""
    changed = total = 0
    for i, j in itertools.combinations(range(said.shape[place]), 2):
        first, second = (np.take(said, n, place) for n in (i, j))
        alike = np.take(truth, i, place) == np.take(truth, j, place)  # NaN is not
        changed, total = (
            changed + np.sum(alike & (first != second)),
            total + alike.sum(),
        )
    return float(changed / total) if total else float("nan")
