"""What may see what in a sequence: padding, a prefix, one-way targets, modalities."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

# What a head sees of the two modalities: both, the query's own, or the other one.
HEADS = ("all", "own", "other")


def attention_mask(
    valid: jax.Array,
    prefix: jax.Array | None = None,
    modality: jax.Array | None = None,
    heads: Sequence[str] = ("all",),
) -> jax.Array:
    """Which keys every query may attend to; bool [B,1|N,1|Q,K], True = may attend.

    Queries are rows, keys columns; a key is seen where everything given allows it.
    Padding (`_`) is never seen, all else by default from everywhere:

          a b c _
        a 1 1 1 0
        b 1 1 1 0
        c 1 1 1 0
        _ 1 1 1 0

    With `prefix` (p) the other positions (t) are one-way: seen by themselves and by
    what comes later. The prefix is seen from everywhere and sees only itself, for the
    rest comes later (a prefix language model, SPEC B.4):

          p p t t _
        p 1 1 0 0 0
        p 1 1 0 0 0
        t 1 1 1 0 0
        t 1 1 1 1 0
        _ 1 1 1 1 0

    With `modality`, image (i) and words (w), a head sees "all", "own" or "other":

            own             other
          i i w w         i i w w
        i 1 1 0 0       i 0 0 1 1
        i 1 1 0 0       i 0 0 1 1
        w 0 0 1 1       w 1 1 0 0
        w 0 0 1 1       w 1 1 0 0

    Args:
      valid: bool [B,L], False = padding.
      prefix: bool [B or 1,L]; all False is a causal mask. None: both ways everywhere.
      modality: int [L] or [B,L], equal on one side. Below 0 are positions of neither
        side: they see, and are seen, as if every head were an "all".
      heads: what each of the N heads sees, of `HEADS`; a single one stands for all.

    Raises:
      ValueError: a head that is none of `HEADS`, or without modalities to go by.
    """
    for head in heads:
        if head not in HEADS:
            raise ValueError(f"head {head!r} is none of {', '.join(HEADS)}")
    mask = valid[:, None, None, :]
    if prefix is not None:
        position = jnp.arange(valid.shape[1])
        one_way = position[:, None] >= position[None, :]
        mask = mask & (prefix[:, None, None, :] | one_way)
    if set(heads) <= {"all"}:
        return mask
    if modality is None:
        raise ValueError(f"heads {list(heads)} need the modality of each position")
    return mask & _by_modality(modality, heads)


def with_listeners(mask: jax.Array, valid: jax.Array, count: int) -> jax.Array:
    """A mask with positions after it that see all and are seen by each other alone.

    What was there before sees what it saw (SPEC D.3). Two listeners (f) after a
    sequence with padding:

          a b _ f f
        a 1 1 0 0 0
        b 1 1 0 0 0
        _ 1 1 0 0 0
        f 1 1 0 1 1
        f 1 1 0 1 1

    Args:
      mask: bool [B,1|N,1|L,L] of the sequence.
      valid: bool [B,L], what listeners see of it.
      count: F, number of listeners.

    Returns:
      bool [B,1|N,L+F,L+F].
    """
    batch, length = valid.shape
    heads = mask.shape[1]
    mask = jnp.broadcast_to(mask, (batch, heads, length, length))
    before = jnp.pad(mask, ((0, 0), (0, 0), (0, 0), (0, count)))
    heard = jnp.pad(valid, ((0, 0), (0, count)), constant_values=True)
    after = jnp.broadcast_to(
        heard[:, None, None], (batch, heads, count, length + count)
    )
    return jnp.concatenate([before, after], axis=2)


def _by_modality(modality: jax.Array, heads: Sequence[str]) -> jax.Array:
    """Which side each head may see of each query, bool [B|1,N,Q,K]."""
    side = jnp.atleast_2d(modality)[:, None]  # [B|1,1,L]
    query, key = side[..., :, None], side[..., None, :]
    own, other = (
        jnp.array([head == name for head in heads])[:, None, None]
        for name in ("own", "other")
    )
    same, neither = query == key, (query < 0) | (key < 0)
    return neither | jnp.where(same, ~other, ~own)
