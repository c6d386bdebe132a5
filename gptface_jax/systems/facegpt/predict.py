"""Heads after a picture, a text or both: expected ones, and drawn ones (SPEC D.3)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.ops import sampling
from gptface_jax.systems.facegpt import coefficients
from gptface_jax.systems.facegpt.coefficients import GROUPS, TOLD
from gptface_jax.systems.facegpt.model import FaceGPT


@dataclasses.dataclass(frozen=True)
class SampleConfig:
    """How heads are drawn.

    Attributes:
      temperature: factor on standard deviations, 0 for the expected head; of the
        discrete scheme that of its codes, 0 for the likeliest ones, whose head is not
        the expected one, see `expected`.
      num_steps: of the discrete scheme, in which all its codes are drawn.
      cfg: classifier-free guidance of the discrete scheme by the text: logits move so
        many times as far from those without a text; 1 for none.
    """

    temperature: float = 1.0
    num_steps: int = 5
    cfg: float = 1.0

    def __post_init__(self):
        if not 0 <= self.temperature <= 10:
            raise ValueError(f"temperature is {self.temperature}; use 0 to 10")
        if self.num_steps < 1 or self.cfg < 0:
            raise ValueError(
                f"num_steps is {self.num_steps} and cfg {self.cfg}; use 1 or more, and "
                "0 or more"
            )


@functools.partial(jax.jit, static_argnames=("module",))
def expected(
    module: FaceGPT,
    params: Any,
    image_ids: jax.Array | None,
    text_ids: jax.Array | None,
    known: Mapping[str, jax.Array] | None = None,
) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
    """The expected head of each input, and how sure it is.

    Args:
      module, params: the model.
      image_ids: int [B,n] codes, or None.
      text_ids: int [B,m] with [PAD], or None.
      known: coefficients [B,...] of some groups in units of a usual deviation, see
        `coefficients.in_units`. They come back as they are; of the discrete scheme the
        model sees their codes, and expects the rest after them.

    Returns:
      Coefficients [B,...] by the names of `coefficients.ENTRIES`; standard deviations
      [B,...] by group in units of a usual deviation, empty for codes.
    """
    variables, known = {"params": params}, known or {}
    if module.config.faces.scheme == "discrete":
        # What all codes together let expect, which training compares with the truth:
        # the likeliest codes mean a head that is further from it.
        given = image_ids if text_ids is None else text_ids
        codes = _known_codes(module, params, known, len(given))
        ids = module.apply(variables, codes, method="codes_to_ids")
        found = module.apply(
            variables, image_ids, text_ids, face_ids=ids, method="predicted"
        )
        return _with(found, known), {}
    means, variances = module.apply(
        variables, image_ids, text_ids, method="face_outputs"
    )
    deviations = {g: jnp.exp(0.5 * variances[g]) for g in GROUPS}
    return _with(coefficients.to_coefficients(means), known), deviations


@functools.partial(jax.jit, static_argnames=("module", "config"))
def drawn(
    module: FaceGPT, params: Any, image_ids: jax.Array | None,
    text_ids: jax.Array | None, key: jax.Array, config: SampleConfig,
    known: Mapping[str, jax.Array] | None = None,
) -> dict[str, jax.Array]:  # fmt: skip
    """Heads by chance, one for each input; what a text does not tell is expected.

    Args:
      module, params, image_ids, text_ids, known: see `expected`.
      key: of the choices.
      config: see there.
    """
    known = known or {}
    if module.config.faces.scheme == "discrete":
        given = image_ids if text_ids is None else text_ids
        start = _known_codes(module, params, known, len(given))
        codes = _codes(module, params, image_ids, text_ids, start, key, config)
        units = module.apply({"params": params}, codes, method="decode_codes")
        return coefficients.from_units({**units, **known})
    means, variances = module.apply(
        {"params": params}, image_ids, text_ids, method="face_outputs"
    )
    units = coefficients.in_units(coefficients.to_coefficients(means))
    for group, one in zip(TOLD, jax.random.split(key, len(TOLD))):
        noise = jax.random.normal(one, units[group].shape)
        deviation = jnp.exp(0.5 * variances[group])
        units[group] += config.temperature * deviation * noise
    return coefficients.from_units({**units, **known})


def _with(coeffs, known) -> dict[str, jax.Array]:
    """Coefficients with those of the known groups."""
    if not known:
        return coeffs
    return coefficients.from_units({**coefficients.in_units(coeffs), **known})


def _known_codes(module, params, known, batch: int) -> jax.Array:
    """Codes int32 [B,F] of the discrete scheme; -1 where a group is not known."""
    faces = module.config.faces
    unknown = jnp.full((batch, faces.positions), -1, jnp.int32)
    if not known:
        return unknown
    units = {g: known.get(g, jnp.zeros((batch, n))) for g, n in faces.sizes.items()}
    codes = module.apply({"params": params}, units, method="encode_codes")
    told = jnp.repeat(jnp.array([g in known for g in GROUPS]), faces.slots)
    return jnp.where(told, codes, unknown)


def _codes(
    module, params, image_ids, text_ids, start: jax.Array, key, config: SampleConfig
) -> jax.Array:
    """Codes int32 [B,F], the surest first: each step knows those before.

    Those of `start` that are known, 0 or more, stay.
    """
    faces = module.config.faces
    each = -(-faces.positions // config.num_steps)

    def logits_of(image, text, ids):
        return module.apply({"params": params}, image, text, ids, method="code_logits")

    def step(number, codes):
        ids = module.apply({"params": params}, codes, method="codes_to_ids")
        logits = logits_of(image_ids, text_ids, ids)
        if config.cfg != 1 and text_ids is not None:
            pad = module.config.vocab.pad_id
            without = logits_of(image_ids, jnp.full_like(text_ids, pad), ids)
            logits = without + config.cfg * (logits - without)
        flat = logits.reshape(-1, faces.codes)
        found, _ = sampling.sample(
            flat, config.temperature, jax.random.fold_in(key, number)
        )
        found = found.reshape(codes.shape)
        sure = jnp.take_along_axis(jax.nn.log_softmax(logits), found[..., None], -1)
        sure = jnp.where(codes < 0, sure[..., 0], -jnp.inf)
        rank = jnp.argsort(jnp.argsort(-sure, axis=1), axis=1)
        return jnp.where((codes < 0) & (rank < each), found, codes)

    return jax.lax.fori_loop(0, config.num_steps, step, start)
