import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.nn.vqgan import VQGAN, VQGANConfig
from gptface_jax.ops import pictures

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


@pytest.mark.slow
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


@pytest.fixture(scope="module")
def conditional(small):
    """(module that sees photographs, params: those of `small` and a stem)."""
    _, params, image = small
    module = VQGAN(dataclasses.replace(SMALL, condition_channels=6))
    made = nn.meta.unbox(jax.jit(module.init)(KEY, image)["params"])
    own = trees.flatten(params)
    found = {k: own.get(k, v) for k, v in trees.flatten(made).items()}
    return module, trees.unflatten(found)


@pytest.mark.slow
def test_a_conditional_decoder_starts_as_the_plain_one(small, conditional):
    module, params, image = small
    other, both = conditional
    extra = set(trees.flatten(both)) - set(trees.flatten(params))
    assert {name.rsplit("/", 1)[0] for name in extra} == {
        f"decoder/stem/{kind}_{i}" for kind in ("conv", "out") for i in range(2)
    }
    # 16 px have 6 channels (the level has 8) and go to 16, the width that comes up.
    shapes = {name: x.shape for name, x in trees.flatten(both).items()}
    assert shapes["decoder/stem/conv_0/kernel"] == (3, 3, 4, 6)
    assert shapes["decoder/stem/out_0/kernel"] == (1, 1, 6, 16)
    ids = jax.jit(functools.partial(module.apply, method="encode"))(
        {"params": params}, image
    )
    known = pictures.known_pixels(image, image[..., 0] > 0)
    plain = module.apply({"params": params}, ids, method="decode")
    seeing = other.apply({"params": both}, ids, known, method="decode")
    np.testing.assert_array_equal(plain, seeing)


def test_plain_decoding_is_the_case_of_nothing_known(small, conditional):
    _, _, image = small
    module, params = conditional
    flat = trees.flatten(params)
    keys = iter(jax.random.split(KEY, 4))
    moved = {
        name: jax.random.normal(next(keys), x.shape) if "/out_" in name else x
        for name, x in flat.items()
    }
    variables = {"params": trees.unflatten(moved)}
    ids = jnp.arange(128).reshape(2, 8, 8) % 16
    decode = jax.jit(functools.partial(module.apply, method="decode"))
    everything = jnp.ones((2, 16, 16), bool)
    plain = decode(variables, ids)
    hidden = decode(variables, ids, pictures.known_pixels(image, everything))
    np.testing.assert_allclose(plain, hidden, atol=1e-5)
    hole = everything.at[:, :4].set(False)
    first = decode(variables, ids, pictures.known_pixels(image, hole))
    assert np.abs(np.asarray(first - plain)).max() > 1e-2
    # What is masked is not seen.
    other = jnp.where(hole[..., None], -image, image)
    again = decode(variables, ids, pictures.known_pixels(other, hole))
    np.testing.assert_array_equal(first, again)


def test_known_pixels_by_hand():
    image = jnp.array([[[[0.5, -0.5, 1.0], [0.25, 0.0, -1.0]]]])
    known = pictures.known_pixels(image, jnp.array([[[True, False]]]))
    np.testing.assert_array_equal(known, [[[[0, 0, 0, 1], [0.25, 0, -1, 0]]]])
    assert known.dtype == jnp.float32
