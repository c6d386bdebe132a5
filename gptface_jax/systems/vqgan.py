"""Training the VQGAN tokenizer (SPEC A.2.1).

One phase here, the generator: pixel losses at several scales and the codebook
loss. The discriminator is a second Phase of the same System.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping
from gptface_jax.core.types import Phase, System
from gptface_jax.nn import vqgan as nn_vqgan
from gptface_jax.ops import quantize


@dataclasses.dataclass(frozen=True)
class VQGANObjective:
    """Weights of the losses and the care of the codebook.

    Attributes:
      l1, l2: of pixel differences in [-1,1].
      gradient: of differences of finite differences, mean over `scales`.
      scales: pyramid levels of the gradient term (each halves the picture).
      codebook: of the codebook loss.
      beta, beta_on_codebook: see `ops.quantize.codebook_loss`.
      usage_decay: of the moving average of code counts.
      revive_every: steps between revivals of unused codes; 0 for never.
      revive_from, revive_until: fractions of the run in which codes are revived.
      revive_threshold: codes with a smaller share of the mean usage are moved.
      num_candidates: encoder outputs of a batch kept for revival.
    """

    l1: float = 1.0
    l2: float = 0.0
    gradient: float = 0.5
    scales: int = 3
    codebook: float = 1.0
    beta: float = 0.25
    beta_on_codebook: bool = False
    usage_decay: float = 0.98
    revive_every: int = 0
    revive_from: float = 0.0
    revive_until: float = 0.8
    revive_threshold: float = 0.03
    num_candidates: int = 1024


def gradient_loss(image: jax.Array, target: jax.Array, scales: int) -> jax.Array:
    """Mean L1 of horizontal and vertical differences over a pyramid.

    Args:
      image, target: float [B,H,W,C].
      scales: levels; level s is averaged over 2^s x 2^s pixels.

    Returns:
      float32 scalar.
    """
    difference = (image - target).astype(jnp.float32)
    total = 0.0
    for scale in range(scales):
        if scale:
            b, h, w, c = difference.shape
            halves = difference.reshape(b, h // 2, 2, w // 2, 2, c)
            difference = jnp.mean(halves, axis=(2, 4))
        total += jnp.mean(jnp.abs(jnp.diff(difference, axis=1)))
        total += jnp.mean(jnp.abs(jnp.diff(difference, axis=2)))
    return total / (2 * scales)


def psnr(image: jax.Array, target: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio in dB of pictures in [-1,1]; float32 [B]."""
    error = jnp.clip(image, -1.0, 1.0) - target
    mse = jnp.mean(jnp.square(error), axis=(1, 2, 3))
    return -10.0 * jnp.log10(jnp.maximum(mse / 4.0, 1e-10))


def _losses(module, objective: VQGANObjective, params, image, deterministic, rngs):
    reconstruction, aux = module.apply(
        {"params": params}, image, deterministic=deterministic, rngs=rngs
    )
    parts = {
        "l1": jnp.mean(jnp.abs(reconstruction - image)),
        "l2": jnp.mean(jnp.square(reconstruction - image)),
        "gradient": gradient_loss(reconstruction, image, objective.scales),
        "codebook": quantize.codebook_loss(
            aux["z_e"], aux["z_q"], objective.beta, objective.beta_on_codebook
        ),
    }
    loss = sum(getattr(objective, name) * value for name, value in parts.items())
    parts["psnr"] = jnp.mean(psnr(reconstruction, image))
    size = jnp.float32(image.shape[0])
    metrics = {name: (value * size, size) for name, value in parts.items()}
    return loss, aux, metrics


def make_system(config: Mapping[str, Any]) -> System:
    """Builds the trainable system from an experiment config.

    Args:
      config: mapping with `model` (VQGANConfig), `objective` (VQGANObjective),
        `batch_size` and `total_steps`.
    """
    model = from_mapping(nn_vqgan.VQGANConfig, config["model"], "model.")
    objective = from_mapping(VQGANObjective, config["objective"], "objective.")
    module = nn_vqgan.VQGAN(model)
    shape = (model.resolution, model.resolution, model.in_channels)
    total_steps = config["total_steps"]
    tokens_in_batch = config["batch_size"] * model.grid[0] * model.grid[1]
    num_candidates = min(objective.num_candidates, tokens_in_batch)

    def init(key):
        return module.init(key, jnp.zeros((1, *shape)))["params"]

    def init_state():
        return {
            "usage": jnp.full(
                (model.codebook_size,), tokens_in_batch / model.codebook_size
            ),
            "candidates": jnp.zeros((num_candidates, model.embed_dim)),
        }

    def loss_fn(params, state, batch, key, step):
        del step
        deterministic = model.dropout == 0.0
        rngs = None if deterministic else {"dropout": trees.stream(key, "dropout")}
        loss, aux, metrics = _losses(
            module, objective, params, batch["image"], deterministic, rngs
        )
        latents = aux["z_e"].reshape(-1, model.embed_dim)
        pick = jax.random.randint(
            trees.stream(key, "candidates"), (num_candidates,), 0, latents.shape[0]
        )
        decay = objective.usage_decay
        now = quantize.counts(aux["image_ids"], model.codebook_size)
        usage = decay * state["usage"] + (1 - decay) * now
        new_state = {
            "usage": usage,
            "candidates": jax.lax.stop_gradient(latents[pick]),
        }
        one = jnp.float32(1.0)
        metrics["code_perplexity"] = (quantize.perplexity(now), one)
        alive = usage >= 0.1 * jnp.mean(usage)
        metrics["codes_in_use"] = (jnp.mean(alive), one)
        return loss, (new_state, metrics)

    def post_update(params, state, key, step):
        first = round(objective.revive_from * total_steps)
        due = (step % objective.revive_every == 0) & (step >= first)
        due &= step <= objective.revive_until * total_steps
        mean = jnp.mean(state["usage"])
        codebook, dead = quantize.revive(
            params["codebook"],
            state["usage"],
            state["candidates"],
            objective.revive_threshold * mean,
            key,
        )
        params = {
            **params,
            "codebook": jnp.where(due, codebook, params["codebook"]),
        }
        usage = jnp.where(due & dead, mean, state["usage"])
        return params, {**state, "usage": usage}

    def eval_fn(params, state, batch, key):
        del state, key
        loss, aux, metrics = _losses(
            module, objective, params, batch["image"], True, None
        )
        size = jnp.float32(batch["image"].shape[0])
        return {**metrics, "loss": (loss * size, size)}

    return System(
        name="vqgan",
        init=init,
        batch_spec={"image": jax.ShapeDtypeStruct(shape, jnp.float32)},
        phases=(Phase("", ".*", loss_fn),),
        eval_fns={"eval": eval_fn},
        init_state=init_state,
        post_update=post_update if objective.revive_every else None,
    )
