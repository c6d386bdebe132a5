"""Opening the networks in whose feature spaces pictures are compared."""

from __future__ import annotations

import dataclasses

from gptface_jax.apps import networks
from gptface_jax.core.errors import UserError
from gptface_jax.interop import lpips
from gptface_jax.nn.classifier import Classifier
from gptface_jax.nn.perceptual import LPIPS, feature_distance
from gptface_jax.systems.vqgan import Perceptual, PerceptualConfig


def _lpips(config: PerceptualConfig) -> Perceptual:
    module = LPIPS(config.dtype)

    def distance(params, image, target):
        return module.apply({"params": params}, image, target)

    return Perceptual("lpips", lpips.load(config.path), distance)


def _classifier(config: PerceptualConfig) -> Perceptual:
    network = networks.open_network(config.path, "judge")
    module = Classifier(dataclasses.replace(network.config, dtype=config.dtype))

    def maps(params, image):
        return module.apply({"params": params}, image, method="features")

    def distance(params, image, target):
        return feature_distance(maps(params, image), maps(params, target))

    return Perceptual("face_features", network.params, distance)


_OPENERS = {"lpips": _lpips, "classifier": _classifier}


def open_distance(config: PerceptualConfig) -> Perceptual:
    """Reads the network that a config names.

    Raises:
      UserError: an unknown network, no path, or weights that cannot be read.
    """
    if config.network not in _OPENERS:
        raise UserError(
            f"objective.perceptual.network is {config.network!r}; use one of "
            + ", ".join(_OPENERS)
        )
    if not config.path:
        raise UserError(
            "objective.perceptual.path is empty; give the weights of LPIPS, or the "
            "run of a classifier (configs/judge/faces64.py:features)"
        )
    return _OPENERS[config.network](config)
