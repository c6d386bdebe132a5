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
    config: Mapping[str, Any],
    codebook: Any = None,
    tasks: tuple[str, ...] = (),
    soft_targets: int = 0,
    packed: tuple[int, int] = (0, 0),
) -> System:
    """Builds the trainable system from an experiment config.

    Args:
      config: mapping with `model` (PrefixLMConfig), `objective` (ObjectiveConfig) and
        `batch_size`.
      codebook: float [K,C] of the tokenizer, to start the code embeddings from; None
        starts them at random, as the paper does.
      tasks: names that "task" in held-out batches counts.
      soft_targets: ids that a soft target spreads over, 0 for none.
      packed: (length, most sequences) of the rows that the feed is packed into; of
        length 0 rows hold one sequence. Held-out batches are never packed.

    Returns:
      A System with one phase and the feed "sequences".
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

    spec = sequence_spec(model, soft_targets)
    fed = packed_spec(spec, *packed) if packed[0] else spec
    feed = Feed(fed, config["batch_size"], packed[0] or model.length)
    metrics = t2f_objective.make_eval(module, objective, tasks)
    return System(
        name="talk2face",
        init=init,
        feeds={t2f_objective.FEED: feed},
        phases=(Phase("", ".*", t2f_objective.make_loss(module, objective)),),
        evaluations={"eval": Evaluation(metrics, spec)},
        unit="tokens",
        whole_batch="" if objective.pooled else "means over tokens of each kind are",
        resumable=("data.tokenizer",),
    )


def sequence_spec(
    model: PrefixLMConfig, soft_targets: int = 0
) -> dict[str, jax.ShapeDtypeStruct]:
    """Spec of an example of a feed, see `objective.token_metrics`."""

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct(shape, dtype)

    spec = {
        "tokens": array(jnp.int32, model.length),
        "segment_ids": array(jnp.int32, model.length),
        "loss_mask": array(jnp.bool_, model.length),
        "task": array(jnp.int32),
    }
    if soft_targets:
        spec |= {
            "soft_position": array(jnp.int32),
            "soft_ids": array(jnp.int32, soft_targets),
            "soft_weights": array(jnp.float32, soft_targets),
        }
    return spec


def packed_spec(
    spec: Mapping[str, jax.ShapeDtypeStruct], length: int, most: int
) -> dict[str, jax.ShapeDtypeStruct]:
    """Spec of a row of several sequences, see `data.packing.pack`.

    Args:
      spec: of one sequence.
      length: of a row.
      most: sequences that a row can hold.
    """
    packed = {
        name: jax.ShapeDtypeStruct((length,), spec[name].dtype)
        for name in ("tokens", "segment_ids", "loss_mask")
    }
    packed["sequence_ids"] = jax.ShapeDtypeStruct((length,), jnp.int32)
    for name in spec:
        if name.startswith("soft_"):
            shape = (most, *spec[name].shape)
            packed[name] = jax.ShapeDtypeStruct(shape, spec[name].dtype)
    return packed
