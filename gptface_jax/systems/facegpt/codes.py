"""Coefficients as discrete codes: a small residual quantiser for each group (SPEC D.3).

An encoder with one hidden layer, `slots` codebooks each of which takes what the ones
before left over, and a decoder (after 4M's tokens of body poses).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.ops import quantize
from gptface_jax.systems.facegpt.coefficients import GROUPS, FacesConfig

_HIDDEN = 128
_COMMITMENT = 0.25


def _dense(width: int, name: str, scale: float = 1.0) -> nn.Dense:
    init = nn.initializers.variance_scaling(scale, "fan_in", "normal")
    return nn.Dense(
        width,
        kernel_init=nn.with_logical_partitioning(init, (None, None)),
        name=name,
    )


class GroupCodes(nn.Module):
    """The quantiser of one group of `size` coefficients."""

    faces: FacesConfig
    size: int

    def setup(self):
        faces = self.faces
        self.encoder = _dense(_HIDDEN, "encoder")
        self.to_code = _dense(faces.code_width, "to_code")
        self.decoder = _dense(_HIDDEN, "decoder")
        self.to_units = _dense(self.size, "to_units")
        init = nn.initializers.normal(0.5)
        self.codebooks = self.param(
            "codebooks",
            nn.with_logical_partitioning(init, (None, "codes", None)),
            (faces.slots, faces.codes, faces.code_width),
        )

    def encode(self, units: jax.Array):
        """Codes int32 [B,slots], what they stand for and what was encoded [B,C]."""
        z = self.to_code(jax.nn.gelu(self.encoder(units)))
        left, codes, whole = jax.lax.stop_gradient(z), [], 0.0
        for codebook in self.codebooks:
            code = quantize.nearest(left, codebook)
            codes.append(code)
            whole += codebook[code]
            left = left - jax.lax.stop_gradient(codebook[code])
        return jnp.stack(codes, axis=1), whole, z

    def decode(self, codes: jax.Array) -> jax.Array:
        """Coefficients in units [B,size] of codes int32 [B,slots]."""
        found = self.codebooks[jnp.arange(self.faces.slots), codes]
        return self._decoded(jnp.sum(found, axis=1))

    def decode_likely(self, shares: jax.Array) -> jax.Array:
        """Coefficients in units [B,size] of shares of the codes [B,slots,codes]."""
        return self._decoded(jnp.einsum("bsk,skc->bc", shares, self.codebooks))

    def _decoded(self, z: jax.Array) -> jax.Array:
        return self.to_units(jax.nn.gelu(self.decoder(z)))

    def losses(self, units: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Loss [B] of encoding and decoding, and codes int32 [B,slots]."""
        codes, whole, z = self.encode(units)
        through = z + jax.lax.stop_gradient(whole - z)
        error = jnp.mean(_smooth(self._decoded(through) - units), axis=-1)
        stop = jax.lax.stop_gradient
        near = jnp.mean(
            (whole - stop(z)) ** 2 + _COMMITMENT * (z - stop(whole)) ** 2, -1
        )
        return error + near, codes


def _smooth(x: jax.Array) -> jax.Array:
    """Smooth L1."""
    size = jnp.abs(x)
    return jnp.where(size < 1, 0.5 * x * x, size - 0.5)


class CoefficientCodes(nn.Module):
    """The quantisers of all groups."""

    faces: FacesConfig

    def setup(self):
        self.groups = {
            g: GroupCodes(self.faces, n) for g, n in self.faces.sizes.items()
        }

    def encode(self, units: dict[str, jax.Array]):
        """Codes int32 [B,F] of coefficients in units by group."""
        codes = [self.groups[g].encode(units[g])[0] for g in GROUPS]
        return jnp.concatenate(codes, axis=1)

    def decode(self, codes: jax.Array) -> dict[str, jax.Array]:
        """Coefficients in units by group, of codes int32 [B,F]."""
        parts = jnp.split(codes, len(GROUPS), axis=1)
        return {g: self.groups[g].decode(part) for g, part in zip(GROUPS, parts)}

    def decode_likely(self, shares: jax.Array) -> dict[str, jax.Array]:
        """Coefficients in units by group, of distributions [B,F,codes]."""
        parts = jnp.split(shares, len(GROUPS), axis=1)
        return {g: self.groups[g].decode_likely(p) for g, p in zip(GROUPS, parts)}

    def losses(self, units: dict[str, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Loss [B], the mean of the groups', and codes int32 [B,F]."""
        found = [self.groups[g].losses(units[g]) for g in GROUPS]
        losses, codes = zip(*found)
        return sum(losses) / len(GROUPS), jnp.concatenate(codes, axis=1)
