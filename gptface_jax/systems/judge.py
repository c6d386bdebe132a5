"""A small attribute classifier, trained apart, that judges edited pictures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import linen as nn

from gptface_jax.core.config import from_mapping
from gptface_jax.core.types import Phase, System
from gptface_jax.nn import conv as nn_conv


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """The classifier.

    Attributes:
      resolution: side of the pictures in pixels.
      attributes: what it judges, in the order of its outputs.
      channels: width after each halving of the picture.
      groups: of every GroupNorm.
      dropout: before the output layer.
      dtype: of the activations.
    """

    resolution: int = 64
    attributes: tuple[str, ...] = ()
    channels: tuple[int, ...] = (32, 64, 128, 192)
    groups: int = 8
    dropout: float = 0.2
    dtype: str = "float32"


class Judge(nn.Module):
    """[B,S,S,3] in [-1,1] -> logits float32 [B,A]."""

    config: JudgeConfig

    @nn.compact
    def __call__(self, image: jax.Array, deterministic: bool = True) -> jax.Array:
        c = self.config
        x = image
        for i, width in enumerate(c.channels):
            x = nn_conv.conv(width, 3, f"conv_{i}", c.dtype, 2)(x)
            x = nn_conv.ResidualBlock(width, c.groups, 0.0, c.dtype, name=f"block_{i}")(
                x, deterministic
            )
        x = nn.swish(nn_conv.group_norm(x.shape[-1], c.groups, "norm_out", c.dtype)(x))
        # Where something is matters (a hat, a tie): keep the coarse layout.
        x = x.reshape(x.shape[0], -1)
        x = nn.Dropout(c.dropout)(x, deterministic=deterministic)
        init = nn.with_logical_partitioning(
            nn.initializers.lecun_normal(), ("embed", None)
        )
        return nn.Dense(len(c.attributes), kernel_init=init, name="output")(x).astype(
            jnp.float32
        )


def make_system(config: Mapping[str, Any]) -> System:
    """Builds the trainable system; `config["model"]` is a JudgeConfig."""
    model = from_mapping(JudgeConfig, config["model"], "model.")
    module = Judge(model)
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

    def loss_fn(params, state, batch, key, step):
        del step
        _, total, count, right = parts(params, batch, False, key)
        return total / count, (state, {"accuracy": (right, count)})

    def eval_fn(params, state, batch, key):
        """Loss, and hits and totals by attribute and class."""
        del state
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

    return System(
        name="judge",
        init=init,
        batch_spec={
            "image": jax.ShapeDtypeStruct(shape, jnp.float32),
            "labels": jax.ShapeDtypeStruct((len(model.attributes),), jnp.float32),
            "label_mask": jax.ShapeDtypeStruct((len(model.attributes),), jnp.float32),
        },
        phases=(Phase("", ".*", loss_fn),),
        eval_fns={"eval": eval_fn},
    )
