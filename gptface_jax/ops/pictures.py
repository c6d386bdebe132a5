"""Pictures compared pixel by pixel: float [B,H,W,C] in [-1,1]."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def gradient_loss(image: jax.Array, target: jax.Array, scales: int) -> jax.Array:
    """Mean L1 of horizontal and vertical differences over a pyramid.

    Args:
      image, target: float [B,H,W,C].
      scales: levels; level s is averaged over 2^s x 2^s pixels.

    Returns:
      float32 scalar.
    """
    difference = (image - target).astype(jnp.float32)
    total = 0.0
    for scale in range(scales):
        if scale:
            b, h, w, c = difference.shape
            halves = difference.reshape(b, h // 2, 2, w // 2, 2, c)
            difference = jnp.mean(halves, axis=(2, 4))
        total += jnp.mean(jnp.abs(jnp.diff(difference, axis=1)))
        total += jnp.mean(jnp.abs(jnp.diff(difference, axis=2)))
    return total / (2 * scales)


def psnr(image: jax.Array, target: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio in dB, float32 [B], of pictures clipped to [-1,1].

    At most 100 dB, that of equal pictures, so that a mean stays finite.
    """
    image, target = (
        jnp.clip(x.astype(jnp.float32), -1.0, 1.0) for x in (image, target)
    )
    error = jnp.mean(jnp.square(image - target), axis=(1, 2, 3)) / 4.0
    return -10.0 * jnp.log10(jnp.maximum(error, 1e-10))
