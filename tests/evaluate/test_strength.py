"""Rank correlations of settings and scores, by hand."""

import numpy as np
import pytest

from gptface_jax.evaluate.strength import monotonicity
from gptface_jax.protocols import strength as protocol


def test_rank_correlations_by_hand():
    settings = [-2, -1, 0, 1, 2]
    # Rising; rising in ranks alone; falling; constant; two neighbours exchanged.
    scores = np.array(
        [
            [1.0, 0, 5, 7, 1],
            [2.0, 1, 4, 7, 3],
            [3.0, 9, 3, 7, 2],
            [4.0, 10, 2, 7, 4],
            [5.0, 99, 1, 7, 5],
        ]
    )
    mean, pictures = monotonicity(settings, scores)
    # 1 - 6 sum(d^2) / (n (n^2 - 1)), with d = 1 twice.
    np.testing.assert_allclose(pictures, [1, 1, -1, 0, 1 - 6 * 2 / (5 * 24)])
    assert mean == pytest.approx(1.0)
    assert np.diff(scores.mean(axis=1)).min() > 0


def test_the_table_shows_shares_scores_and_correlations():
    scores = np.outer(protocol.settings(), [1.0, 2.0])
    row = protocol._figures(protocol.settings(), scores, np.array([3.0, -1.0]))
    assert row["settings"] == [-4, -3, -2, -1, 0, 1, 2, 3, 4]
    assert row["scores"] == [-6, -4.5, -3, -1.5, 0, 1.5, 3, 4.5, 6]
    assert row["present"] == [0] * 5 + [1] * 4 and row["before"] == 0.5
    line = protocol.table({"Male": row}).splitlines()[2]
    assert line.startswith("| Male | 0.50 | 0.00 (-6.0) | 0.00 (-4.5) |")
    assert line.endswith("| 1.00 (+6.0) | 1.00 | 1.00 | 1.00 |")
