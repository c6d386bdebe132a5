"""The discriminator: shapes, statistics of batches, and their purity."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.nn.adversary import Discriminator, DiscriminatorConfig
from gptface_jax.nn.batch_norm import BatchNorm

KEY = jax.random.key(0)


def built(config, side=32):
    module = Discriminator(config)
    image = jax.random.normal(KEY, (4, side, side, 3))
    return module, nn.meta.unbox(jax.jit(module.init)(KEY, image)), image


def test_the_published_sizes():
    """64, 128, 256, 512 filters and 2.77 M parameters; 70 x 70 pixels a logit."""
    module = Discriminator(DiscriminatorConfig())
    image = jnp.zeros((1, 256, 256, 3))
    shapes = jax.eval_shape(module.init, KEY, image)
    assert trees.count(nn.meta.unbox(shapes["params"])) == 2_765_633
    logits = jax.eval_shape(lambda v: module.apply(v, image, False), shapes)
    assert logits.shape == (1, 30, 30) and logits.dtype == jnp.float32


def test_batch_norm_by_hand():
    module = BatchNorm()
    x = jnp.array([1.0, 3.0, 5.0, 7.0]).reshape(4, 1, 1, 1)
    variables = {
        "params": {"scale": jnp.array([2.0]), "bias": jnp.array([1.0])},
        "batch_stats": {"mean": jnp.array([10.0]), "var": jnp.array([4.0])},
    }
    y, changed = module.apply(variables, x, True, mutable=["batch_stats"])
    expected = 2 * (np.array([1, 3, 5, 7]) - 4) / np.sqrt(5 + 1e-5) + 1
    np.testing.assert_allclose(y.ravel(), expected, rtol=1e-5)
    # 0.9 old + 0.1 new; the variance stored is 20 / 3, of three degrees of freedom.
    stored = changed["batch_stats"]
    np.testing.assert_allclose(stored["mean"], [9.4], rtol=1e-6)
    np.testing.assert_allclose(stored["var"], [0.9 * 4 + 0.1 * 20 / 3], rtol=1e-6)
    by_stored = module.apply(variables, x, False)
    np.testing.assert_allclose(by_stored.ravel()[0], 2 * (1 - 10) / 2 + 1, rtol=1e-4)


def test_training_mode_without_mutable_statistics_changes_nothing():
    module, variables, image = built(DiscriminatorConfig(channels=4, num_layers=2))
    judge = functools.partial(module.apply, train=True)
    frozen = jax.jit(judge)(variables, image)
    mutable = jax.jit(functools.partial(judge, mutable=["batch_stats"]))
    logits, changed = mutable(variables, image)
    np.testing.assert_array_equal(frozen, logits)
    before = trees.flatten(variables["batch_stats"])
    after = trees.flatten(changed["batch_stats"])
    assert (
        before.keys()
        == after.keys()
        == {f"norm_{i}/{name}" for i in (1, 2) for name in ("mean", "var")}
    )
    assert all(np.abs(after[k] - before[k]).max() > 0 for k in before)


def test_group_norm_judges_each_picture_alone():
    for norm, alone in (("batch", False), ("group", True)):
        module, variables, image = built(DiscriminatorConfig(channels=4, norm=norm))
        judged = jax.jit(functools.partial(module.apply, train=True))
        together, single = judged(variables, image)[:1], judged(variables, image[:1])
        assert bool(np.allclose(together, single, atol=1e-5)) == alone
    assert "batch_stats" not in variables
    with pytest.raises(ValueError, match="'layer' is unknown"):
        DiscriminatorConfig(norm="layer")
