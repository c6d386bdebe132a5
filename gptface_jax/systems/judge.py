"""Training the attribute classifier that judges pictures, apart from all else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gptface_jax.core.config import from_mapping
from gptface_jax.core.types import Evaluation, Feed, Phase, System
from gptface_jax.nn.classifier import Classifier, ClassifierConfig


def make_system(config: Mapping[str, Any]) -> System:
    """The trainable system of an experiment config.

    Args:
      config: mapping with `model` (ClassifierConfig) and `batch_size`.
    """
    model = from_mapping(ClassifierConfig, config["model"], "model.")
    module = Classifier(model)
    shape = (model.resolution, model.resolution, 3)

    def init(key):
        return module.init(key, jnp.zeros((1, *shape)))["params"]

    def parts(params, batch, deterministic, key):
        rngs = None if deterministic else {"dropout": key}
        logits = module.apply(
            {"params": params}, batch["image"], deterministic=deterministic, rngs=rngs
        )
        nll = optax.sigmoid_binary_cross_entropy(logits, batch["labels"])
        mask = batch["label_mask"]
        right = ((logits > 0) == (batch["labels"] > 0.5)).astype(jnp.float32)
        total, count = (nll * mask).sum(), jnp.maximum(mask.sum(), 1.0)
        return logits, total, count, (right * mask).sum()

    def loss_fn(params, state, constants, batches, key, step):
        del constants, step
        _, total, count, right = parts(params, batches["pictures"], False, key)
        metrics = {"loss": (total, count), "accuracy": (right, count)}
        return total / count, (state, metrics)

    def metrics_fn(params, state, constants, batch, key):
        """Loss, and hits and totals by attribute and class."""
        del state, constants
        logits, total, count, _ = parts(params, batch, True, key)
        metrics = {"loss": (total, count)}
        for i, name in enumerate(model.attributes):
            said = logits[:, i] > 0
            for value, suffix in ((1, "present"), (0, "absent")):
                here = (batch["labels"][:, i] == value) & (
                    batch["label_mask"][:, i] > 0
                )
                hits = jnp.sum((said == bool(value)) & here)
                metrics[f"{name}_{suffix}"] = (hits, jnp.sum(here))
        return metrics

    labels = jax.ShapeDtypeStruct((len(model.attributes),), jnp.float32)
    spec = {
        "image": jax.ShapeDtypeStruct(shape, jnp.float32),
        "labels": labels,
        "label_mask": labels,
    }
    return System(
        name="judge",
        init=init,
        feeds={"pictures": Feed(spec, config["batch_size"])},
        phases=(Phase("", ".*", loss_fn),),
        evaluations={"eval": Evaluation(metrics_fn, spec)},
        unit="images",
    )
