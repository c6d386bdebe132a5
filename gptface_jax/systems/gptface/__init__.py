"""GPTFace (arXiv 2510.18345): model, objective, guided decoding."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.core.config import from_mapping
from gptface_jax.core.types import Phase, System
from gptface_jax.systems.gptface import model as gptface_model
from gptface_jax.systems.gptface import objective as gptface_objective


def make_system(config: Mapping[str, Any]) -> System:
    """Builds the trainable system from an experiment config.

    Args:
      config: mapping with `model` (GPTFaceConfig), `objective`
        (ObjectiveConfig) and `total_steps`.

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
        return module.init(key, tokens, method="init_all")["params"]

    def ids(length):
        return jax.ShapeDtypeStruct((length,), jnp.int32)

    return System(
        name="gptface",
        init=init,
        batch_spec={
            "image_ids": ids(layout.num_image_tokens),
            "text_ids": ids(layout.max_text_tokens),
            "negative_ids": ids(layout.max_text_tokens),
        },
        phases=(
            Phase(
                "",
                ".*",
                gptface_objective.make_loss(module, objective, config["total_steps"]),
            ),
        ),
        eval_fns={"eval": gptface_objective.make_eval(module, objective)},
    )
