"""Whether a judge sees in the reconstruction what it saw in the photograph."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.evaluate import distributions


def attribute_sums(
    before: jax.Array, after: jax.Array, weight: jax.Array
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """Verdicts that stay the same, apart by what the judge said before.

    Args:
      before, after: logits [B,A] of the photographs and their reconstructions;
        above 0 means present.
      weight: [B], 0 where a picture does not count, else 1.

    Returns:
      {"present", "absent"} -> (how many stayed [A], how many there were [A]).
    """
    said, real = before > 0, (weight > 0)[:, None]
    same = said == (after > 0)

    def pair(group):
        return jnp.sum(same & group, axis=0), jnp.sum(group, axis=0)

    return {"present": pair(said & real), "absent": pair(~said & real)}


def attribute_figures(
    sums: Mapping[str, tuple[np.ndarray, np.ndarray]], attributes: Sequence[str]
) -> dict[str, float]:
    """Figures by attribute of `attribute_sums` that were added over all batches.

    Returns:
      agreement/NAME: share of all pictures with the same verdict;
      balanced_agreement/NAME: mean of the shares among those said to have the
      attribute and those said not to, left out where one of the two is empty;
      present/NAME, absent/NAME: how many these are.
    """
    figures = {}
    for i, name in enumerate(attributes):
        stayed = np.array([sums[side][0][i] for side in ("present", "absent")])
        there = np.array([sums[side][1][i] for side in ("present", "absent")])
        figures[f"agreement/{name}"] = float(stayed.sum() / there.sum())
        if there.all():
            figures[f"balanced_agreement/{name}"] = float(np.mean(stayed / there))
        figures[f"present/{name}"], figures[f"absent/{name}"] = map(float, there)
    return figures


def identity_sums(
    queries: np.ndarray, gallery: np.ndarray, identity: np.ndarray
) -> tuple[int, int]:
    """Pictures whose nearest other picture shows the same person.

    Args:
      queries: features [N,D] of the pictures asked about.
      gallery: features [N,D] of the photographs; query i never meets photograph i.
      identity: [N], who is shown.

    Returns:
      (hits, pictures that had another one of the same person to find).
    """
    people, number = np.unique(identity, return_inverse=True)
    shown = np.bincount(number, minlength=len(people))
    queries, gallery = np.float64(queries), np.float64(gallery)
    hits = 0
    for which, squared in distributions.distance_blocks(queries, gallery):
        own = np.arange(which.start, which.stop)
        squared[np.arange(len(own)), own] = np.inf
        right = number[np.argmin(squared, axis=1)] == number[own]
        hits += int(np.sum(right & (shown[number[own]] > 1)))
    return hits, int(np.sum(shown[number] > 1))
