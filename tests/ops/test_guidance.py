import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface_jax.ops import guidance

# Squared norms; of "b" those of two stacked layers.
PARAMS = {"a": jnp.float32(9.0), "b": jnp.array([7.0, 9.0])}
GRADIENT = {"a": jnp.float32(0.36), "b": jnp.array([0.64, 0.0])}


def test_rules_by_hand():
    def rule(name):
        return guidance.coefficients(name, PARAMS, GRADIENT, 0.1)

    assert rule("literal") == (0.9, {"a": jnp.float32(0.1), "b": jnp.float32(0.1)})
    assert rule("ascent") == (1.0, {"a": jnp.float32(0.1), "b": jnp.float32(0.1)})
    keep, found = rule("ascent_norm")  # 0.1 * 5 / 1
    np.testing.assert_allclose([keep, found["a"], found["b"]], [1, 0.5, 0.5], rtol=1e-6)
    keep, found = rule("ascent_layer")
    np.testing.assert_allclose(found["a"], 0.1 * 3 / 0.6, rtol=1e-6)
    np.testing.assert_allclose(found["b"][0], 0.1 * 7**0.5 / 0.8, rtol=1e-6)
    with pytest.raises(ValueError, match="none of literal"):
        rule("hope")


@pytest.mark.parametrize("rule", guidance.RULES[1:])
def test_no_gradient_no_change(rule):
    """However large the coefficient, what it multiplies is 0."""
    zero = jax.tree.map(jnp.zeros_like, GRADIENT)
    keep, found = guidance.coefficients(rule, PARAMS, zero, 0.1)
    assert keep == 1 and all(np.isfinite(x).all() for x in found.values())


@given(st.floats(1e-3, 1e3))
@settings(deadline=None, max_examples=40)
def test_normalised_rules_ignore_the_gradient_scale(scale):
    scaled = {p: scale**2 * g for p, g in GRADIENT.items()}
    for rule in ("ascent_norm", "ascent_layer"):
        plain = guidance.coefficients(rule, PARAMS, GRADIENT, 0.1)[1]
        other = guidance.coefficients(rule, PARAMS, scaled, 0.1)[1]
        for path, real in (("a", ...), ("b", 0)):
            np.testing.assert_allclose(
                scale * np.broadcast_to(other[path], PARAMS[path].shape)[real],
                np.broadcast_to(plain[path], PARAMS[path].shape)[real],
                rtol=1e-4,
            )


def test_kl_divergence_by_hand():
    p = {
        "image": jnp.log(jnp.array([[0.5, 0.5], [0.9, 0.1], [1.0, 0.0]])),
        "text": jnp.log(jnp.array([[0.5, 0.0, 0.5], [0.2, 0.3, 0.5]])),
    }
    q = {
        "image": jnp.log(jnp.array([[0.25, 0.75], [0.9, 0.1], [0.5, 0.5]])),
        "text": jnp.log(jnp.array([[0.1, 0.0, 0.9], [0.2, 0.3, 0.5]])),
    }
    image = 0.5 * np.log(2) + 0.5 * np.log(0.5 / 0.75)
    text = 0.5 * np.log(0.5 / 0.1) + 0.5 * np.log(0.5 / 0.9)

    def divergence(image_mask, text_mask):
        mask = {"image": jnp.array(image_mask, bool), "text": jnp.array(text_mask)}
        return guidance.kl_divergence(p, q, mask)

    np.testing.assert_allclose(divergence([1, 1, 0], [0, 0]), image / 2, rtol=1e-5)
    np.testing.assert_allclose(divergence([0, 0, 1], [0, 0]), np.log(2), rtol=1e-5)
    # The mean over the masked positions of both sides, not the sum of two means.
    expected = (image + np.log(2) + text) / 4
    np.testing.assert_allclose(divergence([1, 1, 1], [1, 0]), expected, rtol=1e-5)
    assert divergence([0, 0, 0], [0, 0]) == 0.0


def test_trust_region_only_shrinks():
    assert guidance.trust_scale(jnp.float32(0.1), 0.5) == 1.0
    np.testing.assert_allclose(guidance.trust_scale(jnp.float32(2.0), 0.5), 0.5)
    assert guidance.trust_scale(jnp.float32(0.0), 0.5) == 1.0


def test_fusion_is_a_geometric_mean():
    p = jnp.log(jnp.array([[0.8, 0.2, 0.0]]))
    q = jnp.log(jnp.array([[0.2, 0.8, 0.0]]))
    fused = np.exp(guidance.fuse(p, q, 0.5))
    np.testing.assert_allclose(fused, [[0.4, 0.4, 0.0]], atol=1e-6)
    np.testing.assert_allclose(np.exp(guidance.fuse(p, q, 1.0)), np.exp(p), atol=1e-6)
    # Logits stay logits: their size says how sure the model is.
    logits = guidance.fuse(jnp.array([[8.0, 7.0]]), jnp.array([[4.0, -1.0]]), 0.75)
    np.testing.assert_allclose(logits, [[7.0, 5.0]], rtol=1e-6)


@given(st.integers(0, 2**31 - 1), st.floats(0.0, 1.0))
@settings(max_examples=40, deadline=None)
def test_divergence_and_fusion_of_any_distributions(seed, gamma):
    rng = np.random.default_rng(seed)
    p, q = (
        jax.nn.log_softmax(jnp.asarray(3 * x, jnp.float32))
        for x in rng.normal(size=(2, 4, 6))
    )
    everywhere = {"image": jnp.ones(4, bool)}
    assert guidance.kl_divergence({"image": p}, {"image": q}, everywhere) >= -1e-6
    assert guidance.kl_divergence({"image": p}, {"image": p}, everywhere) == 0
    fused = jax.nn.softmax(guidance.fuse(p, q, gamma))
    raw = np.exp(np.asarray(p)) ** gamma * np.exp(np.asarray(q)) ** (1 - gamma)
    np.testing.assert_allclose(
        fused, raw / raw.sum(-1, keepdims=True), rtol=1e-4, atol=1e-6
    )


@given(st.floats(0.0, 1e4), st.floats(1e-3, 10.0))
@settings(deadline=None, max_examples=40)
def test_trust_region_brings_a_quadratic_divergence_to_its_limit(kl, kl_max):
    scale = float(guidance.trust_scale(jnp.float32(kl), kl_max))
    assert 0 < scale <= 1
    assert kl * scale**2 <= kl_max * (1 + 1e-5)
