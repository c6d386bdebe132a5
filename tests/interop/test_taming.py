"""Against outputs of the reference implementation (marked shared)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import apply

from gptface_jax.core import trees
from gptface_jax.interop import state_dict, taming
from gptface_jax.nn.adversary import Discriminator
from gptface_jax.nn.vqgan import VQGAN
from gptface_jax.ops import adversarial, quantize

pytestmark = pytest.mark.shared


def test_latents_codes_and_reconstruction(golden):
    config, _, params, arrays = golden
    module = VQGAN(config)
    variables = {"params": params}
    image = jnp.asarray(arrays["image"])
    z = jax.jit(lambda x: module.apply(variables, x, method="latents"))(image)
    np.testing.assert_allclose(z, arrays["z"], atol=2e-4)
    codes = np.asarray(apply(module, variables, z, method="quantize"))
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


def test_discriminator_logits_and_losses(golden_files, golden):
    arrays = golden[3]
    config, params, statistics = taming.load_discriminator(golden_files[0])
    assert (config.channels, config.num_layers) == (16, 3)  # "disc" in the .json
    variables = {"params": params, "batch_stats": statistics}
    module, logits = Discriminator(config), {}
    for mode in ("eval", "train"):
        run = jax.jit(lambda x, m=mode: module.apply(variables, x, train=m == "train"))
        for name, image in (("real", "image"), ("fake", "reconstruction")):
            logits[mode, name] = run(jnp.asarray(arrays[image]))
            wanted = arrays[f"disc_{name}_{mode}"][..., 0]
            np.testing.assert_allclose(logits[mode, name], wanted, atol=2e-4)
    for kind in ("hinge", "vanilla"):
        loss = adversarial.discriminator_loss(
            logits["train", "real"], logits["train", "fake"], kind
        )
        np.testing.assert_allclose(loss, arrays[kind], rtol=1e-4)


def test_the_report_accounts_for_every_name(golden_files, golden):
    state = golden[1]
    found = taming.read(*golden_files)
    assert found.ignored == {"discriminator": 22}
    assert found.matched == len(state) - 22 == len(trees.flatten(found.params))


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors"])
def test_there_and_back_are_the_same_bytes(golden_files, golden, tmp_path, suffix):
    config, state, params, _ = golden
    discriminator = taming.load_discriminator(golden_files[0])
    yaml = taming.save(tmp_path / f"x.{suffix}", config, params, discriminator)
    written = state_dict.read(tmp_path / f"x.{suffix}")
    assert set(written) == set(state)
    for name, array in state.items():
        assert written[name].dtype == array.dtype, name
        assert written[name].shape == array.shape, name
        assert written[name].tobytes() == array.tobytes(), name
    again = taming.read(tmp_path / f"x.{suffix}", yaml)
    assert again.config == config and again.ignored == {"discriminator": 22}
    jax.tree.map(np.testing.assert_array_equal, again.params, params)
    other = taming.load_discriminator(tmp_path / f"x.{suffix}")
    assert other[0] == discriminator[0]
    jax.tree.map(np.testing.assert_array_equal, other[1:], discriminator[1:])
