"""Gradients of the reference's generator loss, with a discriminator written out."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.nn.vqgan import VQGAN
from gptface_jax.ops import quantize

pytestmark = pytest.mark.shared


def discriminate(state, x):
    """PatchGAN logits with batch statistics: [B,H,W,3] -> [B,h,w,1]."""

    def conv(x, number, stride):
        name = f"loss.discriminator.main.{number}"
        kernel = state[f"{name}.weight"].transpose(2, 3, 1, 0)
        out = jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), [(1, 1)] * 2,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip
        return out + state.get(f"{name}.bias", 0.0)

    def norm(x, number):
        name = f"loss.discriminator.main.{number}"
        x = (x - x.mean((0, 1, 2))) / jnp.sqrt(x.var((0, 1, 2)) + 1e-5)
        return x * state[f"{name}.weight"] + state[f"{name}.bias"]

    x = jax.nn.leaky_relu(conv(x, 0, 2), 0.2)
    for number, stride in ((2, 2), (5, 2), (8, 1)):
        x = jax.nn.leaky_relu(norm(conv(x, number, stride), number + 1), 0.2)
    return conv(x, 11, 1)


def test_generator_gradients(golden):
    """L1 + adaptive weight * adversarial + codebook loss in the published order.

    The slope of the adversarial term is taken at the reference's reconstruction:
    rounding alone moves single LeakyReLUs over their kink, one percent of the whole.
    """
    config, state, params, arrays = golden
    module = VQGAN(config)
    image, weight = jnp.asarray(arrays["image"]), float(arrays["adaptive_weight"])

    def adversarial(fake):
        return -discriminate(state, fake).mean()

    there = jnp.asarray(arrays["reconstruction"])
    value, slope = jax.jit(jax.value_and_grad(adversarial))(there)
    np.testing.assert_allclose(value, arrays["g_loss"], rtol=1e-4)

    def losses(params):
        fake, aux = module.apply({"params": params}, image)
        nll = jnp.abs(fake - image).mean()
        codes = quantize.codebook_loss(aux["z_e"], aux["z_q"], 0.25, True)
        total = nll + codes + weight * jnp.sum(slope * (fake - there))
        return total, nll

    (total, nll), grads = jax.jit(jax.value_and_grad(losses, has_aux=True))(params)
    np.testing.assert_allclose(nll, arrays["nll_l1"], rtol=1e-4)
    total += weight * value
    np.testing.assert_allclose(total, arrays["generator_total"], rtol=1e-4)

    def agree(ours, theirs):
        scale = np.abs(arrays[theirs]).max()
        np.testing.assert_allclose(ours, arrays[theirs], atol=1e-3 * scale)

    agree(grads["codebook"], "grad_codebook")
    for network, name in (("encoder", "conv_in"), ("decoder", "conv_out")):
        ours = np.asarray(grads[network][name]["kernel"]).transpose(3, 2, 0, 1)
        agree(ours, f"grad_{network}_{name}")


def test_the_textbook_order_has_four_times_the_codebook_gradient(golden):
    _, state, _, arrays = golden
    codebook = jnp.asarray(state["quantize.embedding.weight"])
    z = jnp.asarray(arrays["z"])

    def loss(codebook, on_codebook):
        z_q = codebook[arrays["codes"]]
        return quantize.codebook_loss(z, z_q, 0.25, on_codebook)

    published, textbook = (jax.grad(loss)(codebook, flag) for flag in (True, False))
    scale = np.abs(arrays["grad_codebook"]).max()
    np.testing.assert_allclose(published, arrays["grad_codebook"], atol=1e-4 * scale)
    np.testing.assert_allclose(textbook, 4 * published, rtol=1e-5)
