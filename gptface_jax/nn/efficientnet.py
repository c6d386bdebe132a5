"""EfficientNet-lite0, a small classifier of ImageNet, as a feature network.

Tan and Le 2019 (arXiv 1905.11946) without squeeze-and-excitation and with ReLU6. It is
frozen: batch norms are folded into the convolutions (`interop.efficientnet`).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.ops.convolution import convolve, depthwise, same_padding

# (blocks, side of the window, stride of the first block, expansion, width), by stage.
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)
STEM, HEAD = 32, 1280  # widths
# The last stage at each scale: 1/2, 1/4, 1/8, 1/16 and 1/32 of the picture's side.
DEPTHS = (0, 1, 2, 4, 6)


class _Conv(nn.Module):
    """A convolution with its folded norm; 1 x 1, full, or of each channel alone."""

    features: int
    window: int = 1
    stride: int = 1
    each: bool = False  # channel by itself

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.window, self.window, x.shape[-1])
        shape += () if self.each else (self.features,)
        kernel = self.param("kernel", nn.initializers.he_normal(), shape)
        bias = self.param("bias", nn.initializers.zeros, (self.features,))
        kernel, bias = kernel.astype(x.dtype), bias.astype(x.dtype)
        if self.each:
            return depthwise(x, kernel, self.stride) + bias
        if self.window == 1:
            return x @ kernel[0, 0] + bias
        padding = same_padding(x.shape[1:3], self.window, self.stride)
        return convolve(x, kernel, (self.stride,) * 2, padding) + bias


class _Block(nn.Module):
    """Inverted bottleneck: wider, a window of each channel, narrow again."""

    window: int
    stride: int
    expansion: int
    features: int

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        y, width = x, x.shape[-1] * self.expansion
        if self.expansion > 1:
            y = nn.relu6(_Conv(width, name="expand")(y))
        depth = _Conv(width, self.window, self.stride, True, name="depthwise")
        y = _Conv(self.features, name="project")(nn.relu6(depth(y)))
        return x + y if self.stride == 1 and x.shape == y.shape else y


class EfficientNetLite0(nn.Module):
    """Features of pictures [B,H,W,3] in [-1,1], sides best multiples of 32.

    Attributes:
      dtype: of the activations.
    """

    dtype: str = "float32"

    def setup(self):
        self.stem = _Conv(STEM, 3, 2)
        self.stages = [
            [
                _Block(window, 1 if i else stride, expansion, width)
                for i in range(blocks)
            ]
            for blocks, window, stride, expansion, width in STAGES
        ]
        self.head = _Conv(HEAD)

    def features(self, image: jax.Array) -> list[jax.Array]:
        """Maps [B,h,w,C] of 16, 24, 40, 112 and 320 channels, h from H/2 to H/32."""
        # It was trained on (x - 127) / 128 of values up to 255.
        x = ((127.5 * image + 0.5) / 128).astype(self.dtype)
        x, maps = nn.relu6(self.stem(x)), []
        for number, stage in enumerate(self.stages):
            for block in stage:
                x = block(x)
            if number in DEPTHS:
                maps.append(x)
        return maps

    def __call__(self, image: jax.Array) -> jax.Array:
        """Input of the classifier, float32 [B,1280]: means over the positions."""
        x = nn.relu6(self.head(self.features(image)[-1]))
        return jnp.mean(x.astype(jnp.float32), (1, 2))
