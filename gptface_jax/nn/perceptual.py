"""Distances between pictures in the feature space of a network.

`LPIPS` is the learned distance of Zhang et al. 2018 on VGG-16, and needs their
weights (`interop.lpips`). `feature_distance` compares in the space of any other
network, and is named after that network, never LPIPS. Either may count some places of
the picture more than others.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.ops.convolution import convolve

# Convolutions of VGG-16 by stage; a 2 x 2 maximum precedes every stage but the first.
STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))
_SHIFT = (-0.030, -0.088, -0.188)
_SCALE = (0.458, 0.448, 0.450)
MIN_SIDE = 16  # of a picture, so that the last stage has one position


def unit_vectors(x: jax.Array) -> jax.Array:
    """Unit vectors float32 [...,C]; a zero vector stays zero, with a finite slope."""
    x = x.astype(jnp.float32)
    return x / jnp.sqrt(jnp.sum(jnp.square(x), -1, keepdims=True) + 1e-20)


def _mean(values: jax.Array, weight: jax.Array | None) -> jax.Array:
    """Over the positions of [B,h,w], each counted by weight [B,H,W]: [B]."""
    if weight is None:
        return jnp.mean(values, axis=(1, 2))
    weight = jax.image.resize(weight, values.shape, "linear")
    return jnp.sum(values * weight, (1, 2)) / jnp.sum(weight, (1, 2))


def feature_distance(
    a: Sequence[jax.Array],
    b: Sequence[jax.Array],
    weight: jax.Array | None = None,
    depths: Sequence[float] = (),
) -> jax.Array:
    """Squared distance of unit feature vectors, averaged over positions and maps.

    Args:
      a, b: maps [B,h,w,C] of the two pictures, each list from the same network.
      weight: [B,H,W], how much each place of the picture counts; by default all do
        alike.
      depths: how much each map counts; by default all do alike.

    Returns:
      float32 [B], 0 to 4.

    Raises:
      ValueError: as many depths as there are not maps.
    """
    depths = depths or (1.0,) * len(a)
    if len(depths) != len(a):
        raise ValueError(f"{len(depths)} depths {tuple(depths)} for {len(a)} maps")
    parts = [
        share
        * _mean(jnp.sum(jnp.square(unit_vectors(x) - unit_vectors(y)), -1), weight)
        for share, x, y in zip(depths, a, b, strict=True)
        if share
    ]
    return sum(parts) / sum(depths)


class LPIPS(nn.Module):
    """The distance of two pictures [B,H,W,3] in [-1,1]: float32 [B].

    Attributes:
      dtype: of the convolutions; the distance itself is float32.
    """

    dtype: str = "float32"

    def setup(self):
        widths = [width for stage in STAGES for width in stage]
        self.conv = [
            nn.Conv(
                width, (3, 3), 1, 1, conv_general_dilated=convolve, dtype=self.dtype
            )
            for width in widths
        ]
        self.lin = [
            self.param(f"lin_{i}", nn.initializers.ones, (stage[-1],))
            for i, stage in enumerate(STAGES)
        ]

    def features(self, image: jax.Array) -> list[jax.Array]:
        """Maps after relu1_2, 2_2, 3_3, 4_3 and 5_3."""
        x = (image - jnp.array(_SHIFT)) / jnp.array(_SCALE)
        maps, number = [], 0
        for i, stage in enumerate(STAGES):
            if i:
                x = nn.max_pool(x, (2, 2), (2, 2))
            for _ in stage:
                x = nn.relu(self.conv[number](x))
                number += 1
            maps.append(x)
        return maps

    def __call__(
        self, image: jax.Array, target: jax.Array, weight: jax.Array | None = None
    ) -> jax.Array:
        if min(image.shape[1:3]) < MIN_SIDE:
            raise ValueError(
                f"LPIPS needs pictures of {MIN_SIDE} px or more, not {image.shape[1:3]}"
            )
        total = 0.0
        for a, b, head in zip(self.features(image), self.features(target), self.lin):
            squares = jnp.square(unit_vectors(a) - unit_vectors(b))
            total += _mean(squares @ head, weight)
        return total
