"""Two sets of pictures compared by their features: Frechet distance, KID, and more.

Every figure belongs to a feature space and to a number of samples; without both it
says nothing. On the host, in float64.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError


def _table(features: Any) -> np.ndarray:
    """Features [N,D] as float64."""
    table = np.asarray(features, np.float64)
    if table.ndim != 2:
        raise UserError(f"features have the shape {table.shape}; give [N,D]")
    if not np.isfinite(table).all():
        raise UserError("features hold values that are not finite; check the network")
    return table


class Moments:
    """Count, mean and scatter of features [N,D], added up batch by batch.

    Merging follows Chan, Golub and LeVeque 1983: nothing cancels, so the result
    does not depend on how the set is split.

    Attributes:
      count: N.
      mean: float64 [D]; None before the first feature.
    """

    def __init__(self, features: Any = None):
        self.count = 0
        self.mean: np.ndarray | None = None
        self._scatter: np.ndarray | None = None  # sum of outer products about the mean
        if features is not None:
            self.add(features)

    def add(self, features: Any) -> None:
        """Adds features [N,D], N = 0 included."""
        table = _table(features)
        if len(table):
            mean = table.mean(axis=0)
            centred = table - mean
            self._merge(len(table), mean, centred.T @ centred)

    def merge(self, other: Moments) -> None:
        """Adds what another host or device has seen."""
        if other.count:
            self._merge(other.count, other.mean, other._scatter)

    def _merge(self, count: int, mean: np.ndarray, scatter: np.ndarray) -> None:
        if self.mean is None:
            self.count, self.mean, self._scatter = count, mean, scatter
            return
        _same_width(self.mean, mean)
        total, step = self.count + count, mean - self.mean
        between = np.outer(step, step) * (self.count * count / total)
        self._scatter = self._scatter + scatter + between
        self.mean = self.mean + step * (count / total)
        self.count = total

    @property
    def covariance(self) -> np.ndarray:
        """Unbiased, float64 [D,D].

        Raises:
          UserError: fewer than 2 samples.
        """
        if self.count < 2:
            raise UserError(
                f"a covariance needs at least 2 samples, not {self.count}; give more "
                "pictures"
            )
        return self._scatter / (self.count - 1)


def _same_width(first: np.ndarray, second: np.ndarray) -> None:
    if first.shape[-1] != second.shape[-1]:
        raise UserError(
            f"features of {first.shape[-1]} and of {second.shape[-1]} values come from "
            "different spaces; use one network for both sets"
        )


def frechet_distance(features_a: Any, features_b: Any) -> float:
    """Squared Frechet distance of the Gaussians with the moments of two sets.

    |m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) (Heusel et al. 2017); the last
    trace is that of the symmetric root of C_a^(1/2) C_b C_a^(1/2).

    The estimate is biased upward, and the more so the fewer the samples: give the
    feature space and the number of samples with every value, and compare values of
    equal numbers only.

    Args:
      features_a, features_b: [N,D] each, or `Moments`.

    Raises:
      UserError: fewer than 2 samples, or features of different spaces.
    """
    a, b = (
        x if isinstance(x, Moments) else Moments(x) for x in (features_a, features_b)
    )
    covariance_a, covariance_b = a.covariance, b.covariance
    _same_width(a.mean, b.mean)
    values, vectors = np.linalg.eigh(covariance_a)
    root = vectors * np.sqrt(np.maximum(values, 0.0)) @ vectors.T
    product = np.linalg.eigvalsh(root @ covariance_b @ root)
    trace = np.sum(np.sqrt(np.maximum(product, 0.0)))
    distance = np.sum((a.mean - b.mean) ** 2)
    distance += np.trace(covariance_a) + np.trace(covariance_b) - 2 * trace
    return float(max(distance, 0.0))


def kernel_distance(
    features_a: Any, features_b: Any, groups: Sequence[int] | None = None
) -> float:
    """Kernel inception distance of two sets, for the features of any network.

    The unbiased estimate of the squared maximum mean discrepancy with the kernel
    (x.y / D + 1)^3 (Binkowski et al. 2018): 0 on average, and so below 0 at times, for
    two samples of one distribution of whatever sizes, so that few samples do. Give the
    feature space with every value.

    Args:
      features_a, features_b: [N,D] each.
      groups: [N], of what is no independent sample, such as an edit and its photograph:
        the n-th of both sets belong to the n-th group, and only pairs of different
        groups are compared. Of the same pictures twice the distance is 0.

    Raises:
      UserError: fewer than 2 samples or groups, sets that do not fit the groups, or
        features of different spaces.
    """
    a, b = _table(features_a), _table(features_b)
    _same_width(a, b)
    few = min(len(a), len(b)) if groups is None else len(set(groups))
    if few < 2:
        raise UserError(f"a kernel distance needs at least 2 samples, not {few}")
    if groups is not None and not len(a) == len(b) == len(groups):
        raise UserError(
            f"{len(a)} and {len(b)} samples do not belong to {len(groups)} groups"
        )

    def mean(x, y, apart):
        return np.mean(((x @ y.T / x.shape[1] + 1) ** 3)[apart])

    if groups is None:
        in_a, in_b = (~np.eye(len(x), dtype=bool) for x in (a, b))
        between = np.ones((len(a), len(b)), bool)
    else:
        in_a = in_b = between = np.not_equal.outer(groups, groups)
    return float(mean(a, a, in_a) + mean(b, b, in_b) - 2 * mean(a, b, between))


def distance_blocks(
    queries: np.ndarray, references: np.ndarray, rows: int = 1024
) -> Iterator[tuple[slice, np.ndarray]]:
    """Squared distances, so many queries at a time: (which, float64 [rows,N])."""
    norms = np.sum(references**2, axis=1)
    for start in range(0, len(queries), rows):
        part = queries[start : start + rows]
        cross = part @ references.T
        squared = np.sum(part**2, axis=1, keepdims=True) + norms - 2 * cross
        yield slice(start, start + len(part)), np.maximum(squared, 0.0)


def _radii(points: np.ndarray, k: int, rows: int) -> np.ndarray:
    """Squared distance of every point to its k-th neighbour, [N]."""
    radii = np.empty(len(points))
    for which, squared in distance_blocks(points, points, rows):
        own = np.arange(which.start, which.stop)
        squared[np.arange(len(own)), own] = np.inf
        radii[which] = np.partition(squared, k - 1, axis=1)[:, k - 1]
    return radii


def _covered(
    points: np.ndarray, centres: np.ndarray, radii: np.ndarray, rows: int
) -> float:
    """Share of the points that lie in the ball of at least one centre."""
    inside = [
        (squared <= radii).any(axis=1)
        for _, squared in distance_blocks(points, centres, rows)
    ]
    return float(np.mean(np.concatenate(inside)))


def precision_recall(
    real: Any, generated: Any, k: int = 3, rows: int = 1024
) -> tuple[float, float]:
    """Improved precision and recall (Kynkaanniemi et al. 2019).

    A set's manifold is the union of the balls around its points that reach to the
    k-th neighbour. Both figures depend on the feature space, on k and on the number
    of samples.

    Args:
      real, generated: features [N,D] each.
      k: which neighbour.
      rows: points compared at once with a whole set; bounds the memory.

    Returns:
      (precision: share of the generated within the real manifold,
       recall: share of the real within the generated manifold).

    Raises:
      UserError: a set with k or fewer samples, or features of different spaces.
    """
    real, generated = _table(real), _table(generated)
    _same_width(real, generated)
    few = min(len(real), len(generated))
    if not 1 <= k < few:
        raise UserError(
            f"k = {k} needs sets of at least {max(k, 1) + 1} samples and to be 1 or "
            f"more; the smaller set has {few}"
        )
    precision = _covered(generated, real, _radii(real, k, rows), rows)
    recall = _covered(real, generated, _radii(generated, k, rows), rows)
    return precision, recall


def inception_score(probabilities: Any, splits: int = 1) -> tuple[float, float]:
    """Inception score: exp of the mean KL(p(class | picture) || p(class)).

    After Salimans et al. 2016, with the classes of any network: 1 where all pictures
    get the same probabilities, at most the number of classes. It grows with the number
    of samples: name the network and the number with every value.

    Args:
      probabilities: [N,C], rows that add up to 1.
      splits: parts of the pictures, in their order, scored each by itself.

    Returns:
      (mean, standard deviation) over the splits.

    Raises:
      UserError: no probabilities, or fewer pictures than splits.
    """
    table = _table(probabilities)
    if (table < 0).any() or not np.allclose(table.sum(axis=1), 1, atol=1e-3):
        raise UserError(
            f"rows of probabilities add up to {table.sum(axis=1).min():g} to "
            f"{table.sum(axis=1).max():g}, the smallest entry is {table.min():g}; they "
            "must be 0 or more and add up to 1"
        )
    if not 1 <= splits <= len(table):
        raise UserError(
            f"{splits} splits of {len(table)} pictures; give 1 or more, and a picture "
            "for each"
        )
    scores = []
    for part in np.array_split(table, splits):
        marginal = part.mean(axis=0)
        # 0 log 0 is 0; where p is above 0, so is the marginal.
        ratio = np.where(part > 0, part / np.where(marginal > 0, marginal, 1), 1)
        scores.append(np.exp(np.mean(np.sum(part * np.log(ratio), axis=1))))
    return float(np.mean(scores)), float(np.std(scores))
