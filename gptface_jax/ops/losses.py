"""Losses as sums and counts; the mean is taken once (SPEC A.5). All float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross entropy -log softmax(logits)[label] in nats.

    Args:
      logits: float [..., V].
      labels: int [...].

    Returns:
      float32 [...].
    """
    logits = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def masked_sum(values: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum of the values where mask, and number of such entries; float32 scalars."""
    mask = mask.astype(jnp.float32)
    return jnp.sum(values * mask), jnp.sum(mask)


def mean(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Mean of a (sum, count) pair, 0 where the count is 0."""
    total, count = pair
    return total / jnp.maximum(count, 1.0)


def contrastive(
    image_features: jax.Array,
    text_features: jax.Array,
    log_scale: jax.Array,
    real: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Symmetric image-text contrastive loss over the batch.

    Args:
      image_features, text_features: float [B,D], normalised here.
      log_scale: scalar, log of the inverse temperature; capped at log 100.
      real: bool [B], pairs that count; the others are nobody's alternative.

    Returns:
      (loss [B] in nats, accuracy [B] of retrieving the text), float32, 0 where
      not real.
    """

    def unit(x):
        x = x.astype(jnp.float32)
        return x * jax.lax.rsqrt(jnp.sum(x * x, -1, keepdims=True) + 1e-8)

    scale = jnp.exp(jnp.minimum(log_scale, jnp.log(100.0)))
    logits = scale * unit(image_features) @ unit(text_features).T  # [B,B]
    labels = jnp.arange(logits.shape[0])
    texts = jnp.where(real[None, :], logits, -1e9)
    images = jnp.where(real[None, :], logits.T, -1e9)
    loss = 0.5 * (cross_entropy(texts, labels) + cross_entropy(images, labels))
    right = (jnp.argmax(texts, -1) == labels) & real
    return jnp.where(real, loss, 0.0), right.astype(jnp.float32)
