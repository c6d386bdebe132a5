"""Did the edit do what the sentence says? Rates, paired tests, untouched pixels."""

from __future__ import annotations

import dataclasses
import math

import numpy as np


def mcnemar(first: np.ndarray, second: np.ndarray) -> float:
    """Exact two-sided McNemar test of paired yes/no outcomes.

    Args:
      first, second: bool [N], outcomes of the same N cases under two conditions.

    Returns:
      p-value: how likely so uneven a split of the discordant pairs is by chance.
    """
    only_first = int(np.sum(first & ~second))
    only_second = int(np.sum(~first & second))
    total = only_first + only_second
    if total == 0:
        return 1.0
    low = min(only_first, only_second)
    # log of the binomial tail at 1/2, stable for thousands of pairs.
    terms = [
        math.lgamma(total + 1)
        - math.lgamma(i + 1)
        - math.lgamma(total - i + 1)
        - total * math.log(2)
        for i in range(low + 1)
    ]
    peak = max(terms)
    tail = math.exp(peak) * sum(math.exp(t - peak) for t in terms)
    return min(1.0, 2 * tail)


@dataclasses.dataclass(frozen=True)
class Rates:
    """Rates at which the judge sees an attribute after an edit.

    Attributes:
      asked: share of edits with the attribute when the text asks for it.
      opposite: share with the attribute when the text rules it out.
      before: share of the unedited pictures with the attribute.
      p_value: McNemar test of `asked` against `opposite` on the same pictures; over
        several attributes a sign test of the pictures, by how many of them each gains.
      count: pictures.
    """

    asked: float
    opposite: float
    before: float
    p_value: float
    count: int

    @property
    def gap(self) -> float:
        """Percentage points between the two texts, as a fraction."""
        return self.asked - self.opposite

    def to_dict(self) -> dict[str, float]:
        return {**dataclasses.asdict(self), "gap": self.gap}


def rates(asked: np.ndarray, opposite: np.ndarray, before: np.ndarray) -> Rates:
    """Summarises bool [N] verdicts of the judge on the same pictures."""
    return Rates(
        asked=float(np.mean(asked)),
        opposite=float(np.mean(opposite)),
        before=float(np.mean(before)),
        p_value=mcnemar(asked, opposite),
        count=len(asked),
    )


def outside_psnr(
    edited: np.ndarray, original: np.ndarray, masks: np.ndarray
) -> np.ndarray:
    """PSNR in dB over the pixels outside the mask; infinite where all are equal.

    Args:
      edited, original: uint8 [B,H,W,3].
      masks: bool [B,H,W].

    Returns:
      float64 [B].
    """
    error = (edited.astype(np.float64) - original) ** 2
    outside = ~masks[..., None] & np.ones(3, bool)
    total = np.sum(error * outside, axis=(1, 2, 3)) / outside.sum(axis=(1, 2, 3))
    with np.errstate(divide="ignore"):
        return 10 * np.log10(255.0**2 / total)


def mean_psnr(values: np.ndarray) -> float:
    """Mean of PSNR in dB [N], where what is as it ought to be counts as 60."""
    return float(np.mean(np.minimum(values, 60)))


def balanced_accuracy(said: np.ndarray, truth: np.ndarray) -> float:
    """Mean of the hit rates of both classes; bool [N] each.

    NaN where a class is missing.
    """
    if truth.all() or not truth.any():
        return float("nan")
    return float((np.mean(said[truth]) + np.mean(~said[~truth])) / 2)


def area_under_curve(positive: np.ndarray, negative: np.ndarray) -> float:
    """Share of the pairs of scores [P], [N] whose positive one is higher; ties half.

    The area under the ROC curve: .5 is chance; NaN without any pair.
    """
    if not (len(positive) and len(negative)):
        return float("nan")
    above = positive[:, None] > negative
    return float(np.mean(above + 0.5 * (positive[:, None] == negative)))
