"""Points as blobs on a map and back (SPEC C.4, C.5).

Points are (x, y) as shares of the sides: the middle of cell i of n is (i + 0.5) / n.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp


def painted(points: jax.Array, size: tuple[int, int], radius: float) -> jax.Array:
    """Maps float32 [B,h,w,P] with a blob at each point.

    exp(-8 r^2 / radius^2) where the distance r is at most the radius, else 0, r in
    cells; of a point outside, the part that lies inside.

    Args:
      points: float [B,P,2], shares of the sides; NaN paints nothing.
      size: (h, w) of the maps.
      radius: in cells; the standard deviation is a quarter of it.
    """
    h, w = size
    points = points.astype(jnp.float32)
    dx = jnp.arange(w) - (points[..., 0, None] * w - 0.5)  # [B,P,w]
    dy = jnp.arange(h) - (points[..., 1, None] * h - 0.5)  # [B,P,h]
    square = jnp.square(dy)[..., None] + jnp.square(dx)[..., None, :]  # [B,P,h,w]
    blob = jnp.exp(-8 * square / radius**2)
    inside = square <= radius**2  # False for NaN
    return jnp.moveaxis(jnp.where(inside, blob, 0.0), 1, -1)


def centroids(weights: jax.Array) -> jax.Array:
    """Points float32 [B,P,2]: the mean place of each map, by its weights.

    Args:
      weights: float [B,h,w,P], not negative; their sum counts as 1e-6 at least, so that
        an empty map has its point at the middle of the first cell.
    """
    weights = weights.astype(jnp.float32)
    _, h, w, _ = weights.shape
    total = jnp.maximum(jnp.sum(weights, (1, 2)), 1e-6)  # [B,P]
    x = jnp.einsum("bhwp,w->bp", weights, jnp.arange(w, dtype=jnp.float32)) / total
    y = jnp.einsum("bhwp,h->bp", weights, jnp.arange(h, dtype=jnp.float32)) / total
    return jnp.stack([(x + 0.5) / w, (y + 0.5) / h], -1)
