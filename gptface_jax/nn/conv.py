"""Convolutional parts of the VQGAN, as in taming-transformers (SPEC A.2.1).

`dtype` is that of the branches; the stream they are added to keeps the dtype in which
it comes.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.ops.convolution import convolve


def conv(
    features: int,
    size: int,
    name: str | None,
    dtype,
    stride: int = 1,
    padding=None,
    init=None,
    bias: bool = True,
):
    """A 2-D convolution, NHWC, "same" unless `padding` says otherwise.

    Its kernel starts as PyTorch's default, uniform in +-1/sqrt(fan in), or by `init`.
    """
    init = init or nn.initializers.variance_scaling(1.0 / 3.0, "fan_in", "uniform")
    if padding is None:
        padding = [(size // 2, size // 2)] * 2
    return nn.Conv(
        features,
        (size, size),
        strides=stride,
        padding=padding,
        use_bias=bias,
        conv_general_dilated=convolve,
        dtype=dtype,
        kernel_init=nn.with_logical_partitioning(init, (None, None, None, "channels")),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("channels",)),
        name=name,
    )


class GroupNorm(nn.Module):
    """GroupNorm over channels, its statistics in float32 (Wu and He 2018).

    As `nn.GroupNorm`, but the picture is read in the layout in which it lies: means
    of the channels first, then of the groups. On a CPU that is what the time of a
    norm depends on (docs/results.md).
    """

    groups: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,C] -> [B,H,W,C]."""
        boxed, shape = nn.with_logical_partitioning, (x.shape[-1],)
        scale = self.param("scale", boxed(nn.initializers.ones, ("channels",)), shape)
        bias = self.param("bias", boxed(nn.initializers.zeros, ("channels",)), shape)
        x = x.astype(jnp.float32)

        def of_group(means):  # of the channels [B,C] -> of their groups [B,C]
            parts = means.reshape(len(x), self.groups, -1)
            whole = jnp.mean(parts, -1, keepdims=True)
            return jnp.broadcast_to(whole, parts.shape).reshape(means.shape)

        mean = of_group(jnp.mean(x, (1, 2)))
        square = of_group(jnp.mean(jnp.square(x), (1, 2)))
        variance = jnp.maximum(square - jnp.square(mean), 0.0)
        slope = jax.lax.rsqrt(variance + 1e-6) * scale
        offset = bias - mean * slope
        y = x * slope[:, None, None] + offset[:, None, None]
        return y.astype(self.dtype)


def group_norm(width: int, groups: int, name: str | None, dtype) -> GroupNorm:
    """GroupNorm with the largest group count <= `groups` that divides `width`."""
    while width % groups:
        groups -= 1
    return GroupNorm(groups, dtype, name=name)


class ResidualBlock(nn.Module):
    """A residual block: norm, swish, conv, twice; 1x1 shortcut if widths differ."""

    features: int
    groups: int = 32
    dropout: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool = True) -> jax.Array:
        """[B,H,W,C] -> [B,H,W,features]."""
        h = group_norm(x.shape[-1], self.groups, "norm1", self.dtype)(x)
        h = conv(self.features, 3, "conv1", self.dtype)(nn.swish(h))
        h = group_norm(self.features, self.groups, "norm2", self.dtype)(h)
        h = nn.Dropout(self.dropout, deterministic=deterministic)(nn.swish(h))
        h = conv(self.features, 3, "conv2", self.dtype)(h)
        if x.shape[-1] != self.features:
            x = conv(self.features, 1, "nin_shortcut", x.dtype)(x)
        return x + h


class SpatialAttention(nn.Module):
    """Single-head self-attention over all pixels, residual."""

    groups: int = 32
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,C] -> [B,H,W,C]."""
        b, h, w, c = x.shape
        y = group_norm(c, self.groups, "norm", self.dtype)(x)
        query, key, value = (
            conv(c, 1, name, self.dtype)(y).reshape(b, h * w, 1, c)
            for name in ("q", "k", "v")
        )
        out = jax.nn.dot_product_attention(query, key, value)  # scale c^-0.5
        return x + conv(c, 1, "proj_out", self.dtype)(out.reshape(b, h, w, c))


class Downsample(nn.Module):
    """Pads one pixel right and below, then a stride-2 3x3 convolution."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,C] -> [B,H/2,W/2,C]."""
        return conv(x.shape[-1], 3, "conv", x.dtype, 2, [(0, 1), (0, 1)])(x)


class Upsample(nn.Module):
    """Nearest-neighbour x2, then a 3x3 convolution."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,C] -> [B,2H,2W,C]."""
        x = jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2)
        return conv(x.shape[-1], 3, "conv", x.dtype)(x)
