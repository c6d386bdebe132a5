"""Experiments that train the attribute classifier."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp

from gptface_jax.data import transforms
from gptface_jax.experiments import base, registry
from gptface_jax.nn.classifier import Classifier, ClassifierConfig
from gptface_jax.systems import judge
from gptface_jax.train import settings


def _build(config: Any, data: base.DataConfig, prepared: None) -> base.Experiment:
    system = judge.make_system(settings.plain(config))
    size = system.feeds["pictures"].spec["image"].shape[0]
    attributes = tuple(config["model"]["attributes"])
    examples = base.pictures(size)
    source, held_out = base.open_train(data, examples), base.open_eval(data, examples)
    augmented = transforms.LabelTransform(size, attributes)
    plain = transforms.LabelTransform(size, attributes, augment=False)
    return base.experiment(
        config,
        data,
        system,
        {"pictures": base.Records(source, augmented)},
        {"eval": held_out and base.Records(held_out, plain)},
    )


ROW = registry.Row(
    config=ClassifierConfig,
    module=Classifier,
    inputs=lambda config: (jnp.zeros((1, config.resolution, config.resolution, 3)),),
    make=judge.make_system,
    build=_build,
)
