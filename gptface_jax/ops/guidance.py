"""Arithmetic of inference-time parameter shifts (SPEC A.9.3, A.9.4).

A rule says by how much parameters theta and the gradient g of log p(q=1) count in the
shifted parameters; arithmetic is float32.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

RULES = ("literal", "ascent", "ascent_norm", "ascent_layer")
# Against division by 0 alone: far below the norm of any gradient that says something.
EPSILON = 1e-12


def coefficients(
    rule: str,
    params: dict[str, jax.Array],
    gradient: dict[str, jax.Array],
    step_size: float,
) -> tuple[float, dict[str, jax.Array]]:
    """Coefficients of the update keep * theta + coefficient * g that a rule makes.

    Args:
      rule: "literal"       (1 - lambda) * theta + lambda * g    (equation 7)
            "ascent"        theta + lambda * g
            "ascent_norm"   theta + eta * |theta| * g / |g|      (global norms)
            "ascent_layer"  the same for each tensor of each layer apart.
      params: path -> squared norm, float32, of stacked layers one each; of the
        parameters that guidance may change.
      gradient: the same of log p(q=1).
      step_size: lambda or eta.

    Returns:
      (keep, path -> coefficient of the shape of its norm).
    """
    if rule not in RULES:
        raise ValueError(f"guidance rule {rule!r} is none of {', '.join(RULES)}")
    # Norms come of stacked layers one each, so that the division is by layer as it
    # stands.
    if rule == "ascent_layer":
        return 1.0, {
            p: step_size * jnp.sqrt(params[p]) / (jnp.sqrt(g) + EPSILON)
            for p, g in gradient.items()
        }
    factor = jnp.float32(step_size)
    if rule == "ascent_norm":
        theta, g = (
            jnp.sqrt(sum(jnp.sum(x) for x in squares.values()))
            for squares in (params, gradient)
        )
        # The step is then a share of the parameters' own length, whatever the
        # gradient's is: one eta suits early iterations with steep slopes and late ones
        # with shallow ones.
        factor = step_size * theta / (g + EPSILON)
    # As printed, equation 7 also shrinks the parameters towards 0.
    keep = 1.0 - step_size if rule == "literal" else 1.0
    return keep, dict.fromkeys(gradient, factor)


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
        # Special ids have -inf in both: -inf - -inf would be NaN, where 0 log 0 is
        # meant.
        difference = jnp.where(jnp.isfinite(p), p - log_q[side], 0.0)
        kl = jnp.sum(jnp.exp(p) * difference, axis=-1)
        total, count = total + jnp.sum(kl * mask[side]), count + jnp.sum(mask[side])
    return total / jnp.maximum(count, 1)


def trust_scale(kl: jax.Array, kl_max: float) -> jax.Array:
    """Factor on a step that went too far: min(1, sqrt(kl_max / kl))."""
    return jnp.minimum(1.0, jnp.sqrt(kl_max / jnp.maximum(kl, EPSILON)))


def fuse(log_p: jax.Array, log_q: jax.Array, gamma: float) -> jax.Array:
    """Log of p^gamma q^(1-gamma) up to a constant, or mixed logits; -inf stays."""
    # 0 * -inf is NaN: at gamma 0 or 1 a forbidden id would no longer be forbidden.
    finite = jnp.isfinite(log_p)
    return jnp.where(finite, gamma * log_p + (1 - gamma) * log_q, -jnp.inf)
