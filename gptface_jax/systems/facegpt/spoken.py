"""Heads as tokens that a sequence model says: [F_ID], then a code of every slot.

For answers that end in a head (SPEC D.3), of the scheme "discrete":

    a happy person with blond hair [F_ID] c_1 c_2 ... c_20 [SEP]
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.systems.facegpt import coefficients
from gptface_jax.systems.facegpt.coefficients import GROUPS
from gptface_jax.systems.facegpt.model import FaceGPT, FaceGPTConfig


def ranges(config: FaceGPTConfig) -> tuple[tuple[int, int], ...]:
    """Joint ids [start, stop) that each token of a head may be; [F_ID] begins it.

    Raises:
      ValueError: a scheme whose heads are no codes.
    """
    faces, size = config.faces, config.vocab.size
    if faces.scheme != "discrete":
        raise ValueError(
            f"model.faces.scheme is '{faces.scheme}'; answers end in heads of the "
            "scheme 'discrete'"
        )
    first = size + len(GROUPS)
    starts = range(first, first + faces.positions * faces.codes, faces.codes)
    return ((size, size + 1), *((start, start + faces.codes) for start in starts))


def tokens_of(
    module: FaceGPT, params: Any, coeffs: Mapping[str, jax.Array]
) -> jax.Array:
    """Joint ids int32 [B,1+F] of heads by their coefficients [B,...], without gradient.

    Args:
      module, params: the model.
      coeffs: by the names of `coefficients.ENTRIES`.
    """
    apply = functools.partial(module.apply, {"params": params})
    codes = apply(coefficients.in_units(coeffs), method="encode_codes")
    ids = apply(codes, method="codes_to_ids")
    begins = jnp.full((len(ids), 1), module.config.vocab.size, ids.dtype)
    return jax.lax.stop_gradient(jnp.concatenate([begins, ids], axis=1))


@functools.partial(jax.jit, static_argnames=("module",))
def coefficients_of(
    module: FaceGPT, params: Any, tokens: jax.Array
) -> dict[str, jax.Array]:
    """Coefficients [B,...] by the names of `coefficients.ENTRIES` of tokens [B,1+F]."""
    starts = jnp.array([start for start, _ in ranges(module.config)])
    codes = (tokens - starts)[:, 1:]
    units = module.apply({"params": params}, codes, method="decode_codes")
    return coefficients.from_units(units)
