"""Choosing tokens and the order in which they are committed (SPEC A.9.2)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.ops import quantize

FAR = 1_000_000  # ring of a position when nothing is known
_BLOCK = 64  # ids whose probabilities are added up first


def grid_distances(grid: tuple[int, int]) -> np.ndarray:
    """Distances between all pairs of cells in 4-neighbour steps; int32 [n,n]."""
    rows, columns = np.divmod(np.arange(grid[0] * grid[1]), grid[1])
    return (
        np.abs(rows[:, None] - rows[None]) + np.abs(columns[:, None] - columns[None])
    ).astype(np.int32)


def line_distances(length: int) -> np.ndarray:
    """Distances |i - j| between all pairs of positions; int32 [m,m]."""
    position = np.arange(length)
    return np.abs(position[:, None] - position[None]).astype(np.int32)


def halton_ranks(rows: int, columns: int) -> np.ndarray:
    """Place of every cell in an order that soon visits all parts; int32 [n].

    The cells of a Halton sequence in bases 2 and 3 (SPEC E.14), each where it is met
    first: any few in a row lie far apart, and tell little of each other.

    Args:
      rows, columns: of the grid; 1 row for a line of words.
    """
    wanted, order = rows * columns, {}
    number = 0
    while len(order) < wanted:
        number += 1
        row = int(_radical_inverse(number, 2) * rows)
        column = int(_radical_inverse(number, 3) * columns)
        order.setdefault(row * columns + column, len(order))
    return np.array([order[cell] for cell in range(wanted)], np.int32)


def _radical_inverse(number: int, base: int) -> float:
    """The digits of a number mirrored at the point: 6 = 110 in base 2 is 0.011."""
    value, digit = 0.0, 1.0
    while number:
        number, rest = divmod(number, base)
        digit /= base
        value += rest * digit
    return value


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
    ring: jax.Array, confidence: jax.Array, is_open: jax.Array, k: int | jax.Array
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
    # By ranks and not by a threshold: of equal confidences exactly k are committed.
    order = jnp.lexsort((-confidence, ring, ~is_open))  # last key sorts first
    rank = jnp.zeros_like(ring).at[order].set(jnp.arange(ring.shape[0]))
    return (rank < k) & is_open


def for_temperature(
    log_p: jax.Array, temperature: jax.Array, density: jax.Array
) -> jax.Array:
    """Scores of which `sample` at a temperature draws by the density of probability.

    A code that is alone stands for as much of the space of patches as many similar ones
    together, and has as much probability as all of these. A temperature that sharpens
    the probabilities of codes prefers it for that; one that sharpens probability per
    volume does not: with volume v = 1 / (codes nearby) of each,

      v (p / v)^(1/T)  =  exp((log p + (1 - T) log(codes nearby)) / T).

    At T = 1 that is p, at T = 0 the maximum lies where the codes are that are likely
    together.

    Args:
      log_p: float [...,K], log-probabilities or logits.
      temperature: T, scalar or [...,1].
      density: float [K], of `code_density`.
    """
    return log_p + (1.0 - temperature) * density


def sample(
    scores: jax.Array,
    temperature: jax.Array,
    key: jax.Array,
    numbers: jax.Array | None = None,
    count: int = 0,
):
    """Ids drawn from softmax(scores / temperature); the argmax at temperature 0.

    By the inverse of the distribution function, with two random numbers a row: noise on
    every score takes as long as a small network's forward pass on a CPU.

    Args:
      scores: float [P,V], log-probabilities or logits.
      temperature: scalar >= 0.
      key: random key.
      numbers: int32 [P], which row of `count` each of these is: it is drawn as it would
        be among all of them. Default all.
      count: of rows of which these are some.

    Returns:
      (ids int32 [P], their scores [P], which know no temperature).
    """
    rows, ids = scores.shape
    best = jnp.max(scores, axis=-1, keepdims=True)
    # The best score becomes 0, which exp cannot overflow at any temperature; what is
    # far below it at temperature 0 becomes exactly 0.
    p = jnp.exp((scores - best) / jnp.maximum(temperature, 1e-9))
    blocks = -(-ids // _BLOCK)
    p = jnp.pad(p, ((0, 0), (0, blocks * _BLOCK - ids)))
    # In two stages, first a block and then an id in it: a running sum over the whole
    # vocabulary is long, and its rounding grows with it.
    p = p.reshape(rows, blocks, _BLOCK)
    drawn = jax.random.uniform(key, (2, rows if numbers is None else count))
    if numbers is not None:
        drawn = drawn.at[:, numbers].get(mode="clip")
    block = _invert(p.sum(-1), drawn[0])
    inside = _invert(jnp.take_along_axis(p, block[:, None, None], 1)[:, 0], drawn[1])
    chosen = (block * _BLOCK + inside).astype(jnp.int32)
    return chosen, jnp.take_along_axis(scores, chosen[:, None], axis=-1)[:, 0]


def keep_likely(logits: jax.Array, top_k: int = 0, top_p: float = 0.0) -> jax.Array:
    """Logits with -inf where an id is too unlikely to be drawn (SPEC B.9).

        p          .5  .3  .15  .05
        top_k 2     x   x
        top_p .6    x   x            the first beyond .6 is still drawn

    Args:
      logits: float [...,V].
      top_k: the k largest stay, and what equals the k-th; 0 for all.
      top_p: largest first, those stay before which the probabilities add up to no
        more than this; the first always does. 0 for all.
    """
    if 0 < top_k < logits.shape[-1]:
        last = jax.lax.top_k(logits, top_k)[0][..., -1:]
        logits = jnp.where(logits < last, -jnp.inf, logits)
    if 0 < top_p < 1:
        ordered = -jnp.sort(-logits, axis=-1)
        p = jax.nn.softmax(ordered, axis=-1)
        before = jnp.cumsum(p, axis=-1) - p
        last = jnp.min(
            jnp.where(before <= top_p, ordered, jnp.inf), axis=-1, keepdims=True
        )
        logits = jnp.where(logits < last, -jnp.inf, logits)
    return logits


def code_density(codebook: jax.Array | None, width: float = 1.0) -> jax.Array:
    """Log of how many codes are near each code, itself among them; float32 [K].

    Counted by a Gaussian of the distance in the codebook: 0 for a code that is alone,
    log n for one of n that are the same.

    Args:
      codebook: float [K,C].
      width: its standard deviation, in distances of a code to the nearest other one
        (their median).

    Raises:
      ValueError: there is no codebook.
    """
    if codebook is None:
        raise ValueError(
            f"density is {width}, and nothing says which codes are similar; pass the "
            "codebook of the VQGAN"
        )
    apart = jnp.maximum(quantize.distances(codebook, codebook), 0.0)
    itself = jnp.eye(len(apart), dtype=bool)
    nearest = jnp.min(jnp.where(itself, jnp.inf, apart), axis=1)
    unit = 2.0 * width**2 * jnp.maximum(jnp.median(nearest), 1e-12)
    return jax.nn.logsumexp(-jnp.where(itself, 0.0, apart) / unit, axis=1)


def _invert(weights: jax.Array, drawn: jax.Array) -> jax.Array:
    """Indices [P] in proportion to weights [P,n] by numbers [P] of [0,1)."""
    ends = jnp.cumsum(weights, axis=-1)
    # Against the last sum and not 1: rounded sums of probabilities end beside it.
    reached = ends > drawn[:, None] * ends[:, -1:]
    # The first that is reached; whatever was rounded, never a weight of 0.
    return jnp.argmax((weights > 0) * (1 + reached), axis=-1)
