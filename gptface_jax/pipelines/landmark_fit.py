"""A head fitted to 68 points alone: what landmarks tell without any training."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gptface_jax.data.facemodel import FaceModel
from gptface_jax.ops import render
from gptface_jax.systems.facegpt import coefficients, objective

_STEPS, _RATE = 300, 0.05
_PRIOR = 2e-4  # of squared coefficients, beside squared distances by the face's size


def fit(model: FaceModel, landmarks: np.ndarray) -> dict[str, np.ndarray]:
    """Coefficients of heads whose points lie on given ones, the likeliest such.

    Identity, expression and pose; colours and light are the mean head's. By Adam from
    the mean head, weak perspective.

    Args:
      model: the face model.
      landmarks: float [B,68,2] (x, y) as shares of the picture's side; NaN where one is
        not known.

    Returns:
      The entries of `coefficients.ENTRIES`, float32 [B,...].
    """
    basis = {
        "mean": model.mean[model.landmarks],
        "identity": model.identity[:, model.landmarks],
        "expression": model.expression[:, model.landmarks],
    }
    known = np.isfinite(landmarks).all(-1)
    points = np.where(known[..., None], landmarks, 0)
    found = _fitted(
        jax.tree.map(jnp.asarray, basis), jnp.float32(points), jnp.float32(known)
    )
    batch, count = len(landmarks), len(model.albedo)
    zeros = np.zeros((batch, count), np.float32)
    light = np.tile(np.asarray(render.ambient()), (batch, 1, 1))
    rest = {"albedo_coeffs": zeros, "sh_light": light}
    return {**jax.tree.map(np.asarray, found), **rest}


@functools.partial(jax.jit)
def _fitted(basis, points, known):
    batch, modes = len(points), len(basis["identity"])
    shapes = len(basis["expression"])
    start = {
        "id": jnp.zeros((batch, modes)), "exp": jnp.zeros((batch, shapes)),
        "pose": jnp.zeros((batch, coefficients.POSE)),
    }  # fmt: skip
    size = objective.face_size(points, known)
    rest = {"albedo": jnp.zeros((batch, 1)), "light": jnp.zeros((batch, 27))}

    def loss(units):
        coeffs = coefficients.to_coefficients({**units, **rest})
        heads = (
            basis["mean"]
            + jnp.einsum("bi,ivc->bvc", coeffs["id_coeffs"], basis["identity"])
            + jnp.einsum("be,evc->bvc", coeffs["exp_coeffs"], basis["expression"])
        )
        places = render.project(heads, coeffs["pose"], 1).places + 0.5
        square = jnp.sum((places - points) ** 2, -1) / size**2
        fitted = jnp.sum(square * known, 1) / jnp.maximum(jnp.sum(known, 1), 1.0)
        weights = coeffs["exp_coeffs"] / 0.25
        prior = jnp.sum(units["id"] ** 2, -1) + jnp.sum(weights**2, -1)
        return jnp.sum(fitted + _PRIOR * prior)

    adam = optax.adam(optax.cosine_decay_schedule(_RATE, _STEPS))

    def step(_, carry):
        units, state = carry
        change, state = adam.update(jax.grad(loss)(units), state)
        return optax.apply_updates(units, change), state

    units, _ = jax.lax.fori_loop(0, _STEPS, step, (start, adam.init(start)))
    coeffs = coefficients.to_coefficients({**units, **rest})
    return {name: coeffs[name] for name in ("id_coeffs", "exp_coeffs", "pose")}
