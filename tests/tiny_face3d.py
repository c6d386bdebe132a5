"""The smallest FaceGPT with a VQGAN and a vocabulary, none of them trained."""

from __future__ import annotations

import dataclasses
import functools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import tiny_vqgan
from flax import linen as nn

from gptface_jax.apps import verbs
from gptface_jax.core import trees
from gptface_jax.data import label_sets
from gptface_jax.data.facemodel import open_model
from gptface_jax.data.task_examples import TaskOptions
from gptface_jax.data.tasks import AND_HEAD, PROMPTS, TASKS, vocabulary_texts
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import talk2face
from gptface_jax.experiments.chat import ChatConfig
from gptface_jax.experiments.facegpt import GPTFaceWithFaces
from gptface_jax.nn import sequence
from gptface_jax.nn.transformer import TransformerConfig
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer
from gptface_jax.pipelines.networks import Network
from gptface_jax.pipelines.sequence_model import Learnt
from gptface_jax.systems.facegpt.coefficients import FacesConfig
from gptface_jax.systems.facegpt.model import FaceGPT, FaceGPTConfig


def _config(kind, vqgan, text, faces: FacesConfig, **more):
    """The smallest config of a system whose sequences may end in a head."""
    return kind(
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
        **more,
    )


@functools.lru_cache
def opened(kind, scheme: str = "grouped"):
    """A facade whose heads say something."""
    vqgan = tiny_vqgan.network()
    text = TextTokenizer.train(["a happy person with blond hair", "sad angry"] * 20, 60)
    faces = FacesConfig(scheme=scheme, slots=2, codes=8)
    config = _config(FaceGPTConfig, vqgan, text, faces)
    network = _network(FaceGPT(config))
    heads = open_model(max_vertices=300)
    return kind(network, ImageTokenizer(vqgan), text, heads, without_text=0.1)


def _network(module) -> Network:
    """The module with parameters by chance, also where they start at zero."""
    tokens = jnp.zeros((1, module.config.layout.length), jnp.int32)
    init = jax.jit(functools.partial(module.init, method="init_faces"))
    params = nn.meta.unbox(init(jax.random.key(0), tokens)["params"])
    rng = np.random.default_rng(0)
    params = {
        k: v + rng.normal(0, 0.3, v.shape).astype(np.float32) if "/output/" in k else v
        for k, v in trees.flatten(params).items()
    }
    return Network(module, trees.unflatten(params), "faces", {})


def learnt() -> Learnt:
    """What `chat` may be asked."""
    table = {"rendered": label_sets.TABLE["rendered"]}
    options = TaskOptions(name_data_sets=False)
    content = talk2face.learnt_labels(table, options)
    return Learnt.from_json(json.loads(content))


@functools.lru_cache
def chat(kind):
    """A facade that answers, whose words and heads mean nothing."""
    vqgan = tiny_vqgan.network()
    prompts = [PROMPTS[task] + AND_HEAD for task in TASKS]
    said = [*prompts, *vocabulary_texts({"rendered": label_sets.TABLE["rendered"]})]
    text = TextTokenizer.train(said * 20, 300)
    faces = FacesConfig(scheme="discrete", slots=2, codes=8)
    config = _config(ChatConfig, vqgan, text, faces, length=128)
    network = _network(GPTFaceWithFaces(config))
    heads = open_model(max_vertices=300)
    return kind(network, ImageTokenizer(vqgan), text, heads, learnt=learnt())


def saying(model, begin: float, end: float = 0.0):
    """The model of `chat`, so much likelier to begin a head, or to end without one."""
    vocab, network = model.network.config.vocab, model.network
    tables = dict(network.params["tokens"])
    bias = np.array(tables["output_bias"])
    bias[vocab.size] += begin
    bias[vocab.sep_id] += end
    tables["output_bias"] = bias
    params = {**network.params, "tokens": tables}
    network = dataclasses.replace(network, params=params)
    return type(model)(
        network, model.vqgan, model.tokenizer, model.face_model, learnt=model.learnt
    )


def other():
    """A facade of another system."""

    class Other(verbs.Facade, SimpleNamespace):
        pass

    return Other()
