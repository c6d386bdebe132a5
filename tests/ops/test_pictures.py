"""Pictures compared pixel by pixel, by hand."""

import jax.numpy as jnp
import numpy as np

from gptface_jax.ops import pictures


def test_psnr_and_gradient_loss_by_hand():
    image = jnp.zeros((1, 4, 4, 3))
    # 10 log10(4 / 0.04)
    np.testing.assert_allclose(pictures.psnr(image + 0.2, image), 20.0, atol=1e-4)
    # A picture is judged as it is saved: beyond white is white.
    np.testing.assert_allclose(pictures.psnr(image + 1.4, image + 1.0), 100.0)
    assert pictures.gradient_loss(image + 0.3, image, 2) == 0.0
    step = image.at[:, :, 2:].add(1.0)
    # Scale 0: one of three column steps is 1; scale 1: the only one is 1.
    expected = (1 / 3 + 0 + 1 + 0) / 4
    np.testing.assert_allclose(pictures.gradient_loss(step, image, 2), expected)


def test_patches_by_hand():
    image = jnp.arange(16.0).reshape(1, 4, 4, 1)
    patches = pictures.to_patches(image, 2)
    assert patches[0, 0].tolist() == [[0, 1, 4, 5], [2, 3, 6, 7]]
    np.testing.assert_array_equal(pictures.from_patches(patches, 2), image)
    colours = jnp.arange(2 * 4 * 6 * 3.0).reshape(2, 4, 6, 3)
    cut = pictures.to_patches(colours, 2)
    assert cut.shape == (2, 2, 3, 12)
    assert cut[1, 1, 2].tolist() == colours[1, 2:, 4:].reshape(-1).tolist()
    np.testing.assert_array_equal(pictures.from_patches(cut, 2), colours)


def test_weighted_gradients_by_hand():
    """A step between two columns counts as much as both of its pixels do on average."""
    step = jnp.zeros((1, 4, 4, 1)).at[:, :, 2:].set(1.0)
    weight = jnp.broadcast_to(jnp.array([0.2, 0.8, 2.0, 1.0]), (1, 4, 4))
    # 4 of 12 horizontal differences are 1 and count 1.4; of 2 x 2 cells 2 of 2, 1.0.
    expected = ((4 * 1.4) / 12 + 1.0) / 4
    found = pictures.gradient_loss(step, jnp.zeros_like(step), 2, weight)
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    plain = pictures.gradient_loss(step, step[:, ::-1] * 0.5, 2)
    ones = pictures.gradient_loss(step, step[:, ::-1] * 0.5, 2, jnp.ones((1, 4, 4)))
    np.testing.assert_allclose(ones, plain, rtol=1e-6)
