"""Against outputs of the reference implementation (marked shared)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError
from gptface_jax.interop import taming
from gptface_jax.nn.vqgan import VQGAN
from gptface_jax.ops import quantize

pytestmark = pytest.mark.shared


def test_latents_codes_and_reconstruction(golden):
    config, _, params, arrays = golden
    module = VQGAN(config)
    variables = {"params": params}
    image = jnp.asarray(arrays["image"])
    z = jax.jit(lambda x: module.apply(variables, x, method="latents"))(image)
    np.testing.assert_allclose(z, arrays["z"], atol=2e-4)
    codes = np.asarray(quantize.nearest(z, params["codebook"]))
    gaps = np.sort(np.asarray(quantize.distances(z, params["codebook"])), -1)
    tie = gaps[..., 1] - gaps[..., 0] < 1e-5
    np.testing.assert_array_equal(codes[~tie], arrays["codes"][~tie])
    decode = jax.jit(lambda c: module.apply(variables, c, method="decode"))
    again = decode(jnp.asarray(arrays["codes"]))
    np.testing.assert_allclose(again, arrays["reconstruction"], atol=2e-4)


def test_codebook_loss_in_both_orderings(golden):
    _, _, params, arrays = golden
    z_e = jnp.asarray(arrays["z"])
    z_q = params["codebook"][arrays["codes"]]
    np.testing.assert_allclose(z_q, arrays["z_q"], atol=1e-6)
    for name, on_codebook in (("legacy", True), ("fixed", False)):
        value = quantize.codebook_loss(z_e, z_q, 0.25, on_codebook)
        np.testing.assert_allclose(value, arrays[f"codebook_loss_{name}"], rtol=1e-4)


def test_wrong_checkpoints_are_named(golden):
    import dataclasses

    config, state, params, _ = golden
    short = {k: v for k, v in state.items() if k != "encoder.conv_in.weight"}
    with pytest.raises(UserError, match="no 'encoder.conv_in.weight'"):
        taming.convert(short, config)
    with pytest.raises(UserError, match="no place for"):
        taming.convert(state, dataclasses.replace(config, num_res_blocks=1))
    with pytest.raises(UserError, match="asks for"):
        taming.convert(state, dataclasses.replace(config, codebook_size=32))
    assert taming.their_name("codebook") == "quantize.embedding.weight"
    names = {taming.their_name(p) for p in trees.flatten(params)}
    assert len(names) == len(trees.flatten(params)) and names <= set(state)
