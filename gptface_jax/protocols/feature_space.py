"""Networks trained apart, in whose features pictures are compared."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable

import jax
import numpy as np

from gptface_jax.data import image
from gptface_jax.experiments import opening, perceptual
from gptface_jax.nn.efficientnet import EfficientNetLite0
from gptface_jax.nn.perceptual import feature_distance
from gptface_jax.pipelines import batching, networks
from gptface_jax.protocols.judge import on_pictures
from gptface_jax.systems.vqgan import PerceptualConfig

EFFICIENTNET = perceptual.EFFICIENTNET


@dataclasses.dataclass(frozen=True)
class FeatureSpace:
    """What a network sees in pictures [B,H,W,3] in [-1,1].

    Attributes:
      embed: pictures -> [B,D].
      distance: (pictures, others, how much each place counts [B,H,W] or nothing) ->
        float32 [B], of the feature maps.
    """

    embed: Callable
    distance: Callable

    def of_photos(self, photos: np.ndarray) -> np.ndarray:
        """Features [B,D] of uint8 [B,S,S,3]."""
        return batching.run(lambda x: self.embed(image.to_unit_range(x)), [photos], 64)

    def outside(
        self, photos: np.ndarray, others: np.ndarray, regions: np.ndarray
    ) -> np.ndarray:
        """Distances [B] of uint8 photographs [B,S,S,3] outside regions bool [B,S,S].

        What a feature sees reaches into the region: a seam and what stands out beside
        it count.
        """

        def distance(photos, others, regions):
            pair = image.to_unit_range(photos), image.to_unit_range(others)
            return self.distance(*pair, np.float32(~regions))

        return batching.run(distance, [photos, others, regions], 64)


def of_judge(network: networks.Network) -> FeatureSpace:
    """That of a classifier, of pictures of any size."""
    maps, compare = on_pictures(network, "features"), jax.jit(feature_distance)

    def distance(pictures, others, weight=None):
        return compare(maps(pictures), maps(others), weight)

    return FeatureSpace(on_pictures(network, "embed"), distance)


def efficientnet() -> FeatureSpace:
    """That of EfficientNet-lite0, of pictures in the size that they have.

    Raises:
      UserError: its weights are not installed (extra `features`).
    """
    opened = perceptual.open_distance(PerceptualConfig(1.0, EFFICIENTNET))
    params = jax.device_put(opened.params)
    embed = jax.jit(lambda params, x: EfficientNetLite0().apply({"params": params}, x))
    return FeatureSpace(
        functools.partial(embed, params),
        functools.partial(jax.jit(opened.distance), params),
    )


def open_space(name: str | os.PathLike) -> FeatureSpace:
    """`efficientnet` by its name, else that of a judge's training run or directory.

    Raises:
      UserError: no such run or directory, or weights that are not installed.
    """
    if name == EFFICIENTNET:
        return efficientnet()
    return of_judge(opening.open_network(name, "judge"))
