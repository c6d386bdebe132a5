"""A small convolutional classifier of attributes; its features compare pictures."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.nn import conv as nn_conv


@dataclasses.dataclass(frozen=True)
class ClassifierConfig:
    """The classifier.

    Attributes:
      resolution: side of the pictures in pixels.
      attributes: what it judges, in the order of its outputs.
      channels: width after each halving of the picture.
      groups: of every GroupNorm.
      dropout: before the output layer.
      dtype: of the activations.
    """

    resolution: int = 64
    attributes: tuple[str, ...] = ()
    channels: tuple[int, ...] = (32, 64, 128, 192)
    groups: int = 8
    dropout: float = 0.2
    dtype: str = "float32"


class Classifier(nn.Module):
    """A convolutional classifier, [B,S,S,3] in [-1,1] -> logits float32 [B,A]."""

    config: ClassifierConfig

    def setup(self):
        c = self.config
        self.conv = [nn_conv.conv(w, 3, None, c.dtype, 2) for w in c.channels]
        self.block = [
            nn_conv.ResidualBlock(w, c.groups, 0.0, c.dtype) for w in c.channels
        ]
        self.norm_out = nn_conv.group_norm(c.channels[-1], c.groups, None, c.dtype)
        self.dropout = nn.Dropout(c.dropout)
        init = nn.with_logical_partitioning(
            nn.initializers.lecun_normal(), ("embed", None)
        )
        self.output = nn.Dense(len(c.attributes), kernel_init=init)

    def features(self, image: jax.Array) -> list[jax.Array]:
        """Maps after each halving, for pictures of any size divisible by them.

        Args:
          image: [B,H,W,3] in [-1,1].

        Returns:
          [B,H/2,W/2,C_0], [B,H/4,W/4,C_1], ...
        """
        maps, x = [], image
        for conv, block in zip(self.conv, self.block):
            x = block(conv(x), True)
            maps.append(x)
        return maps

    def embed(self, image: jax.Array) -> jax.Array:
        """Features float32 [B,C] of [B,H,W,3]: the last map's mean over positions."""
        last = nn.swish(self.norm_out(self.features(image)[-1]))
        return jnp.mean(last.astype(jnp.float32), axis=(1, 2))

    def __call__(self, image: jax.Array, deterministic: bool = True) -> jax.Array:
        x = nn.swish(self.norm_out(self.features(image)[-1]))
        # Where something is matters (a hat, a tie): keep the coarse layout.
        x = x.reshape(x.shape[0], -1)
        x = self.dropout(x, deterministic=deterministic)
        return self.output(x).astype(jnp.float32)
