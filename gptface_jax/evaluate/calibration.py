"""How far what a model is sure of is right: calibration and abstention (SPEC E.6)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from scipy import optimize, special

BINS = 15
_SHARES = (1.0, 0.9, 0.75, 0.5, 0.25)


def reliability(
    confidence: np.ndarray, right: np.ndarray, bins: int = BINS
) -> list[dict[str, float]]:
    """Rows of a reliability plot: of each bin that anything falls into.

    Args:
      confidence: float [B] in [0,1], of the answers that were given.
      right: bool [B].
      bins: of equal width.

    Returns:
      [{"from", "to", "count", "confidence", "accuracy"}], both means of the bin.
    """
    confidence, right = np.asarray(confidence, float), np.asarray(right, bool)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    rows = []
    for number in np.unique(place):
        inside = place == number
        rows.append(
            {
                "from": float(number / bins),
                "to": float((number + 1) / bins),
                "count": int(inside.sum()),
                "confidence": float(confidence[inside].mean()),
                "accuracy": float(right[inside].mean()),
            }
        )
    return rows


def expected_error(
    confidence: np.ndarray, right: np.ndarray, bins: int = BINS
) -> float:
    """Expected calibration error: |confidence - accuracy|, the mean over answers."""
    rows = reliability(confidence, right, bins)
    apart = sum(r["count"] * abs(r["confidence"] - r["accuracy"]) for r in rows)
    return apart / sum(r["count"] for r in rows)


def tempered(log_probs: np.ndarray, temperature: float) -> np.ndarray:
    """log softmax(log_probs / temperature) over the last axis."""
    return special.log_softmax(np.asarray(log_probs, float) / temperature, axis=-1)


def nll(log_probs: np.ndarray, truth: np.ndarray) -> float:
    """The mean of -log p(truth) in nats; log_probs [B,C], truth int [B]."""
    return float(-np.take_along_axis(log_probs, truth[:, None], 1).mean())


def fitted_temperature(log_probs: np.ndarray, truth: np.ndarray) -> float:
    """The temperature in [.05, 20] under which `truth` is likeliest.

    The loss has one minimum in 1 / T, which a bounded search finds.
    """

    def loss(log_t: float) -> float:
        return nll(tempered(log_probs, np.exp(log_t)), truth)

    bounds = np.log(0.05), np.log(20.0)
    found = optimize.minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(found.x))


def abstention(
    confidence: np.ndarray, right: np.ndarray, shares: Sequence[float] = _SHARES
) -> list[dict[str, float]]:
    """Accuracy of the most confident answers, were the others withheld.

    Returns:
      [{"share": of the answers that are given, "threshold": the confidence from which
      on, "accuracy"}].
    """
    confidence, right = np.asarray(confidence, float), np.asarray(right, bool)
    order = np.argsort(-confidence, kind="stable")
    rows = []
    for share in shares:
        given = order[: max(1, round(share * len(order)))]
        rows.append(
            {
                "share": share,
                "threshold": float(confidence[given[-1]]),
                "accuracy": float(right[given].mean()),
            }
        )
    return rows


def figures(log_probs: np.ndarray, truth: np.ndarray, seed: int = 0) -> dict:
    """Calibration of answers, as they are and with a temperature.

    The temperature is fitted on a half of the answers, drawn by `seed`, and everything
    is reported of the other half.

    Args:
      log_probs: float [B,C] of the answers that there are.
      truth: int [B], the right one's place.
      seed: of the halves.

    Returns:
      "count" of the half, "accuracy", "temperature", and of "as it is" and "tempered":
      "ece", "nll", "reliability", "abstention".
    """
    log_probs, truth = np.asarray(log_probs, float), np.asarray(truth, int)
    order = np.random.default_rng(seed).permutation(len(truth))
    fit, held = order[: len(order) // 2], order[len(order) // 2 :]
    found = {}
    temperature = fitted_temperature(log_probs[fit], truth[fit])
    for name, t in (("as it is", 1.0), ("tempered", temperature)):
        chances = tempered(log_probs[held], t)
        confidence = np.exp(chances.max(-1))
        right = chances.argmax(-1) == truth[held]
        found[name] = {
            "ece": expected_error(confidence, right),
            "nll": nll(chances, truth[held]),
            "reliability": reliability(confidence, right),
            "abstention": abstention(confidence, right),
        }
    return {
        "count": len(held),
        "accuracy": float(right.mean()),
        "temperature": temperature,
        **found,
    }
