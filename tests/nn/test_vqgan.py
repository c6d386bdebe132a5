import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.nn.vqgan import VQGAN, VQGANConfig

SMALL = VQGANConfig(
    resolution=16,
    channels=8,
    channel_multipliers=(1, 2),
    num_res_blocks=1,
    attn_resolutions=(8,),
    z_channels=8,
    embed_dim=4,
    codebook_size=16,
    groups=4,
)
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def small():
    module = VQGAN(SMALL)
    image = jax.random.uniform(KEY, (2, 16, 16, 3), minval=-1, maxval=1)
    params = nn.meta.unbox(jax.jit(module.init)(KEY, image)["params"])
    return module, params, image


def shapes(config):
    module = VQGAN(config)
    dummy = jnp.zeros((1, config.resolution, config.resolution, 3))
    made = jax.eval_shape(lambda k: module.init(k, dummy)["params"], KEY)
    return nn.meta.unbox(made)


def test_shapes_and_consistency(small):
    module, params, image = small
    variables = {"params": params}
    encode = jax.jit(functools.partial(module.apply, method="encode"))
    decode = jax.jit(functools.partial(module.apply, method="decode"))
    ids = encode(variables, image)
    assert ids.shape == (2, 8, 8) and ids.dtype == jnp.int32
    assert SMALL.factor == 2 and SMALL.grid == (8, 8)
    again, aux = jax.jit(module.apply)(variables, image)
    np.testing.assert_array_equal(ids, aux["image_ids"])
    decoded = decode(variables, ids)
    assert decoded.shape == image.shape
    np.testing.assert_allclose(decoded, again, atol=1e-4)
    larger = jnp.zeros((1, 32, 24, 3))
    assert encode(variables, larger).shape == (1, 16, 12)


def test_patches_are_a_first_level():
    """4 x 4 pixels as 48 channels: tokens of 8 pixels by two levels."""
    config = dataclasses.replace(SMALL, resolution=32, patch=4, attn_resolutions=(4,))
    assert (config.factor, config.grid) == (8, (4, 4))
    module, made = VQGAN(config), trees.flatten(shapes(config))
    assert made["encoder/conv_in/kernel"].shape == (3, 3, 48, 8)
    assert made["decoder/conv_out/kernel"].shape == (3, 3, 8, 48)
    image = jax.random.uniform(KEY, (1, 32, 48, 3), minval=-1, maxval=1)
    params = jax.jit(lambda k: nn.meta.unbox(module.init(k, image)["params"]))(KEY)
    again, aux = jax.jit(module.apply)({"params": params}, image)
    assert again.shape == image.shape and aux["image_ids"].shape == (1, 4, 6)
    with pytest.raises(ValueError, match=r"has 32, but .* visits \[8, 4\]"):
        dataclasses.replace(config, attn_resolutions=(32,))


def test_parameter_counts_of_the_face_configuration():
    declared = VQGANConfig(resolution=256)
    assert abs(trees.count(shapes(declared)) / 1e6 - 74.0) < 0.05
    # Declared at 336 the network never meets 16: only the middle attention stays.
    with pytest.raises(ValueError, match=r"has 16, .* visits \[336, 168, 84, 42, 21\]"):
        VQGANConfig(resolution=336)
    trap = VQGANConfig(resolution=336, attn_resolutions=())
    assert abs(trees.count(shapes(trap)) / 1e6 - 68.7) < 0.05
    cured = VQGANConfig(resolution=336, attn_resolutions=(21,))
    assert trees.count(shapes(cured)) == trees.count(shapes(declared))
    names = trees.flatten(shapes(trap))
    assert not any("down_4_attn" in n for n in names)
    assert any("mid/attn_1" in n for n in names)
    with pytest.raises(ValueError, match="no multiple of f"):
        VQGANConfig(resolution=100)
    with pytest.raises(ValueError, match="'nearby' is unknown"):
        VQGANConfig(quantizer="nearby")


def test_gradients_pass_straight_through(small):
    module, params, image = small

    def loss(p):
        return jnp.mean((module.apply({"params": p}, image)[0] - image) ** 2)

    grads = jax.jit(jax.grad(loss))(params)
    assert jnp.abs(grads["encoder"]["conv_in"]["kernel"]).max() > 0
    np.testing.assert_array_equal(grads["codebook"], 0.0)
