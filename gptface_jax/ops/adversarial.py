"""Losses of adversarial training and the weight that balances them (SPEC A.2.1)."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

MAX_WEIGHT = 1e4
LOSSES = ("hinge", "vanilla")


def discriminator_loss(real: jax.Array, fake: jax.Array, kind: str) -> jax.Array:
    """The discriminator's loss.

    Args:
      real, fake: logits of photographs and of reconstructions, any shape.
      kind: "hinge": mean(relu(1 - real) + relu(1 + fake)) / 2, 1 at the start;
        "vanilla": mean(softplus(-real) + softplus(fake)) / 2, log 2 at the start.

    Returns:
      float32 scalar.
    """
    real, fake = real.astype(jnp.float32), fake.astype(jnp.float32)
    if kind == "hinge":
        parts = jax.nn.relu(1 - real), jax.nn.relu(1 + fake)
    elif kind == "vanilla":
        parts = jax.nn.softplus(-real), jax.nn.softplus(fake)
    else:
        raise ValueError(f"adversarial loss {kind!r} is unknown; use one of {LOSSES}")
    return sum(jnp.mean(part) for part in parts) / 2


def generator_loss(fake: jax.Array) -> jax.Array:
    """The generator's loss -mean(fake logits), as in the published VQGANs."""
    return -jnp.mean(fake.astype(jnp.float32))


def adaptive_weight(
    nll_grad: jax.Array, adversarial_grad: jax.Array, scale: float
) -> jax.Array:
    """Weight that makes the adversarial slope `scale` times the reconstruction's.

    scale * clip(|nll_grad| / (|adversarial_grad| + 1e-4), 0, 1e4), without gradient.

    Args:
      nll_grad, adversarial_grad: of the two losses at the decoder's last weights.
      scale: 0.8 in the published models.
    """
    norms = [jnp.linalg.norm(jnp.ravel(g)) for g in (nll_grad, adversarial_grad)]
    ratio = jnp.clip(norms[0] / (norms[1] + 1e-4), 0.0, MAX_WEIGHT)
    return jax.lax.stop_gradient(scale * ratio)


def gradient_penalty(
    discriminate: Callable[[jax.Array], jax.Array], image: jax.Array
) -> jax.Array:
    """R1 (Mescheder et al. 2018): half the mean squared slope in the pixels.

    Args:
      discriminate: image [B,H,W,3] -> logits.
      image: photographs.
    """
    slope = jax.grad(lambda x: jnp.sum(discriminate(x)))(image)
    return jnp.mean(jnp.sum(jnp.square(slope), axis=(1, 2, 3))) / 2


def ramp(step: jax.Array, start: float, length: float) -> jax.Array:
    """Factor 0 before update `start`, 1 from `start + length` on, linear between."""
    return jnp.clip((step - start) / jnp.maximum(length, 1e-6), 0.0, 1.0)
