"""Distances in feature spaces; LPIPS against recorded values of the reference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import apply

from gptface_jax.nn import perceptual
from gptface_jax.nn.classifier import Classifier, ClassifierConfig

KEY = jax.random.key(0)


def test_feature_distance_by_hand():
    a = [jnp.array([3.0, 4.0]).reshape(1, 1, 1, 2), jnp.ones((1, 2, 2, 1))]
    b = [jnp.array([4.0, 3.0]).reshape(1, 1, 1, 2), -jnp.ones((1, 2, 2, 1))]
    # (0.6, 0.8) against (0.8, 0.6): 0.08; opposite vectors: 4.
    np.testing.assert_allclose(perceptual.feature_distance(a, b), [2.04], rtol=1e-5)
    scaled = [10 * x for x in a]
    np.testing.assert_allclose(perceptual.feature_distance(a, scaled), 0, atol=1e-10)
    with pytest.raises(ValueError):
        perceptual.feature_distance(a, b[:1])


def test_places_and_depths_count_by_hand():
    # The left half differs in the first map, everything in the second.
    a = [jnp.ones((1, 2, 2, 1)), jnp.ones((1, 1, 1, 1))]
    b = [jnp.ones((1, 2, 2, 1)).at[:, :, 0].set(-1.0), -a[1]]
    run = perceptual.feature_distance
    np.testing.assert_allclose(run(a, b), [(2 + 4) / 2], rtol=1e-5)
    weight = jnp.broadcast_to(jnp.repeat(jnp.array([1.5, 0.5]), 2), (1, 4, 4))
    # Made half as large by a triangle: 3/4, 3/4 and 1/4 of (1.5, 1.5, 0.5).
    left = (2 * 0.75 * 1.5 + 0.25 * 0.5) / 1.75
    np.testing.assert_allclose(run(a, b, weight), [(2 * left + 4) / 2], rtol=1e-5)
    np.testing.assert_allclose(run(a, b, depths=(3.0, 1.0)), [(6 + 4) / 4], rtol=1e-5)
    np.testing.assert_allclose(run(a, b, weight, (1.0, 0.0)), [2 * left], rtol=1e-5)
    with pytest.raises(ValueError, match=r"1 depths \(1.0,\) for 2 maps"):
        run(a, b, depths=(1.0,))


def test_a_zero_feature_has_a_finite_slope():
    slope = jax.grad(lambda x: jnp.sum(perceptual.unit_vectors(x)))(jnp.zeros((2, 3)))
    assert np.isfinite(slope).all()


def test_classifier_features_at_any_size():
    module = Classifier(ClassifierConfig(16, ("a",), (4, 8), groups=2))
    image = jax.random.normal(KEY, (2, 24, 32, 3))
    params = module.init(KEY, jnp.zeros((1, 16, 16, 3)))
    maps = apply(module, params, image, method="features")
    assert [m.shape for m in maps] == [(2, 12, 16, 4), (2, 6, 8, 8)]
    assert apply(module, params, image, method="embed").shape == (2, 8)


def golden_weights():
    """The weights that the recorded distances were made with, by their formula."""
    widths = [width for stage in perceptual.STAGES for width in stage]
    params, before = {}, 3
    for c, width in enumerate(widths):
        fan_in = 9 * before
        i = np.arange(width * fan_in, dtype=np.float64)
        weight = np.sin(12.9898 * i + 78.233 * c) * np.sqrt(2 / fan_in) * np.sqrt(2)
        kernel = weight.reshape(width, before, 3, 3).transpose(2, 3, 1, 0)
        bias = 0.01 * np.cos(np.arange(width) + c)
        params[f"conv_{c}"] = {"kernel": kernel, "bias": bias}
        before = width
    for k, stage in enumerate(perceptual.STAGES):
        j = np.arange(stage[-1])
        params[f"lin_{k}"] = np.abs(np.sin(0.7 * j + k)) / stage[-1]
    return jax.tree.map(np.float32, params)


@pytest.mark.shared
def test_lpips_agrees_with_the_reference(shared):
    arrays = np.load(shared / "golden" / "lpips.npz")
    module = perceptual.LPIPS()
    distance = jax.jit(lambda a, b: module.apply({"params": golden_weights()}, a, b))(
        arrays["image_a"], arrays["image_b"]
    )
    np.testing.assert_allclose(distance, arrays["distance"], rtol=1e-3)


def test_lpips_refuses_pictures_that_vanish():
    with pytest.raises(ValueError, match="16 px or more"):
        perceptual.LPIPS().init(KEY, *[jnp.zeros((1, 8, 8, 3))] * 2)
