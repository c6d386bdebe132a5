"""Which codes a secret key favours where (SPEC E.8).

Every (position, left neighbour, code) is green or not, each by a bit of its own.
Whatever a picture shows, the number of green ones among n different triples is
binomial (n, 1/2) over keys drawn at random, and so it can be tested.

The hash is murmur3's finalizer: integers only, so that a mark is still found on another
backend and with later versions of JAX. It hides no key from those who have very many
marked pictures.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

NONE = -1  # a left neighbour that is not known or does not count


def check_key(key: int) -> None:
    """Raises ValueError for what is no key."""
    if type(key) is not int or not 0 <= key < 2**64:
        raise ValueError(
            f"watermark_key is {key!r}; use an integer from 0 to 2**64 - 1"
        )


def green(key: int, position, left, code) -> jax.Array:
    """Whether codes belong to the half that is favoured; bool, of the joint shape.

    Args:
      key: the secret, 0 to 2**64 - 1.
      position: int, in raster order.
      left: int, the code to the left, or NONE.
      code: int.
    """
    h = jnp.uint32(0)
    # 64 bits in two halves, for JAX has no uint64 unless it is asked for everywhere.
    for value in (key % 2**32, key >> 32):
        h = _mixed(h, jnp.uint32(value))
    for value in (position, left, code):
        h = _mixed(h, jnp.asarray(value).astype(jnp.uint32))
    # One bit of the hash, the highest: multiplications mix upward.
    return h >> 31 == 1


def left_neighbours(codes: jax.Array, columns: int) -> jax.Array:
    """The code to the left of each of int [...,P] in raster order, or NONE."""
    first = jnp.arange(codes.shape[-1]) % columns == 0
    return jnp.where(first, NONE, jnp.roll(codes, 1, axis=-1))


def favoured(
    key: int, codes: jax.Array, columns: int, size: int, by_left: bool
) -> jax.Array:
    """The green half at every position of a picture; bool [P,size].

    Args:
      key: see `green`.
      codes: int [P] so far, below 0 where still open.
      columns: of the grid.
      size: of the codebook.
      by_left: the half depends on the left neighbour, NONE while that is open.
    """
    left = left_neighbours(codes, columns) if by_left else jnp.full_like(codes, NONE)
    left = jnp.maximum(left, NONE)[:, None]
    return green(key, jnp.arange(len(codes))[:, None], left, jnp.arange(size))


def _mixed(h: jax.Array, value: jax.Array) -> jax.Array:
    h = (h ^ value) + jnp.uint32(0x9E3779B9)  # 0 would be mapped to 0
    h = (h ^ (h >> 16)) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> 13)) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> 16)
