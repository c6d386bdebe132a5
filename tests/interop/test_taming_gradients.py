"""Gradients of the reference's generator loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.interop import taming
from gptface_jax.nn.adversary import Discriminator
from gptface_jax.nn.vqgan import VQGAN
from gptface_jax.ops import adversarial, quantize

pytestmark = pytest.mark.shared


@pytest.mark.slow
def test_generator_gradients(golden_files, golden):
    """L1 + adaptive weight * adversarial + codebook loss in the published order.

    The slope of the adversarial term is taken at the reference's reconstruction:
    rounding alone moves single LeakyReLUs over their kink, one percent of the whole.
    """
    config, _, params, arrays = golden
    module = VQGAN(config)
    shape, inner, statistics = taming.load_discriminator(golden_files[0])
    variables = {"params": inner, "batch_stats": statistics}
    image, weight = jnp.asarray(arrays["image"]), float(arrays["adaptive_weight"])

    def judge(fake):
        logits = Discriminator(shape).apply(variables, fake, train=True)
        return adversarial.generator_loss(logits)

    there = jnp.asarray(arrays["reconstruction"])
    value, slope = jax.jit(jax.value_and_grad(judge))(there)
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

    @jax.jit
    def at_last_kernel(params):
        def run(kernel):
            output = {**params["decoder"]["conv_out"], "kernel": kernel}
            decoder = {**params["decoder"], "conv_out": output}
            return module.apply({"params": {**params, "decoder": decoder}}, image)[0]

        fake, pull_back = jax.vjp(run, params["decoder"]["conv_out"]["kernel"])
        return pull_back(jnp.sign(fake - image) / fake.size), pull_back(slope)

    (nll_slope,), (judge_slope,) = at_last_kernel(params)
    found = adversarial.adaptive_weight(nll_slope, judge_slope, 0.8)
    np.testing.assert_allclose(found, weight, rtol=1e-3)

    def agree(ours, theirs):
        scale = np.abs(arrays[theirs]).max()
        np.testing.assert_allclose(ours, arrays[theirs], atol=1e-3 * scale)

    agree(grads["codebook"], "grad_codebook")
    for network, name in (("encoder", "conv_in"), ("decoder", "conv_out")):
        ours = np.asarray(grads[network][name]["kernel"]).transpose(3, 2, 0, 1)
        agree(ours, f"grad_{network}_{name}")


def test_the_textbook_order_has_four_times_the_codebook_gradient(golden):
    _, _, params, arrays = golden
    codebook = jnp.asarray(params["codebook"])
    z = jnp.asarray(arrays["z"])

    def loss(codebook, on_codebook):
        z_q = codebook[arrays["codes"]]
        return quantize.codebook_loss(z, z_q, 0.25, on_codebook)

    published, textbook = (jax.grad(loss)(codebook, flag) for flag in (True, False))
    scale = np.abs(arrays["grad_codebook"]).max()
    np.testing.assert_allclose(published, arrays["grad_codebook"], atol=1e-4 * scale)
    np.testing.assert_allclose(textbook, 4 * published, rtol=1e-5)
