"""Groups of coefficients of a 3D face, and how a network's outputs become them.

Outputs are in units of a usual deviation, 0 for the mean head without expression in
plain light before the camera (SPEC D.3).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from gptface_jax.ops import render

GROUPS = ("id", "exp", "albedo", "light", "pose")
# Group -> the entry of batches and of records, see `data.record`.
ENTRIES = {
    "id": "id_coeffs", "exp": "exp_coeffs", "albedo": "albedo_coeffs",
    "light": "sh_light", "pose": "pose",
}  # fmt: skip
# Groups that a text says something about.
TOLD = ("id", "exp", "albedo")
SCHEMES = ("grouped", "single", "discrete")
LIGHT, POSE = 27, 6
_EXPRESSION = 0.25  # a usual weight of a shape
_REST = -2.3  # where the sigmoid below gives a weight of about 0
_LIGHT = 0.35
_POSE = (0.3, 0.3, 0.15, 0.08, 0.08, 0.12)
_SCALE = 0.12  # logarithm of the scale at which a head fills the picture


@dataclasses.dataclass(frozen=True)
class FacesConfig:
    """3D faces of a model.

    Attributes:
      identity, expression, albedo: coefficients of the face model.
      scheme: "grouped", a token for each of identity, expression, albedo, light and
        pose; "single", one for all; or "discrete", several codes for each group, which
        can be masked and sampled as other tokens are.
      slots: tokens of a group of the discrete scheme.
      codes: entries of the codebook of each slot.
      code_width: numbers of a code.
    """

    identity: int = 40
    expression: int = 53
    albedo: int = 24
    scheme: str = "grouped"
    slots: int = 4
    codes: int = 64
    code_width: int = 16

    def __post_init__(self):
        if self.scheme not in SCHEMES:
            raise ValueError(f"scheme {self.scheme!r} is none of {', '.join(SCHEMES)}")
        for name in ("identity", "expression", "albedo", "slots", "codes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} is {getattr(self, name)}; use 1 or more")

    @property
    def sizes(self) -> dict[str, int]:
        """Coefficients of each group."""
        numbers = (self.identity, self.expression, self.albedo, LIGHT, POSE)
        return dict(zip(GROUPS, numbers))

    @property
    def positions(self) -> int:
        """Tokens of a face in a sequence."""
        each = {"single": 1, "grouped": len(GROUPS)}
        return each.get(self.scheme, len(GROUPS) * self.slots)

    @property
    def vocabulary(self) -> int:
        """Ids that the scheme adds to the vocabulary."""
        if self.scheme == "single":
            return 1
        discrete = self.scheme == "discrete"
        return len(GROUPS) + discrete * self.positions * self.codes


def split(values: jax.Array, faces: FacesConfig) -> dict[str, jax.Array]:
    """The groups of numbers [...,150] that stand one behind the other."""
    found, start = {}, 0
    for group, size in faces.sizes.items():
        found[group] = values[..., start : start + size]
        start += size
    return found


def _clipped(weights: jax.Array) -> jax.Array:
    """Weights of expressions within 0..1, whose gradient goes through unclipped.

    With that of the clip, 0, a weight that once left the range would never return.
    """
    clipped, still = jnp.clip(weights, 0.0, 1.0), jax.lax.stop_gradient
    # Written so that the value is exactly the clipped one, and the slope exactly 1.
    return clipped + (weights - still(weights)) - (clipped - still(clipped))


def to_coefficients(outputs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Coefficients by the names of `ENTRIES`, of outputs [B,...] by group."""
    exp = jax.nn.sigmoid(outputs["exp"] + _REST) * 1.2 - 0.1
    light = render.ambient() + _LIGHT * outputs["light"].reshape(-1, 9, 3)
    start = jnp.array([0, 0, 0, 0, 0, _SCALE])
    return {
        "id_coeffs": outputs["id"],
        "exp_coeffs": _clipped(exp),
        "albedo_coeffs": outputs["albedo"],
        "sh_light": light,
        "pose": start + jnp.array(_POSE) * outputs["pose"],
    }


def in_units(coeffs: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Coefficients in units of a usual deviation, [B,...] by group.

    What losses and codes compare; of expressions the weights and not what a sigmoid
    makes them of.
    """
    light = coeffs["sh_light"] - render.ambient()
    start = jnp.array([0, 0, 0, 0, 0, _SCALE])
    return {
        "id": coeffs["id_coeffs"],
        "exp": coeffs["exp_coeffs"] / _EXPRESSION,
        "albedo": coeffs["albedo_coeffs"],
        "light": light.reshape(-1, LIGHT) / _LIGHT,
        "pose": (coeffs["pose"] - start) / jnp.array(_POSE),
    }


def from_units(units: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The inverse of `in_units`; weights of expressions are clipped to 0..1."""
    start = jnp.array([0, 0, 0, 0, 0, _SCALE])
    return {
        "id_coeffs": units["id"],
        "exp_coeffs": _clipped(units["exp"] * _EXPRESSION),
        "albedo_coeffs": units["albedo"],
        "sh_light": render.ambient() + _LIGHT * units["light"].reshape(-1, 9, 3),
        "pose": start + jnp.array(_POSE) * units["pose"],
    }
