"""Held-out metrics on faces whose truth is known (SPEC D.7)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gptface_jax.ops import morphable, render
from gptface_jax.systems.facegpt import coefficients, objective
from gptface_jax.systems.facegpt.coefficients import ENTRIES, GROUPS


def degrees(one: jax.Array, other: jax.Array) -> jax.Array:
    """Angle [B] in degrees between rotations by vectors [B,3]."""
    between = jnp.einsum("bij,bij->b", render.rotation(one), render.rotation(other))
    return jnp.rad2deg(jnp.arccos(jnp.clip((between - 1) / 2, -1, 1)))


def light_cosine(one: jax.Array, other: jax.Array) -> jax.Array:
    """Cosine [B] of the directions from which lights [B,9,3] shine."""

    def direction(light):
        return morphable.unit(light.mean(-1)[:, jnp.array([3, 1, 2])])

    return jnp.sum(direction(one) * direction(other), -1)


def errors(basis, coeffs, truth, size: int, focal: float | None):
    """Errors [B] of coefficients by name; both are mappings of `ENTRIES`."""
    heads, wanted = (
        morphable.vertices(basis, c["id_coeffs"], c["exp_coeffs"])
        for c in (coeffs, truth)
    )
    places, real = (
        (render.project(h[:, basis["landmarks"]], c["pose"], size, focal).places + 0.5)
        / size
        for h, c in ((heads, coeffs), (wanted, truth))
    )
    every = {"landmarks": real, "landmark_mask": jnp.ones(real.shape[:2])}
    nme = objective.landmark_error(places, every).mean(-1)
    neutral = jnp.linalg.norm(basis["mean"] - wanted, axis=-1).mean(-1)
    return {
        "nme": nme,
        "vertex_mm": jnp.linalg.norm(heads - wanted, axis=-1).mean(-1),
        "mean_head_vertex_mm": neutral,
        "pose_degrees": degrees(coeffs["pose"][:, :3], truth["pose"][:, :3]),
        "light_cosine": light_cosine(coeffs["sh_light"], truth["sh_light"]),
    }


def make_eval(terms: objective.Terms):
    """Metrics of a held-out batch, by name and what is given: "nme", "text_nll", ..."""
    size, focal = terms.objective.size, terms.objective.focal or None

    def metrics(params, state, constants, batch, key):
        del state
        truth = {entry: batch[entry] for entry in ENTRIES.values()}
        ids = terms.ids(constants, batch)
        coeffs = terms.apply(params, "predicted", ids, None)
        units, wanted = (coefficients.in_units(c) for c in (coeffs, truth))
        count = jnp.float32(len(ids))
        found = errors(constants["basis"], coeffs, truth, size, focal)
        for group in GROUPS:
            found[f"{group}_error"] = jnp.mean((units[group] - wanted[group]) ** 2, -1)
        found["loss"] = sum(found[f"{g}_error"] for g in GROUPS) / len(GROUPS)
        result = {name: (jnp.sum(x), count) for name, x in found.items()}
        step = jnp.int32(terms.first)  # with pixels
        for name, value in terms(params, constants, batch, key, step).items():
            if name in ("photo", "text", "code_nll", "codes"):
                result[f"{name}_term"] = (value * count, count)
        return result

    return metrics
