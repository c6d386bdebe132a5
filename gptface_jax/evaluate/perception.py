"""Metrics of face perception, as its benchmarks define them (SPEC C.8, C.10a).

All of numpy arrays of a whole test set; shares are 0..1.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from gptface_jax.core.perception_tasks import ENDS

_AUC_STEP = 1e-4
_EPSILON_STD = 3.0  # years, of the epsilon error
_CLOSE = 5  # years
_AT_ONCE = 100  # resamplings
_THRESHOLDS = np.arange(0, 4, 0.01)  # squared distances of unit vectors


def landmark_normalisers(
    truth: np.ndarray, scheme: str, boxes: np.ndarray | None = None
) -> dict[str, np.ndarray]:
    """Lengths that errors are divided by, name -> float64 [N].

    Args:
      truth: [N,P,2] points in pixels.
      scheme: "ibug68", "cofw29", "wflw98" or "aflw19".
      boxes: [N,4] (x0, y0, x1, y1) of the faces, for "box" (root of height times
        width) and "diagonal".

    Raises:
      ValueError: another scheme.
    """
    if scheme not in ENDS:
        raise ValueError(f"scheme {scheme!r} is none of {', '.join(ENDS)}")
    truth = np.asarray(truth, np.float64)
    ends = ENDS[scheme].items()
    found = {
        name: np.linalg.norm(
            truth[:, list(left)].mean(1) - truth[:, list(right)].mean(1), axis=-1
        )
        for name, (left, right) in ends
    }
    if boxes is not None:
        width, height = (np.float64(boxes[:, 2 + i] - boxes[:, i]) for i in (0, 1))
        found |= {"box": np.sqrt(height * width), "diagonal": np.hypot(height, width)}
    return found


def face_boxes(truth: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Boxes float64 [N,4] of faces; around its points where a face has none.

    Args:
      truth: [N,P,2] points; those that are NaN do not count.
      boxes: [N,4] (x0, y0, x1, y1) in the same pixels, NaN of a face without one.
    """
    around = np.concatenate([np.fmin.reduce(truth, 1), np.fmax.reduce(truth, 1)], -1)
    known = np.isfinite(boxes).all(-1, keepdims=True)
    return np.where(known, boxes, around).astype(np.float64)


def landmark_error(
    points: np.ndarray, truth: np.ndarray, normaliser: np.ndarray
) -> np.ndarray:
    """Normalised mean error float64 [N]: mean distance of a face's points.

    NaN of a face that cannot be judged: none of its points is known, or its normaliser
    is not, or is 0.

    Args:
      points, truth: [N,P,2] in the same pixels; points that are NaN do not count.
      normaliser: [N], see `landmark_normalisers`.
    """
    away = np.linalg.norm(np.float64(points) - np.float64(truth), axis=-1)
    known = np.isfinite(away)
    with np.errstate(divide="ignore", invalid="ignore"):
        error = away.sum(-1, where=known) / known.sum(-1) / normaliser
    return np.where(np.isfinite(error), error, np.nan)


def cumulative(errors: np.ndarray, threshold: float) -> tuple[float, float]:
    """Area under the curve of errors up to a threshold, and failures beyond it.

    The curve is the share of faces whose error is at most x; its area is divided by
    the threshold. Simpson's rule in steps of 1e-4 as published: up to 0.07 the last
    point is 0.0701, and failures are counted there.

    Args:
      errors: [N], see `landmark_error`; those that are NaN do not count.
      threshold: such as 0.1.

    Returns:
      (area, failures), 0..1.
    """
    from scipy import integrate

    errors = errors[~np.isnan(errors)]
    x = np.arange(0, threshold + _AUC_STEP, _AUC_STEP)
    share = np.searchsorted(np.sort(errors), x, side="right") / len(errors)
    area = integrate.simpson(share, x=x) / threshold
    return float(area), float(1 - share[-1])


def confusion(target: np.ndarray, said: np.ndarray, classes: int) -> np.ndarray:
    """Counts int64 [classes,classes] of (target, said); add those of all pictures.

    Args:
      target, said: int, of one shape; targets that are no class do not count.
      classes: how many there are.
    """
    target, said = np.int64(target).ravel(), np.int64(said).ravel()
    counts = (target >= 0) & (target < classes)
    pairs = target[counts] * classes + said[counts]
    return np.bincount(pairs, minlength=classes**2).reshape(classes, classes)


@dataclasses.dataclass(frozen=True)
class Parsing:
    """F1 of classes from one confusion matrix.

    Attributes:
      f1: float64 [classes], NaN of a class that is neither there nor said.
      mean: of the classes but the first, the background, that are there.
      absent: numbers of those that are not.
    """

    f1: np.ndarray
    mean: float
    absent: tuple[int, ...]


def parsing(matrix: np.ndarray) -> Parsing:
    """F1 of the classes of a confusion matrix [target, said]."""
    matrix = np.asarray(matrix, np.float64)
    there = matrix.sum(0) + matrix.sum(1)
    with np.errstate(invalid="ignore"):
        f1 = np.where(there > 0, 2 * np.diag(matrix) / there, np.nan)
    absent = tuple(int(i) for i in np.flatnonzero(there == 0) if i)
    known = f1[1:][there[1:] > 0]
    return Parsing(f1, float(known.mean()) if len(known) else float("nan"), absent)


def overlap(said: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """How well a mask bool [H,W] fits the true one, which is not empty.

    Returns:
      "iou", intersection over union; "covered", the share of the truth that it holds;
      "beside", the share of it that lies beside the truth.
    """
    both = float((said & truth).sum())
    return {
        "iou": both / float((said | truth).sum()),
        "covered": both / float(truth.sum()),
        "beside": 1 - both / max(1.0, float(said.sum())) if said.any() else 0.0,
    }


def expected_ages(logits: np.ndarray) -> np.ndarray:
    """Mean ages float64 [N] of logits [N,A]: sigmoids divided by their sum."""
    weights = 1 / (1 + np.exp(-np.float64(logits)))
    return weights @ np.arange(logits.shape[1]) / weights.sum(1)


def ages(said: np.ndarray, truth: np.ndarray) -> dict[str, float]:
    """Errors of ages in years [N].

    Returns:
      "mae", the mean absolute error; "within_5", the share of at most five years;
      "epsilon", the mean of 1 - exp(-error^2 / 18).
    """
    away = np.abs(np.float64(said) - np.float64(truth))
    epsilon = 1 - np.exp(-np.square(away) / (2 * _EPSILON_STD**2))
    return {
        "mae": float(away.mean()),
        "within_5": float((away <= _CLOSE).mean()),
        "epsilon": float(epsilon.mean()),
    }


def with_interval(
    measure: Callable[..., np.ndarray], *groups: np.ndarray, count: int = 2000,
    seed: int = 0,
) -> list[float]:  # fmt: skip
    """[value, low, high] of a measure of sums, with its 95 % interval.

    A percentile bootstrap over groups, such as the pictures of a person.

    Args:
      measure: sums [..., C] of each of `groups` -> values [...].
      groups: float [P,C] each, a row a group.
      count: resamplings, in hundreds.
      seed: of them.
    """
    number = len(groups[0])
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(-(-count // _AT_ONCE)):
        times = rng.multinomial(number, np.full(number, 1 / number), size=_AT_ONCE)
        drawn.append(measure(*(times @ g for g in groups)))
    low, high = np.nanpercentile(drawn, (2.5, 97.5))
    return [float(measure(*(g.sum(0) for g in groups))), float(low), float(high)]


def accuracy(logits: np.ndarray, labels: np.ndarray) -> float:
    """Share of the rows [N,C] whose largest logit is the label's [N]."""
    return float((np.argmax(logits, -1) == labels).mean())


def balanced_classes(logits: np.ndarray, labels: np.ndarray) -> float:
    """Mean over the classes that are there of the share that is recognised."""
    right = np.argmax(logits, -1) == labels
    return float(np.mean([right[labels == c].mean() for c in np.unique(labels)]))


def attributes(logits: np.ndarray, labels: np.ndarray) -> dict[str, np.ndarray]:
    """Accuracies of attributes, of those labels that are known.

    Args:
      logits: [N,A], above 0 means present.
      labels: [N,A], 1, 0, or -1 for unknown.

    Returns:
      "accuracy" and "balanced" (mean of the shares recognised among the present and
      among the absent), float64 [A]; NaN where there is nothing to count.
    """
    said, present, absent = logits > 0, labels == 1, labels == 0

    def share(right, which):
        count = which.sum(0)
        with np.errstate(invalid="ignore"):
            return np.where(count > 0, (right & which).sum(0) / count, np.nan)

    balanced = (share(said, present) + share(~said, absent)) / 2
    known = present | absent
    return {"accuracy": share(said == present, known), "balanced": balanced}


@dataclasses.dataclass(frozen=True)
class Verification:
    """Whether two pictures show one person, by a threshold of their distance.

    Attributes:
      accuracy: float64 [folds], each with the best threshold of the others.
      true_rate, false_rate: float64 [thresholds], mean over the folds: the share of
        equal, and of different pairs, that are taken for equal.
    """

    accuracy: np.ndarray
    true_rate: np.ndarray
    false_rate: np.ndarray


def verification(
    plain: np.ndarray, mirrored: np.ndarray, same: np.ndarray, folds: int = 10
) -> Verification:
    """Verification by folds in the order of the pairs (SPEC C.10a).

    Args:
      plain, mirrored: embeddings [2 N,E] of pictures and of their mirror images, the
        two of a pair one after the other.
      same: bool [N], whether a pair shows one person.
      folds: parts that are tested in turn.
    """
    x = np.float64(plain) + np.float64(mirrored)
    x /= np.linalg.norm(x, axis=-1, keepdims=True)
    distance = np.square(x[0::2] - x[1::2]).sum(-1)
    taken = distance < _THRESHOLDS[:, None]  # [T,N]
    right = taken == same
    scores, true_rates, false_rates = [], [], []
    for test in np.array_split(np.arange(len(same)), folds):
        others = np.setdiff1d(np.arange(len(same)), test)
        best = np.argmax(right[:, others].mean(1))  # the first of equals
        scores.append(right[best, test].mean())
        for rates, which in ((true_rates, same[test]), (false_rates, ~same[test])):
            count = max(which.sum(), 1)
            rates.append((taken[:, test] & which).sum(1) / count)
    return Verification(
        np.array(scores), np.mean(true_rates, 0), np.mean(false_rates, 0)
    )
