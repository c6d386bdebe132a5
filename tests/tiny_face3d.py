"""The smallest FaceGPT with a VQGAN and a vocabulary, none of them trained."""

from __future__ import annotations

import functools
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import tiny_vqgan
from flax import linen as nn

from gptface_jax.apps import verbs
from gptface_jax.core import trees
from gptface_jax.data.facemodel import open_model
from gptface_jax.data.text import TextTokenizer
from gptface_jax.nn import sequence
from gptface_jax.nn.transformer import TransformerConfig
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer
from gptface_jax.pipelines.networks import Network
from gptface_jax.systems.facegpt.coefficients import FacesConfig
from gptface_jax.systems.facegpt.model import FaceGPT, FaceGPTConfig


@functools.lru_cache
def opened(kind, scheme: str = "grouped"):
    """A facade whose heads say something."""
    vqgan = tiny_vqgan.network()
    text = TextTokenizer.train(["a happy person with blond hair", "sad angry"] * 20, 60)
    faces = FacesConfig(scheme=scheme, slots=2, codes=8)
    config = FaceGPTConfig(
        transformer=TransformerConfig(
            num_layers=1, width=16, num_heads=2, mlp_width=24, remat="none"
        ),
        vocab=text.joint_vocab(
            vqgan.config.codebook_size, face_tokens=faces.vocabulary
        ),
        layout=sequence.SequenceLayout(vqgan.config.grid, 8),
        max_positions=128,
        embedding_init=0.5,
        faces=faces,
    )
    module = FaceGPT(config)
    tokens = jnp.zeros((1, config.layout.length), jnp.int32)
    init = jax.jit(functools.partial(module.init, method="init_faces"))
    params = nn.meta.unbox(init(jax.random.key(0), tokens)["params"])
    rng = np.random.default_rng(0)
    params = {
        k: v + rng.normal(0, 0.3, v.shape).astype(np.float32) if "/output/" in k else v
        for k, v in trees.flatten(params).items()
    }
    network = Network(module, trees.unflatten(params), "faces", {})
    heads = open_model(max_vertices=300)
    return kind(network, ImageTokenizer(vqgan), text, heads)


def other():
    """A facade of another system."""

    class Other(verbs.Facade, SimpleNamespace):
        pass

    return Other()
