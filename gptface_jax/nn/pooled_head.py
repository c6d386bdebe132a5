"""The trained head of a frozen backbone (SPEC A.11)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn


class PooledHead(nn.Module):
    """A head on pooled features, [B,F,D] -> float32 logits [B,outputs].

    LayerNorm of each of the F vectors, their mean weighted by a softmax over F learned
    scalars, one linear layer.
    """

    outputs: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        shape, axes = features.shape[1:], (None, "embed")
        ones = nn.with_logical_partitioning(nn.initializers.ones, axes)
        zeros = nn.with_logical_partitioning(nn.initializers.zeros, axes)
        scale = self.param("norm_scale", ones, shape)
        x = nn.standardize(features.astype(jnp.float32)) * scale
        x = x + self.param("norm_bias", zeros, shape)
        flat = nn.with_logical_partitioning(nn.initializers.zeros, (None,))
        share = jax.nn.softmax(self.param("mixture", flat, shape[:1]))
        init = nn.with_logical_partitioning(
            nn.initializers.lecun_normal(), ("embed", None)
        )
        output = nn.Dense(self.outputs, kernel_init=init, name="output")
        return output(jnp.einsum("f,bfd->bd", share, x))
