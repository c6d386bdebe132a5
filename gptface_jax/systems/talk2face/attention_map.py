"""What part of an image the last layer attends to (SPEC B.10, claim T10)."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.nn.prefix_lm import PREFIX, TARGET, PrefixLM, is_image
from gptface_jax.nn.transformer import PRESENT


def attention_to_image(
    module: PrefixLM, params: Any, prefix: jax.Array, target: jax.Array
) -> jax.Array:
    """Attention of the last layer's last position to the prefix's image, float32 [n].

    The mean over the heads, adding up to 1 over the image.

    Args:
      module: the model (static).
      params: of the model.
      prefix: int32 [Q], without padding, with one image in it.
      target: int32 [T], what has been said of the target; may be empty.
    """
    tokens = jnp.concatenate([jnp.asarray(prefix), jnp.asarray(target, jnp.int32)])
    return _attention(module, params, tokens[None], len(prefix))


@functools.partial(jax.jit, static_argnames=("module", "used"))
def _attention(module, params, tokens, used):
    length = tokens.shape[1]
    segments = jnp.where(jnp.arange(length) < used, PREFIX, TARGET)[None]
    _, written = module.apply(
        {"params": params}, tokens, segments, method="sequence", mutable=[PRESENT]
    )
    last = written[PRESENT]["transformer"]["layers"]["attention"]
    query, key = last["query"][-1, 0, :, -1], last["key"][-1, 0]  # [N,H], [N,L,H]
    logits = jnp.einsum("nh,nlh->nl", query, key) * query.shape[-1] ** -0.5
    image = is_image(tokens[0], module.config.vocab) & (jnp.arange(length) < used)
    weights = jax.nn.softmax(jnp.where(image, logits, -jnp.inf), axis=-1)
    places = jnp.nonzero(image, size=module.config.num_image_tokens)[0]
    return jnp.mean(weights, axis=0)[places]
