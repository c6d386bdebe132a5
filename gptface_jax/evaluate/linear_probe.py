"""A linear probe on image codes: how much of an answer the codes hold in plain sight.

A bound for whoever reads the codes and answers: what a line through the codes'
embeddings tells, a transformer with as many examples should tell as well.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
_HELD_OUT = 5  # every fifth example chooses the penalty


def codes_as_features(ids: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    """float32 [N,n*C]: the embeddings of all codes, side by side.

    Args:
      ids: int [N,n] codes.
      codebook: float [K,C].
    """
    scale = np.maximum(codebook.std(0), 1e-6)
    table = ((codebook - codebook.mean(0)) / scale).astype(np.float32)
    return table[ids].reshape(len(ids), -1)


def classes(
    train: np.ndarray, labels: Sequence, test: np.ndarray, candidates: Sequence
) -> tuple[list, np.ndarray]:
    """The class of each test example, by ridge regression on balanced classes.

    Args:
      train: float [N,D] features; labels: [N] of the candidates.
      test: float [M,D].
      candidates: of which the labels are.

    Returns:
      (classes [M], scores float [M,A] in the order of the candidates).
    """
    known = np.array([list(candidates).index(label) for label in labels])
    one_hot = np.eye(len(candidates))[known]
    # Each class weighs the same: a rare one is not never said.
    weights = 1 / np.maximum(one_hot.sum(0), 1)
    scores = _ridge(train, one_hot, weights[known], test)
    return [candidates[i] for i in scores.argmax(1)], scores


def numbers(train: np.ndarray, values: Sequence[float], test: np.ndarray) -> np.ndarray:
    """The number of each test example [M], by ridge regression; see `classes`."""
    targets = np.asarray(values, float)[:, None]
    return _ridge(train, targets, np.ones(len(targets)), test)[:, 0]


def _ridge(
    features: np.ndarray, targets: np.ndarray, weights: np.ndarray, test: np.ndarray
) -> np.ndarray:
    """Predictions [M,A]; the penalty is the best for every fifth example."""
    held = np.arange(len(features)) % _HELD_OUT == 0
    errors = []
    for guess in _solved(
        features[~held], targets[~held], weights[~held], features[held], PENALTIES
    ):
        errors.append(np.sum(weights[held, None] * (guess - targets[held]) ** 2))
    best = PENALTIES[int(np.argmin(errors))]
    return _solved(features, targets, weights, test, [best])[0]


def _solved(features, targets, weights, test, penalties) -> list[np.ndarray]:
    """Predictions for `test` by each penalty, a share of the mean variance."""
    share = weights / weights.sum()
    middle, mean = share @ features, share @ targets
    centred = (features - middle) * np.sqrt(share)[:, None]
    wanted = (targets - mean) * np.sqrt(share)[:, None]
    # The smaller of the two systems of equations.
    wide = centred.shape[1] > centred.shape[0]
    gram = centred @ centred.T if wide else centred.T @ centred
    spread = np.trace(gram) / centred.shape[1]
    found = []
    for penalty in penalties:
        system = gram + penalty * spread * np.eye(len(gram), dtype=gram.dtype)
        slopes = (
            centred.T @ np.linalg.solve(system, wanted)
            if wide
            else np.linalg.solve(system, centred.T @ wanted)
        )
        found.append((test - middle) @ slopes + mean)
    return found
