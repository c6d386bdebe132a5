"""Losses, weights and ramps of adversarial training, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.ops import adversarial

REAL, FAKE = jnp.array([2.0, 0.5]), jnp.array([-3.0, 1.0])


def test_hinge_by_hand():
    # relu(1 - real) = 0, 0.5; relu(1 + fake) = 0, 2.
    loss = adversarial.discriminator_loss(REAL, FAKE, "hinge")
    assert float(loss) == pytest.approx((0.25 + 1.0) / 2)
    zero = jnp.zeros(4)
    assert float(adversarial.discriminator_loss(zero, zero, "hinge")) == 1.0


def test_vanilla_by_hand():
    def nll(probability):
        return -np.log(probability)

    sigmoid = lambda x: 1 / (1 + np.exp(-x))  # noqa: E731
    expected = (
        np.mean([nll(sigmoid(2.0)), nll(sigmoid(0.5))])
        + np.mean([nll(1 - sigmoid(-3.0)), nll(1 - sigmoid(1.0))])
    ) / 2
    loss = adversarial.discriminator_loss(REAL, FAKE, "vanilla")
    assert float(loss) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(ValueError, match="'wasserstein' is unknown"):
        adversarial.discriminator_loss(REAL, FAKE, "wasserstein")


def test_the_generator_raises_the_logits_of_its_pictures():
    loss, slope = jax.value_and_grad(adversarial.generator_loss)(FAKE)
    assert float(loss) == 1.0
    np.testing.assert_array_equal(slope, [-0.5, -0.5])


def test_adaptive_weight_by_hand_and_its_clamp():
    nll, other = jnp.array([[3.0, 4.0]]), jnp.array([0.0, 2.0])
    weight = adversarial.adaptive_weight(nll, other, 0.8)
    assert float(weight) == pytest.approx(0.8 * 5 / 2.0001)
    blind = adversarial.adaptive_weight(nll * 100, jnp.zeros(3), 0.8)
    assert float(blind) == pytest.approx(0.8 * 1e4)
    slope = jax.grad(lambda x: adversarial.adaptive_weight(x, other, 0.8))(nll)
    np.testing.assert_array_equal(slope, 0.0)


def test_gradient_penalty_of_a_linear_judge():
    image = jax.random.normal(jax.random.key(0), (3, 4, 4, 2))
    # d sum(logits) / d pixel = 3 at each of 32 pixels and channels.
    penalty = adversarial.gradient_penalty(lambda x: 3 * x + 1, image)
    assert float(penalty) == pytest.approx(9 * 32 / 2)
    slope = jax.grad(lambda w: adversarial.gradient_penalty(lambda x: w * x, image))(
        3.0
    )
    assert float(slope) == pytest.approx(3 * 32)


def test_ramp():
    steps = jnp.array([0, 10, 12, 15, 20, 99])
    values = [adversarial.ramp(s, 10.0, 10.0) for s in steps]
    np.testing.assert_allclose(values, [0, 0, 0.2, 0.5, 1, 1], rtol=1e-6)
    assert float(adversarial.ramp(11, 10.0, 0.0)) == 1.0
