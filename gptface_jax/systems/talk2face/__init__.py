"""Talk2Face (SPEC part B): text to faces, faces to texts, by one sequence model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping
from gptface_jax.core.types import Evaluation, Feed, Phase, System
from gptface_jax.nn import tokens as nn_tokens
from gptface_jax.nn.prefix_lm import PrefixLM, PrefixLMConfig
from gptface_jax.systems.talk2face import objective as t2f_objective


def make_system(
    config: Mapping[str, Any], codebook: Any = None, tasks: tuple[str, ...] = ()
) -> System:
    """Builds the trainable system from an experiment config.

    Args:
      config: mapping with `model` (PrefixLMConfig), `objective` (ObjectiveConfig) and
        `batch_size`.
      codebook: float [K,C] of the tokenizer, to start the code embeddings from; None
        starts them at random, as the paper does.
      tasks: names of the tasks in held-out batches.

    Returns:
      A System with one phase.
    """
    model = from_mapping(PrefixLMConfig, config["model"], "model.")
    objective = from_mapping(
        t2f_objective.ObjectiveConfig, config["objective"], "objective."
    )
    module = PrefixLM(model)

    def init(key):
        tokens = jnp.zeros((1, model.length), jnp.int32)
        params = module.init(key, tokens, method="init_all")["params"]
        if codebook is None:
            return params
        key = trees.stream(key, "codebook")
        tokens = nn_tokens.from_codebook(params["tokens"], codebook, model.vocab, key)
        return {**params, "tokens": tokens}

    spec = sequence_spec(model)
    return System(
        name="talk2face",
        init=init,
        feeds={
            t2f_objective.FEED: Feed(spec, config["batch_size"], model.length),
        },
        phases=(Phase("", ".*", t2f_objective.make_loss(module, objective)),),
        evaluations={
            "eval": Evaluation(t2f_objective.make_eval(module, objective, tasks), spec)
        },
        unit="tokens",
    )


def sequence_spec(model: PrefixLMConfig) -> dict[str, jax.ShapeDtypeStruct]:
    """What an example of the feed holds."""
    shape = (model.length,)
    return {
        "tokens": jax.ShapeDtypeStruct(shape, jnp.int32),
        "segment_ids": jax.ShapeDtypeStruct(shape, jnp.int32),
        "loss_mask": jax.ShapeDtypeStruct(shape, jnp.bool_),
        "task": jax.ShapeDtypeStruct((), jnp.int32),
    }
