"""Choosing tokens and the order in which they are committed (SPEC A.9.2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

FAR = 1_000_000  # ring of a position when nothing is known


def grid_distances(grid: tuple[int, int]) -> np.ndarray:
    """4-neighbour distance between all pairs of cells; int32 [n,n]."""
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    return (
        np.abs(rows[:, None] - rows[None]) + np.abs(columns[:, None] - columns[None])
    ).astype(np.int32)


def line_distances(length: int) -> np.ndarray:
    """|i - j|; int32 [m,m]."""
    position = np.arange(length)
    return np.abs(position[:, None] - position[None]).astype(np.int32)


def rings(distances: jax.Array, known: jax.Array) -> jax.Array:
    """Distance of every position to the nearest known one (1 = boundary).

        known # , open .        rings
        # # . .                 0 0 1 2
        # . . .                 0 1 2 3

    Args:
      distances: int [P,P].
      known: bool [P].

    Returns:
      int32 [P]; FAR everywhere when nothing is known.
    """
    return jnp.min(jnp.where(known[None, :], distances, FAR), axis=1)


def commit_mask(
    ring: jax.Array, confidence: jax.Array, is_open: jax.Array, k: int
) -> jax.Array:
    """The min(k, open) open positions first by (ring up, confidence down).

    Args:
      ring: int [P].
      confidence: float [P].
      is_open: bool [P].
      k: positions to commit.

    Returns:
      bool [P], a subset of `is_open`.
    """
    order = jnp.lexsort((-confidence, ring, ~is_open))  # last key sorts first
    rank = jnp.zeros_like(ring).at[order].set(jnp.arange(ring.shape[0]))
    return (rank < k) & is_open


def sample(scores: jax.Array, temperature: jax.Array, key: jax.Array):
    """Draws ids from softmax(scores / temperature); argmax at temperature 0.

    Args:
      scores: float [P,V], log-probabilities or logits.
      temperature: scalar >= 0.
      key: random key.

    Returns:
      (ids int32 [P], their scores [P], which know no temperature).
    """
    noise = jax.random.gumbel(key, scores.shape)
    ids = jnp.argmax(scores + temperature * noise, axis=-1).astype(jnp.int32)
    picked = jnp.take_along_axis(scores, ids[:, None], axis=-1)[:, 0]
    return ids, picked
