"""A system of its own: pictures' colours from two feeds, by what a network sees.

Feed "named" has pictures and the names of their colours, "plain" pictures alone. A
network that never changes (a constant) turns pictures into features; the system learns
to name the colour, and to give the features back from a few numbers. Its state is the
mean of the features.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from gptface_jax.core.config import from_mapping
from gptface_jax.core.types import Evaluation, Feed, Phase, System


@dataclasses.dataclass(frozen=True)
class ToyConfig:
    """Sizes.

    Attributes:
      features: of the network that never changes.
      width: numbers that stand for them.
      colours: that have names.
    """

    features: int = 8
    width: int = 4
    colours: int = 3


class Toy(nn.Module):
    """features [B,F] -> (logits [B,C], features again [B,F])."""

    config: ToyConfig

    @nn.compact
    def __call__(self, features: jax.Array) -> tuple[jax.Array, jax.Array]:
        c = self.config

        def dense(size, names, name):
            init = nn.with_logical_partitioning(nn.initializers.lecun_normal(), names)
            return nn.Dense(size, use_bias=False, kernel_init=init, name=name)

        code = jnp.tanh(dense(c.width, ("embed", "mlp"), "encode")(features))
        logits = dense(c.colours, ("mlp", "classes"), "name")(code)
        return logits, dense(c.features, ("mlp", "embed"), "decode")(code)


def make_system(config: Mapping[str, Any], network: Any) -> System:
    """The system; `network` float [3,F] turns mean colours into features."""
    model = from_mapping(ToyConfig, config["model"], "model.")
    module = Toy(model)
    image = {"image": jax.ShapeDtypeStruct((4, 4, 3), jnp.float32)}
    named = {**image, "colour": jax.ShapeDtypeStruct((), jnp.int32)}

    def init(key):
        return module.init(key, jnp.zeros((1, model.features)))["params"]

    def features(constants, batch):
        return jnp.tanh(batch["image"].mean((1, 2)) @ constants["network"])

    def answers(params, constants, batch):
        seen = features(constants, batch)
        return seen, *module.apply({"params": params}, seen)

    def loss(params, state, constants, batches, key, step):
        del key, step
        _, logits, _ = answers(params, constants, batches["named"])
        wanted = batches["named"]["colour"]
        naming = optax.softmax_cross_entropy_with_integer_labels(logits, wanted)
        seen, _, again = answers(params, constants, batches["plain"])
        error = jnp.square(again - (seen - state["mean"])).mean(-1)
        state = {"mean": 0.9 * state["mean"] + 0.1 * seen.mean(0)}
        metrics = {
            "naming": (naming.sum(), naming.size), "error": (error.sum(), error.size)
        }  # fmt: skip
        return naming.mean() + error.mean(), (state, metrics)

    def accuracy(params, state, constants, batch, key):
        _, logits, _ = answers(params, constants, batch)
        right = logits.argmax(-1) == batch["colour"]
        wrong = -jnp.take_along_axis(
            jax.nn.log_softmax(logits), batch["colour"][:, None], 1
        )
        count = right.size
        return {"accuracy": (right.sum(), count), "loss": (wrong.sum(), count)}

    sizes = config["batch_size"]
    return System(
        name="toy",
        init=init,
        feeds={
            "named": Feed(named, sizes["named"]),
            "plain": Feed(image, sizes["plain"]),
        },
        phases=(Phase("", ".*", loss),),
        evaluations={"names": Evaluation(accuracy, named)},
        constants={"network": network},
        init_state=lambda: {"mean": jnp.zeros(model.features)},
        unit="images",
        resumable=("model.note",),
    )
