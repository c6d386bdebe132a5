"""A small network that tells edits from untouched photographs by their borders."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn


class SeamDetector(nn.Module):
    """Logits float32 [B], positive for an edit, of what lies along a region's border.

    SPEC E.12. Called with float32 [B,S,S,5]: the pixels in [-1,1] within a band around
    the border and 0 elsewhere, the part of the band in the region, and the band; S a
    multiple of 4.
    """

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        band = x[..., 4:]
        for width, stride in ((12, 1), (24, 2), (32, 2)):
            x = nn.relu(nn.Conv(width, (3, 3), stride)(x))
            band = nn.max_pool(band, (stride,) * 2, (stride,) * 2)
        # A picture without a border has an empty band.
        mean = (x * band).sum((1, 2)) / jnp.maximum(band.sum((1, 2)), 1.0)
        return nn.Dense(1)(jnp.concatenate([mean, x.max((1, 2))], -1))[:, 0]
