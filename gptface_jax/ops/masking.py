"""Which positions become [MASK]: spans, random sets, text, curriculum (SPEC A.6).

All functions are exact in their budgets and run inside jit: the budget is a
traced array, so a mask ratio that changes with the step recompiles nothing.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def curriculum_ratio(step: jax.Array, total_steps: int | None = None) -> jax.Array:
    """Image mask ratio 15 % + 1 % a stage, at most 65 % (SPEC A.6.2).

    Args:
      step: updates done, integer scalar.
      total_steps: None for the paper's stage of 20,000 steps; else the run is
        cut into 50 equal stages.

    Returns:
      float32 scalar in [0.15, 0.65].
    """
    if total_steps is None:
        stage = step // 20_000
    else:
        stage = step * 50 // total_steps
    return jnp.minimum(0.65, 0.15 + 0.01 * stage.astype(jnp.float32))


def lowest(scores: jax.Array, budget: jax.Array) -> jax.Array:
    """Mask that is True at the `budget` smallest scores of each row.

    Args:
      scores: float [..., n], ties broken by position.
      budget: int [...], 0..n.

    Returns:
      bool [..., n] with exactly `budget` True.
    """
    # The inverse of the sorting permutation: the rank of each position in its row.
    ranks = jnp.argsort(jnp.argsort(scores, axis=-1), axis=-1)
    return ranks < budget[..., None]


def random_mask(shape: tuple[int, int], budget: jax.Array, key: jax.Array):
    """Mask bool [B,n] with `budget` [B] True a row, every such set equally likely."""
    return lowest(jax.random.uniform(key, shape), budget)


def span_mask(
    grid: tuple[int, int], budget: jax.Array, key: jax.Array, spans: int = 1
) -> jax.Array:
    """Mask of regions grown from random seeds to an exact budget (SPEC A.6.1).

    Adding one cell at a time with probability proportional to its number of
    masked 4-neighbours is first-passage percolation: edges get independent
    Exp(1) passage times, and cells are masked in the order in which a front
    that starts at the seeds reaches them. The order of arrival has the same law
    because the exponential has no memory.

        . . # #        one seed, budget 5 on a 4 x 4 grid:
        . # # .        the masked cells are connected
        . # . .
        . . . .

    Args:
      grid: (h, w).
      budget: int [B], cells to mask in each sample.
      key: random key.
      spans: number of seeds; regions of different seeds may touch.

    Returns:
      bool [B, h*w], raster order.
    """
    h, w = grid
    batch = budget.shape[0]
    seed_key, edge_key = jax.random.split(key)
    edges = jax.random.exponential(edge_key, (batch, h * (w - 1) + (h - 1) * w))
    across = edges[:, : h * (w - 1)].reshape(batch, h, w - 1)
    down = edges[:, h * (w - 1) :].reshape(batch, h - 1, w)
    order = jax.random.uniform(seed_key, (batch, h * w))
    _, seeds = jax.lax.top_k(order, spans)
    start = jnp.full((batch, h * w), jnp.inf)
    start = start.at[jnp.arange(batch)[:, None], seeds].set(0.0).reshape(batch, h, w)
    times = _arrival_times(start, across, down)
    return lowest(times.reshape(batch, h * w), budget)


def _arrival_times(start: jax.Array, across: jax.Array, down: jax.Array) -> jax.Array:
    """Length of the shortest path from a seed to every cell of a grid.

    All cells at once take the least of their own time and of their neighbours' plus
    the edge between, until nothing changes (Bellman-Ford): at most h * w times, in
    practice about as often as the longest shortest path has edges.

    Args:
      start: float [B,h,w], 0 at the seeds, infinity elsewhere.
      across: float [B,h,w-1], lengths of the edges between columns.
      down: float [B,h-1,w], between rows.

    Returns:
      float [B,h,w].
    """

    def relax(times):
        pad = jnp.inf
        left = jnp.pad(
            times[:, :, :-1] + across, ((0, 0), (0, 0), (1, 0)), constant_values=pad
        )
        right = jnp.pad(
            times[:, :, 1:] + across, ((0, 0), (0, 0), (0, 1)), constant_values=pad
        )
        up = jnp.pad(
            times[:, :-1] + down, ((0, 0), (1, 0), (0, 0)), constant_values=pad
        )
        under = jnp.pad(
            times[:, 1:] + down, ((0, 0), (0, 1), (0, 0)), constant_values=pad
        )
        arrivals = jnp.minimum(jnp.minimum(left, right), jnp.minimum(up, under))
        return jnp.minimum(times, arrivals)

    def unsettled(carry):
        times, previous = carry
        return jnp.any(times != previous)

    times, _ = jax.lax.while_loop(
        unsettled, lambda carry: (relax(carry[0]), carry[0]), (relax(start), start)
    )
    return times


def text_budget(valid: jax.Array, ratio: float) -> jax.Array:
    """Words to mask in each text, int [B]: max(1, round(ratio * length)).

    0 for empty texts, and for all where the ratio is 0.
    """
    length = jnp.sum(valid, axis=-1)
    wanted = jnp.maximum(1, jnp.round(ratio * length).astype(jnp.int32))
    return jnp.where((length > 0) & (ratio > 0), wanted, 0)


def text_random_mask(valid: jax.Array, ratio: float, key: jax.Array) -> jax.Array:
    """Mask of a uniform subset of the real words (SPEC A.6.4).

    Args:
      valid: bool [B,m], True at real tokens (not padding).
      ratio: fraction of the real tokens.
      key: random key.

    Returns:
      bool [B,m], a subset of `valid`.
    """
    # Padding ranks last, behind all real words.
    scores = jnp.where(valid, jax.random.uniform(key, valid.shape), jnp.inf)
    return lowest(scores, text_budget(valid, ratio)) & valid


def text_span_mask(valid: jax.Array, ratio: float, key: jax.Array) -> jax.Array:
    """Mask of one contiguous run of real words, its start uniform (SPEC A.6.4).

    Real tokens must come first in every row. Arguments and result as in
    `text_random_mask`.
    """
    length = jnp.sum(valid, axis=-1)
    span = text_budget(valid, ratio)
    starts = length - span + 1
    start = jnp.floor(jax.random.uniform(key, length.shape) * starts).astype(jnp.int32)
    position = jnp.arange(valid.shape[-1])
    inside = (position >= start[:, None]) & (position < (start + span)[:, None])
    return inside & valid


def gather_masked(
    hidden: jax.Array, targets: jax.Array, masked: jax.Array, budget: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """States, targets and masks of masked positions, in a static budget of S slots.

    Args:
      hidden: [B,P,D] states.
      targets: int [B,P].
      masked: bool [B,P], at most S True in a row.
      budget: S.

    Returns:
      (hidden [B,S,D], targets [B,S], real bool [B,S]).
    """
    order = jnp.argsort(~masked, axis=1, stable=True)[:, :budget]  # [B,S]
    return (
        jnp.take_along_axis(hidden, order[..., None], axis=1),
        jnp.take_along_axis(targets, order, axis=1),
        jnp.take_along_axis(masked, order, axis=1),
    )
