"""Batch normalisation whose stored statistics are PyTorch's (Ioffe and Szegedy 2015).

y = scale * (x - mean) / sqrt(var + epsilon) + bias
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

MOMENTUM = 0.9  # of the stored statistics; PyTorch calls it 0.1


class BatchNorm(nn.Module):
    """Normalises by the statistics of the batch, or by stored ones.

    Stored statistics move by 1 - MOMENTUM a batch, when the collection
    "batch_stats" is mutable; the variance stored is the unbiased one, as PyTorch's.

    Attributes:
      dtype: of the result.
      epsilon: added to the variance.
      scale_std: the scales start as N(1, scale_std).
      counted: whether the batches are counted, as PyTorch does and stores.
    """

    dtype: str = "float32"
    epsilon: float = 1e-5
    scale_std: float = 0.0
    counted: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        """The normed x [B,...,C]; `train` = by the statistics of this batch."""
        channels = (x.shape[-1],)
        boxed = nn.with_logical_partitioning
        ones, zeros = nn.initializers.ones, nn.initializers.zeros
        near_one = lambda key, shape: 1 + self.scale_std * jax.random.normal(key, shape)  # noqa: E731
        start = near_one if self.scale_std else ones
        scale = self.param("scale", boxed(start, ("channels",)), channels)
        bias = self.param("bias", boxed(zeros, ("channels",)), channels)
        mean_stored = self.variable("batch_stats", "mean", zeros, None, channels)
        var_stored = self.variable("batch_stats", "var", ones, None, channels)
        if self.counted:
            none = lambda: jnp.zeros((), jnp.int32)  # noqa: E731
            count_stored = self.variable("batch_stats", "count", none)
        x = x.astype(jnp.float32)
        axes = tuple(range(x.ndim - 1))
        if train:
            mean, var = jnp.mean(x, axes), jnp.var(x, axes)
        else:
            mean, var = mean_stored.value, var_stored.value
        if train and self.is_mutable_collection("batch_stats"):
            if not self.is_initializing():
                count = x.size // x.shape[-1]
                unbiased = var * (count / max(count - 1, 1))
                keep = lambda old, new: MOMENTUM * old + (1 - MOMENTUM) * new  # noqa: E731
                mean_stored.value = keep(mean_stored.value, mean)
                var_stored.value = keep(var_stored.value, unbiased)
                if self.counted:
                    # Not in place: it may be numpy, and the caller's.
                    count_stored.value = count_stored.value + 1
        y = (x - mean) * (jax.lax.rsqrt(var + self.epsilon) * scale) + bias
        return y.astype(self.dtype)
