"""Experiments of the toy system, and the row of the registry that says all of it."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np
import toy_system

from gptface_jax.experiments import base, opening, registry
from gptface_jax.train import settings

COLOURS = np.eye(3, dtype=np.float32)


@dataclasses.dataclass(frozen=True)
class Pictures:
    """Pictures of one colour each, with noise; only their number is asked for."""

    count: int
    seed: int

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        if index >= self.count:
            raise IndexError(index)
        return int(index)


def example(index, rng, seed=0):
    """{"image" float32 [4,4,3], "colour" int32}."""
    rng = np.random.default_rng([seed, index])
    colour = rng.integers(3)
    image = COLOURS[colour] + rng.normal(0, 0.2, (4, 4, 3)).astype(np.float32)
    return {"image": image.astype(np.float32), "colour": np.int32(colour)}


def network(seed: int) -> np.ndarray:
    """The weights that never change."""
    return np.random.default_rng(seed).normal(size=(3, 8)).astype(np.float32)


def make(values):
    return toy_system.make_system(values, network(values["objective"]["network"]))


def build(config, data, prepared):
    system = make(settings.plain(config))
    named = base.Records(Pictures(40, 1), example)
    plain = base.Records(Pictures(70, 2), example)
    feeds = {"named": named, "plain": plain}
    held_out = {"names": base.Records(Pictures(20, 3), example)}
    return base.experiment(config, data, system, feeds, held_out)


class Namer:
    """What `load` returns: names colours."""

    def __init__(self, model, weights):
        self.model, self.weights = model, weights

    def name(self, image: np.ndarray) -> str:
        seen = jnp.tanh(image.mean((0, 1))[None] @ self.weights)
        logits, _ = self.model.module.apply({"params": self.model.params}, seen)
        return ("red", "green", "blue")[int(logits.argmax())]


def open_namer(path, tokenizer, dtype):
    model = opening.open_network(path, "toy")
    seed = model.meta.get("training", {}).get("toy", model.meta.get("config"))
    return Namer(model, network(seed["objective"]["network"]))


ROW = registry.Row(
    config=toy_system.ToyConfig,
    module=toy_system.Toy,
    inputs=lambda config: (jnp.zeros((1, config.features)),),
    make=make,
    build=build,
    note=lambda shapes: "a toy",
    facade="toy_experiment:open_namer",
    verbs=("name",),
)
