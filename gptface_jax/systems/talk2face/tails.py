"""Tails of texts: tokens that every answer ends in, such as a 3D face (SPEC D.3).

    words ... | begins | slot 1 | slot 2 | ...        a range of ids for each token

A text goes on with its tail by itself, where the first range's token is likelier than
another word or [SEP]. Where it ends without, that token takes the place of the [SEP].
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.nn.prefix_lm import PrefixLM

Tail = tuple[tuple[int, int], ...]


def scores(
    module: PrefixLM, variables: Any, hidden: jax.Array, said: jax.Array, tail: Tail
) -> jax.Array:
    """Logits float32 [P,S,V] of what may come next, -inf for all else.

    Args:
      module, variables: the model.
      hidden: [P,S,D] that the next token is read off.
      said: int32 [P,S], tokens of the tail that have been said; 0 within the text,
        where words, [SEP] and what begins the tail may come.
      tail: ranges [start, stop) of joint ids.
    """
    vocab = module.config.vocab
    stop = max(last for _, last in tail)
    logits = module.apply(variables, hidden, 0, stop, method="token_logits")
    ids = jnp.arange(stop)
    special = jnp.array([i for i in vocab.special_ids if i != vocab.sep_id])
    words = ((ids < vocab.text_size) & ~jnp.isin(ids, special)) | _within(ids, tail[0])
    ranges = jnp.stack([words, *(_within(ids, each) for each in tail[1:])])
    return jnp.where(ranges[jnp.minimum(said, len(tail) - 1)], logits, -jnp.inf)


def _within(ids: jax.Array, bounds: tuple[int, int]) -> jax.Array:
    return (ids >= bounds[0]) & (ids < bounds[1])


def begun(
    ids: jax.Array, said: jax.Array, ends: jax.Array, tail: Tail
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The tokens [P,S] with the tails begun that had to be.

    Args:
      ids: int32 [P,S], the next tokens.
      said: see `scores`.
      ends: bool [P,S], the text ends here whatever was drawn.
      tail: see `scores`.

    Returns:
      ids; `said` after them; bool [P,S], where the text had not begun its tail.
    """
    text = said == 0
    missing = text & ends & ~_within(ids, tail[0])
    ids = jnp.where(missing, tail[0][0], ids)
    return ids, said + (~text | _within(ids, tail[0])), missing
