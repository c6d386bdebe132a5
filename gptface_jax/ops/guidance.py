"""Arithmetic of inference-time parameter shifts (SPEC A.9.3, A.9.4).

A rule maps parameters and the gradient g of log p(q=1) to shifted parameters.
Everything is a flat dict {path: array}; arithmetic is float32.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

RULES = ("literal", "ascent", "ascent_norm", "ascent_layer")
EPSILON = 1e-12


def global_norm(tree) -> jax.Array:
    """L2 norm over all leaves, float32 scalar."""
    squares = [
        jnp.sum(jnp.square(x.astype(jnp.float32))) for x in jax.tree.leaves(tree)
    ]
    return jnp.sqrt(sum(squares))


def direction(rule: str, params, gradient, step_size: float):
    """The change that `rule` makes at full step, before any trust region.

    Args:
      rule: "literal"       lambda * (g - theta)              (equation 7)
            "ascent"        lambda * g
            "ascent_norm"   eta * |theta| * g / |g|           (global norms)
            "ascent_layer"  the same for each tensor apart.
      params: the parameters that guidance may change.
      gradient: same structure.
      step_size: lambda or eta.

    Returns:
      Same structure, float32.
    """
    if rule == "literal":
        return jax.tree.map(lambda p, g: step_size * (g - p), params, gradient)
    if rule == "ascent":
        return jax.tree.map(lambda g: step_size * g, gradient)
    if rule == "ascent_norm":
        scale = step_size * global_norm(params) / (global_norm(gradient) + EPSILON)
        return jax.tree.map(lambda g: scale * g, gradient)
    if rule == "ascent_layer":

        def one(p, g):
            return step_size * global_norm(p) * g / (global_norm(g) + EPSILON)

        return jax.tree.map(one, params, gradient)
    raise ValueError(f"guidance rule {rule!r} is none of {', '.join(RULES)}")


def kl_divergence(log_p, log_q, mask) -> jax.Array:
    """Mean over all masked positions, of every side, of KL(p || q) in nats.

    Args:
      log_p, log_q: side -> float [P,V] log-probabilities (may hold -inf in both).
      mask: side -> bool [P].

    Returns:
      float32 scalar, 0 where nothing is masked.
    """
    total, count = jnp.float32(0.0), 0
    for side, p in log_p.items():
        difference = jnp.where(jnp.isfinite(p), p - log_q[side], 0.0)
        kl = jnp.sum(jnp.exp(p) * difference, axis=-1)
        total, count = total + jnp.sum(kl * mask[side]), count + jnp.sum(mask[side])
    return total / jnp.maximum(count, 1)


def trust_scale(kl: jax.Array, kl_max: float) -> jax.Array:
    """min(1, sqrt(kl_max / kl)): KL is about quadratic in the step."""
    return jnp.minimum(1.0, jnp.sqrt(kl_max / jnp.maximum(kl, EPSILON)))


def fuse(log_p: jax.Array, log_q: jax.Array, gamma: float) -> jax.Array:
    """Log of p^gamma q^(1-gamma) up to a constant, or mixed logits; -inf stays."""
    finite = jnp.isfinite(log_p)
    return jnp.where(finite, gamma * log_p + (1 - gamma) * log_q, -jnp.inf)
