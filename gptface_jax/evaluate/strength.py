"""Does more strength show as more of the attribute? Rank correlations (SPEC E.15)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def monotonicity(
    settings: Sequence[float], scores: np.ndarray
) -> tuple[float, np.ndarray]:
    """Spearman's rho of a slider's settings and a judge's scores.

    Args:
      settings: [S], distinct.
      scores: float [S,N], what the judge sees in N pictures at each.

    Returns:
      (rho of the mean over the pictures, rho of each picture float64 [N]), -1 to 1; 0
      where scores are all equal, for then the slider does nothing.
    """
    from scipy import stats

    def rho(row: np.ndarray) -> float:
        if np.ptp(row) == 0:
            return 0.0
        return float(stats.spearmanr(settings, row).statistic)

    return rho(scores.mean(axis=1)), np.array([rho(row) for row in scores.T])
