"""PatchGAN: the discriminator that VQGANs are trained against (SPEC A.2.1).

Isola et al. 2017, section 3.2, as in taming-transformers: every logit judges one
patch of the picture (70 x 70 pixels with three halvings).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.nn import conv as nn_conv
from gptface_jax.nn.batch_norm import BatchNorm
from gptface_jax.ops.convolution import convolve

_SCALE_STD = 0.02  # of the norms' scales at the start: pix2pix


@dataclasses.dataclass(frozen=True)
class DiscriminatorConfig:
    """The discriminator; the defaults are taming's.

    Attributes:
      channels: filters of the first convolution; doubled by every halving, at most
        eightfold.
      num_layers: stride-2 convolutions.
      norm: "batch" as published; "group" has no statistics, and a picture's logits
        do not depend on its batch.
      in_channels: of the picture.
      dtype: of the activations; statistics and logits are float32.
    """

    channels: int = 64
    num_layers: int = 3
    norm: str = "batch"
    in_channels: int = 3
    dtype: str = "float32"

    def __post_init__(self):
        if self.norm not in ("batch", "group"):
            raise ValueError(f"norm {self.norm!r} is unknown; use 'batch' or 'group'")


class Discriminator(nn.Module):
    """A patch discriminator, [B,H,W,3] in [-1,1] -> logits [B,h,w], high = real."""

    config: DiscriminatorConfig

    @nn.compact
    def __call__(self, image: jax.Array, train: bool = True) -> jax.Array:
        c = self.config
        x = self._conv("conv_0", c.channels, 2, bias=True)(image)
        x = nn.leaky_relu(x, 0.2)
        for i in range(1, c.num_layers + 1):
            width = c.channels * min(2**i, 8)
            stride = 2 if i < c.num_layers else 1
            # A norm's own bias makes the convolution's needless.
            x = self._conv(f"conv_{i}", width, stride, bias=c.norm != "batch")(x)
            if c.norm == "batch":
                x = BatchNorm(c.dtype, scale_std=_SCALE_STD, name=f"norm_{i}")(x, train)
            else:
                x = nn_conv.group_norm(width, 16, f"norm_{i}", c.dtype)(x)
            x = nn.leaky_relu(x, 0.2)
        x = self._conv(f"conv_{c.num_layers + 1}", 1, 1, bias=True)(x)
        return x[..., 0].astype(jnp.float32)

    def _conv(self, name: str, features: int, stride: int, bias: bool) -> nn.Conv:
        init = nn.with_logical_partitioning(
            nn.initializers.normal(0.02), (None, None, None, "channels")
        )
        return nn.Conv(
            features,
            (4, 4),
            strides=stride,
            padding=[(1, 1), (1, 1)],
            use_bias=bias,
            conv_general_dilated=convolve,
            dtype=self.config.dtype,
            kernel_init=init,
            name=name,
        )
