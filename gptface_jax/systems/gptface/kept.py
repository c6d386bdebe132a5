"""Decoding that computes open positions only: keys of known ones are kept (SPEC E.14).

A pass over all positions is made every `DecodeConfig.refresh` iterations. In between
the positions that were known at the start keep the keys and values that they had there,
as if what was filled since had told them nothing; those that were open are computed
anew. In an edit of a mouth that is a fifth of the sequence.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.nn import transformer
from gptface_jax.nn.sequence import SequenceLayout
from gptface_jax.systems.gptface import model as gptface_model
from gptface_jax.systems.gptface.options import DecodeConfig

# Numbers of open positions are rounded up to multiples of a share of the picture: a
# program is compiled for each of them.
_PARTS = 8

# What a pass sees: tokens int32 [B,L] and rows of the match table int32 [B].
View = tuple[jax.Array, jax.Array]


@flax.struct.dataclass
class Kept:
    """What a pass over all positions has left.

    Attributes:
      places: int32 [B,S] positions that are computed anew, every open one among them.
      is_new: bool [B,S], those that were open; the others only fill the row, and nobody
        sees them: a sample does not depend on how many its batch mates have.
      past: of each view, of each layer {"key", "value"} [B,N,L,H].
    """

    places: jax.Array
    is_new: jax.Array
    past: tuple[tuple[dict[str, jax.Array], ...], ...]


def slots(config: DecodeConfig, model: gptface_model.GPTFaceConfig, known: Any) -> int:
    """How many positions are computed anew; 0 where all are, as without keeping.

    Args:
      config: of the decoder.
      model: the model's.
      known: bool [B,L]. Within jit, where nobody knows how many are open: all, which
        saves little.

    Raises:
      UserError: a model whose attention keeps no keys.
    """
    if config.refresh == 1:
        return 0
    if model.transformer.attention == "linear":
        raise UserError(
            f"refresh is {config.refresh}: attention 'linear' has no keys to keep; "
            "leave it 1"
        )
    count = model.layout.num_image_tokens
    if isinstance(known, jax.core.Tracer):
        return count
    is_open = ~np.asarray(known)[:, model.layout.image_slice]
    part = -(-count // _PARTS)
    return max(part, -(-int(is_open.sum(1).max(initial=0)) // part) * part)


def begin(
    module, params, views: Sequence[View], is_open: jax.Array, slots: int
) -> Kept:
    """`Kept` of a first pass: the open positions of [B,L], and others up to `slots`."""
    places = jnp.argsort(~is_open, axis=1, stable=True)[:, :slots].astype(jnp.int32)
    is_new = jnp.take_along_axis(is_open, places, axis=1)
    return Kept(places, is_new, read(module, params, views))


def read(module, params, views: Sequence[View]):
    """`Kept.past` of a pass over all positions of each view."""

    def past(tokens, row):
        _, written = module.apply(
            {"params": params}, tokens, row, mutable=[transformer.PRESENT]
        )
        return tuple(transformer.past_of(module.config.transformer, written))

    return tuple(past(*view) for view in views)


def image_logits(
    module, params, parts, views: Sequence[View], kept: Kept
) -> list[jax.Array]:
    """Logits float32 [B,S,C] of the codes at the places of each view.

    Args:
      module, params: the model.
      parts: `nn.transformer.taken_apart` of its layers, done once outside of loops.
      views: of which `kept` is.
      kept: see `read`.
    """
    at, variables = kept.places, {"params": params}

    def logits(view, past):
        tokens, row = view
        x = module.apply(variables, tokens, row, method="entering")
        x = jnp.take_along_axis(x, at[..., None], axis=1)
        mask = _mask(module.config, tokens, kept)
        config = module.config.transformer
        x, _ = transformer.run_after_past(config, parts, x, mask, past)
        return module.apply(variables, x, method="image_logits")

    return [logits(*each) for each in zip(views, kept.past)]


def _mask(config: gptface_model.GPTFaceConfig, tokens, kept: Kept) -> jax.Array:
    """What places [B,S] see of the kept positions and of one another, [B,N,S,L+S]."""
    length, at = tokens.shape[1], kept.places
    whole = gptface_model.joint_mask(tokens, config)  # [B,1|N,1|L,L]
    whole = jnp.broadcast_to(whole, (*whole.shape[:2], length, length))
    rows = jnp.take_along_axis(whole, at[:, None, :, None], axis=2)
    own = jnp.take_along_axis(rows, at[:, None, None, :], axis=3)
    own &= kept.is_new[:, None, None]
    anew = jax.vmap(lambda at, new: jnp.zeros(length, bool).at[at].set(new))(
        at, kept.is_new
    )
    return jnp.concatenate([rows & ~anew[:, None, None], own], axis=-1)


def image_rows(places: jax.Array, layout: SequenceLayout) -> jax.Array:
    """Which image position each place [...,S] is, int32; their number for none."""
    start, count = layout.image_slice.start, layout.num_image_tokens
    inside = (places >= start) & (places < start + count)
    return jnp.where(inside, places - start, count)


def of_places(values: jax.Array, kept: Kept, layout: SequenceLayout) -> jax.Array:
    """Of values [B,P,C] of all image positions those [B,S,C] of the places."""
    rows = image_rows(kept.places, layout)
    return jnp.take_along_axis(values, rows[..., None], axis=1, mode="clip")
