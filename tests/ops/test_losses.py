import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface_jax.ops import losses


@given(
    seed=st.integers(0, 2**31 - 1),
    scale=st.floats(0.1, 50.0),
    shift=st.floats(-50.0, 50.0),
)
@settings(max_examples=40, deadline=None)
def test_cross_entropy_equals_the_softmax_in_double_precision(seed, scale, shift):
    rng = np.random.default_rng(seed)
    logits = (scale * rng.normal(size=(5, 7)) + shift).astype(np.float32)
    labels = rng.integers(0, 7, 5)
    wide = logits.astype(np.float64)
    wide -= wide.max(-1, keepdims=True)
    expected = np.log(np.exp(wide).sum(-1)) - wide[np.arange(5), labels]
    nll = losses.cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(nll, expected, rtol=1e-5, atol=1e-4)


def test_equal_logits_cost_the_log_of_their_number():
    nll = losses.cross_entropy(jnp.zeros((2, 3, 8)), jnp.zeros((2, 3), jnp.int32))
    np.testing.assert_allclose(nll, np.full((2, 3), np.log(8)), rtol=1e-6)


def test_half_precision_logits_are_summed_in_float32():
    logits = jnp.zeros((1, 4000), jnp.bfloat16)
    nll = losses.cross_entropy(logits, jnp.array([7]))
    assert nll.dtype == jnp.float32
    np.testing.assert_allclose(nll, np.log(4000), rtol=1e-6)


@given(st.lists(st.tuples(st.floats(-9, 9), st.booleans()), min_size=2, max_size=9))
@settings(max_examples=40, deadline=None)
def test_sums_and_counts_of_parts_add_up(entries):
    values = jnp.array([v for v, _ in entries], jnp.float32)
    mask = jnp.array([m for _, m in entries])
    half = len(entries) // 2
    first = losses.masked_sum(values[:half], mask[:half])
    second = losses.masked_sum(values[half:], mask[half:])
    together = losses.mean(jax.tree.map(jnp.add, first, second))
    kept = np.asarray(values)[np.asarray(mask)]
    expected = kept.mean() if len(kept) else 0.0
    np.testing.assert_allclose(together, expected, rtol=1e-4, atol=1e-5)


def test_contrastive_of_two_pairs_by_hand():
    # Cosines: own 1 and 0.8, image 0 with text 1 0.6, image 1 with text 0 0.
    image = jnp.array([[5.0, 0.0], [0.0, 2.0]])
    text = jnp.array([[1.0, 0.0], [0.6, 0.8]])
    nll, right = losses.contrastive(image, text, jnp.log(3.0), jnp.ones(2, bool))

    def cost(own, other):
        return np.log(np.exp(3 * own) + np.exp(3 * other)) - 3 * own

    by_image = np.array([cost(1.0, 0.6), cost(0.8, 0.0)])
    by_text = np.array([cost(1.0, 0.0), cost(0.8, 0.6)])
    np.testing.assert_allclose(nll, (by_image + by_text) / 2, rtol=1e-5)
    assert right.tolist() == [1.0, 1.0]


def test_contrastive_inverse_temperature_is_capped_at_100():
    image = jnp.array([[1.0, 0.0], [0.0, 1.0]])
    text = jnp.array([[0.8, 0.6], [0.6, 0.8]])
    real = jnp.ones(2, bool)
    capped = losses.contrastive(image, text, jnp.log(1e4), real)[0]
    at_100 = losses.contrastive(image, text, jnp.log(100.0), real)[0]
    np.testing.assert_allclose(capped, at_100, rtol=1e-5)


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=20, deadline=None)
def test_pairs_that_do_not_count_are_as_if_absent(seed):
    rng = np.random.default_rng(seed)
    image, text = jnp.asarray(rng.normal(size=(2, 6, 4)), jnp.float32)
    real = np.zeros(6, bool)
    real[rng.permutation(6)[:4]] = True
    nll, right = losses.contrastive(image, text, jnp.log(5.0), jnp.asarray(real))
    alone = losses.contrastive(image[real], text[real], jnp.log(5.0), jnp.ones(4, bool))
    np.testing.assert_allclose(np.asarray(nll)[real], alone[0], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(right)[real], alone[1])
    assert not np.asarray(nll)[~real].any() and not np.asarray(right)[~real].any()


@pytest.mark.parametrize("real", [(True, False), (False, False)])
def test_contrastive_gradients_stay_finite_without_text_features(real):
    text = jnp.array([[1.0, 0.0], [0.0, 0.0]]) * jnp.array(real)[:, None]

    def total(features):
        return losses.contrastive(jnp.eye(2), features, jnp.log(9.0), jnp.array(real))[
            0
        ].sum()

    assert np.isfinite(jax.grad(total)(text)).all()


def test_cross_entropy_and_means_by_hand():
    logits = jnp.log(jnp.array([[0.7, 0.2, 0.1], [0.1, 0.1, 0.8]]))
    nll = losses.cross_entropy(logits + 5.0, jnp.array([0, 1]))
    np.testing.assert_allclose(nll, -np.log([0.7, 0.1]), rtol=1e-5)
    pair = losses.masked_sum(nll, jnp.array([True, False]))
    np.testing.assert_allclose(losses.mean(pair), -np.log(0.7), rtol=1e-5)
    assert losses.mean(losses.masked_sum(nll, jnp.zeros(2, bool))) == 0.0


def test_contrastive_by_hand():
    image = jnp.array([[2.0, 0.0], [0.0, 3.0], [1.0, 1.0]])
    text = jnp.array([[1.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    real = jnp.array([True, True, False])
    nll, right = losses.contrastive(image, text, jnp.log(2.0), real)
    expected = -np.log(np.exp(2) / (np.exp(2) + 1))
    np.testing.assert_allclose(nll, [expected, expected, 0.0], rtol=1e-4)
    assert right.tolist() == [1.0, 1.0, 0.0]

    def total(features):
        return losses.contrastive(image, features, jnp.log(2.0), real)[0].sum()

    gradient = jax.grad(total)(text)
    assert np.isfinite(gradient).all() and not np.asarray(gradient)[2].any()
