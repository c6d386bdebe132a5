"""Linear morphable heads: coefficients to vertices, colours and normals (SPEC D.2).

A basis is a mapping of arrays, as `data.facemodel.FaceModel` holds them: "mean" [V,3],
"identity" [I,V,3], "expression" [E,V,3] in mm, "albedo_mean" [V,3], "albedo" [A,V,3] in
0..1, "triangles" int32 [F,3], "landmarks" int32 [68].
"""

from __future__ import annotations

from collections.abc import Mapping

import jax
import jax.numpy as jnp

Basis = Mapping[str, jax.Array]
ARRAYS = (
    "mean", "identity", "expression", "albedo_mean", "albedo", "triangles", "landmarks",
)  # fmt: skip


def vertices(basis: Basis, id_coeffs: jax.Array, exp_coeffs: jax.Array) -> jax.Array:
    """Vertices float32 [B,V,3] mm.

    Args:
      basis: see above.
      id_coeffs: [B,I] standard deviations of identity.
      exp_coeffs: [B,E] weights of expression shapes, 0..1.
    """
    # 2-D products: XLA runs those best on a CPU.
    modes = jnp.concatenate([basis["identity"], basis["expression"]])
    coeffs = jnp.concatenate([id_coeffs, exp_coeffs], axis=-1)
    offset = coeffs @ modes.reshape(len(modes), -1)
    return basis["mean"] + offset.reshape(-1, *basis["mean"].shape)


def colours(basis: Basis, albedo_coeffs: jax.Array) -> jax.Array:
    """Albedo float32 [B,V,3], which may leave 0..1, of coefficients [B,A]."""
    flat = basis["albedo"].reshape(len(basis["albedo"]), -1)
    offset = albedo_coeffs @ flat
    return basis["albedo_mean"] + offset.reshape(-1, *basis["albedo_mean"].shape)


def normals(vertices: jax.Array, triangles: jax.Array) -> jax.Array:
    """Unit normals [B,V,3]: sums of those of the triangles, by their area.

    A vertex without area around it has 0, and so has its gradient.
    """
    a, b, c = (vertices[:, triangles[:, i]] for i in range(3))
    cross = jnp.cross(b - a, c - a)  # [B,F,3]
    total = jnp.zeros_like(vertices)
    for i in range(3):
        total = total.at[:, triangles[:, i]].add(cross)
    return unit(total)


def unit(x: jax.Array, least: float = 1e-12) -> jax.Array:
    """Vectors [...,3] of length 1, whose gradient is finite where they are 0."""
    square = jnp.sum(x * x, axis=-1, keepdims=True)
    long = square > least
    return jnp.where(long, x * jax.lax.rsqrt(jnp.where(long, square, 1.0)), 0.0)
