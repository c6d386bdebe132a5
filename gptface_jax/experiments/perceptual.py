"""Opening the networks in whose feature spaces pictures are compared."""

from __future__ import annotations

import dataclasses
from typing import Any

from gptface_jax.core.errors import UserError
from gptface_jax.experiments import opening
from gptface_jax.interop import efficientnet, lpips
from gptface_jax.nn.classifier import Classifier
from gptface_jax.nn.efficientnet import EfficientNetLite0
from gptface_jax.nn.perceptual import LPIPS, feature_distance
from gptface_jax.systems.vqgan import Perceptual, PerceptualConfig

EFFICIENTNET = "efficientnet_lite0"


def _lpips(config: PerceptualConfig) -> Perceptual:
    if config.depths:
        raise UserError(
            "objective.perceptual.depths are set, but LPIPS has learnt how much its "
            "maps count; leave them out"
        )
    module = LPIPS(config.dtype)

    def distance(params, image, target, *counts):
        return module.apply({"params": params}, image, target, *counts)

    return Perceptual("lpips", lpips.load(config.path), distance)


def _by_features(
    name: str, module: Any, params: Any, config: PerceptualConfig
) -> Perceptual:
    """`feature_distance` of the module's feature maps."""

    def maps(params, image):
        return module.apply({"params": params}, image, method="features")

    def distance(params, image, target, counts=None):
        pair = maps(params, image), maps(params, target)
        return feature_distance(*pair, counts, config.depths)

    return Perceptual(name, params, distance)


def _classifier(config: PerceptualConfig) -> Perceptual:
    network = opening.open_network(config.path, "judge")
    module = Classifier(dataclasses.replace(network.config, dtype=config.dtype))
    return _by_features("face_features", module, network.params, config)


def _efficientnet(config: PerceptualConfig) -> Perceptual:
    module = EfficientNetLite0(config.dtype)
    return _by_features(EFFICIENTNET, module, efficientnet.load(config.path), config)


_OPENERS = {"lpips": _lpips, "classifier": _classifier, EFFICIENTNET: _efficientnet}


def open_distance(config: PerceptualConfig) -> Perceptual:
    """The perceptual network that a config names.

    Raises:
      UserError: an unknown network, no path, or weights that cannot be read.
    """
    if config.network not in _OPENERS:
        raise UserError(
            f"objective.perceptual.network is {config.network!r}; use one of "
            + ", ".join(_OPENERS)
        )
    if not config.path and config.network != EFFICIENTNET:
        raise UserError(
            "objective.perceptual.path is empty; give the weights of LPIPS, or the "
            "run of a classifier (configs/judge/faces64.py:features)"
        )
    return _OPENERS[config.network](config)
