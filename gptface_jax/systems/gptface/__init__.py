"""GPTFace (arXiv 2510.18345): model, objective, guided decoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping
from gptface_jax.core.types import Evaluation, Feed, Phase, System
from gptface_jax.nn import tokens as nn_tokens
from gptface_jax.systems.gptface import held_out
from gptface_jax.systems.gptface import model as gptface_model
from gptface_jax.systems.gptface import objective as gptface_objective


def make_system(
    config: Mapping[str, Any], codebook: Any = None, attributes: tuple[str, ...] = ()
) -> System:
    """The trainable system of an experiment config.

    Args:
      config: mapping with `model` (GPTFaceConfig), `objective`
        (ObjectiveConfig), `batch_size` and `total_steps`.
      codebook: float [K,C] of the tokenizer, to start the code embeddings from;
        None starts them at random, as the paper does.
      attributes: that held-out batches ask about, see `data.attribute_questions`.

    Returns:
      A System with one phase.
    """
    model_config = from_mapping(gptface_model.GPTFaceConfig, config["model"], "model.")
    objective = from_mapping(
        gptface_objective.ObjectiveConfig, config["objective"], "objective."
    )
    module = gptface_model.GPTFace(model_config)
    layout = model_config.layout

    def init(key):
        tokens = jnp.zeros((1, layout.length), jnp.int32)
        params = module.init(key, tokens, method="init_all")["params"]
        if codebook is None:
            return params
        tokens = nn_tokens.from_codebook(
            params["tokens"],
            codebook,
            model_config.vocab,
            trees.stream(key, "codebook"),
        )
        return {**params, "tokens": tokens}

    def ids(length):
        return jax.ShapeDtypeStruct((length,), jnp.int32)

    spec = {
        "image_ids": ids(layout.num_image_tokens),
        "text_ids": ids(layout.max_text_tokens),
        "negative_ids": ids(layout.max_text_tokens),
        "word_ids": ids(layout.max_text_tokens),
    }
    loss = gptface_objective.make_loss(module, objective, config["total_steps"])
    metrics = held_out.make_eval(module, objective, attributes=attributes)
    units = layout.num_image_tokens + layout.max_text_tokens
    return System(
        name="gptface",
        init=init,
        feeds={"pairs": Feed(spec, config["batch_size"], units)},
        phases=(Phase("", ".*", loss),),
        evaluations={"eval": Evaluation(metrics, spec)},
        unit="tokens",
        whole_batch="contrastive negatives and " * bool(objective.contrastive_weight)
        + "means over masked tokens are",
        resumable=("data.tokenizer", "model.layout.multiple_of"),
    )
