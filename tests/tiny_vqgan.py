"""The smallest VQGAN: 16 pixels, f = 4, 64 codes of width 4; random weights."""

from __future__ import annotations

import math

import numpy as np

from gptface_jax.core import trees
from gptface_jax.experiments.opening import expected_shapes
from gptface_jax.nn.vqgan import VQGAN, VQGANConfig
from gptface_jax.pipelines.networks import Network

CONFIG = VQGANConfig(
    resolution=16,
    level_channels=(4, 8, 8),
    num_res_blocks=1,
    attn_resolutions=(),
    z_channels=8,
    embed_dim=4,
    codebook_size=64,
    groups=4,
)


def params(seed: int = 0) -> dict:
    """Nested dict of float32 arrays, without compiling an initialiser."""
    rng = np.random.default_rng(seed)

    def one(name, shape):
        if name.endswith("scale"):
            return np.ones(shape, np.float32)
        fan_in = math.prod(shape[:-1]) if name.endswith("kernel") else 1
        return rng.normal(0, fan_in**-0.5, shape).astype(np.float32)

    shapes = trees.flatten(expected_shapes("vqgan", CONFIG))
    return trees.unflatten({name: one(name, x.shape) for name, x in shapes.items()})


def network(seed: int = 0) -> Network:
    return Network(VQGAN(CONFIG), params(seed), "abc", {})
