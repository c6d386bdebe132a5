"""Subsets, heads that learn what can be learnt, and figures counted by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from hypothesis import given
from hypothesis import strategies as st

from gptface_jax.evaluate import few_shot
from gptface_jax.evaluate.few_shot import Examples, Training
from gptface_jax.nn.pooled_head import PooledHead


def head(outputs, shape):
    module = PooledHead(outputs)

    def init(key):
        return nn.meta.unbox(module.init(key, jnp.zeros((1, *shape)))["params"])

    return lambda params, x, key: module.apply({"params": params}, x), init


def test_pooling_by_hand():
    # [CLS] i i [SEP], one value a position; two layers.
    first = jnp.array([[[9.0], [1.0], [5.0], [7.0]]])
    found = few_shot.pooled([first, -first], slice(1, 3))
    np.testing.assert_array_equal(found[0, :, 0], [3, 5, 9, -3, -1, -9])


def test_the_head_is_a_weighted_mean_of_norms_and_a_linear_layer():
    rng = np.random.default_rng(0)
    features = rng.normal(3.0, 2.0, (5, 2, 4)).astype(np.float32)
    forward, init = head(3, (2, 4))
    params = init(jax.random.key(0))
    assert set(params) == {"norm_scale", "norm_bias", "mixture", "output"}
    params["mixture"] = jnp.log(jnp.array([1.0, 3.0]))
    params["norm_bias"] = jnp.ones((2, 4))
    centred = features - features.mean(-1, keepdims=True)
    x = centred / features.std(-1, keepdims=True) + 1
    x = 0.25 * x[:, 0] + 0.75 * x[:, 1]
    np.testing.assert_allclose(
        forward(params, features, None), x @ params["output"]["kernel"], atol=1e-4
    )


@given(st.integers(2, 500), st.integers(0, 9), st.floats(0.001, 1), st.floats(0.001, 1))
def test_a_smaller_subset_is_in_a_larger_one(count, seed, a, b):
    small, large = (few_shot.subset(count, f, seed) for f in sorted((a, b)))
    np.testing.assert_array_equal(small, large[: len(small)])
    assert len(set(large)) == len(large) >= 2 and large.max() < count
    learnt, held = few_shot.carve(large, 0.2)
    assert len(learnt) and len(held) and set(learnt) | set(held) == set(large)
    assert len(learnt) + len(held) == len(large)


def test_seeds_differ_and_repeat():
    first, again, other = (few_shot.subset(100, 0.1, seed) for seed in (0, 0, 1))
    assert (first == again).all() and (first != other).any() and len(first) == 10


def test_epochs_by_size():
    assert [few_shot.epochs_for(n) for n in (10, 400, 9000)] == [100, 75, 20]


def toy(kind, shuffled=False, seed=0):
    """Two features [N,2,8]; the second tells the label by two of its values."""
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(400, 2, 8)).astype(np.float32)
    truth = features[:, 1, :2] > 0
    labels = truth if kind == "attributes" else truth[:, 0] + 2 * truth[:, 1]
    if shuffled:
        labels = rng.permutation(labels)
    parts = slice(0, 300), slice(300, 400)
    return [Examples(features[p], labels[p]) for p in parts]


TRAINING = Training(epochs=40, peak_lr=0.05)


@pytest.mark.parametrize("kind", ("attributes", "expressions"))
def test_a_head_learns_what_is_there_and_nothing_else(kind):
    made = head(2 if kind == "attributes" else 4, (2, 8))
    chance = 0.5 if kind == "attributes" else 0.25
    for shuffled in (False, True):
        curve = few_shot.learning_curve(
            *made, *toy(kind, shuffled), (1.0,), (0, 1), TRAINING
        )
        found = [run["balanced_accuracy"] for run in curve[1.0]]
        if shuffled:
            assert abs(np.mean(found) - chance) < 0.12
        else:
            assert min(found) > chance + 0.3


def test_seeds_together_are_seeds_one_after_another():
    made, examples = head(2, (2, 8)), toy("attributes")
    training = Training(epochs=3)
    both, one = (
        few_shot.learning_curve(*made, *examples, (0.2,), (3, 4), training, together=t)
        for t in (True, False)
    )
    assert both == one and both[0.2][0] != both[0.2][1]


def test_the_epoch_with_the_lowest_held_out_loss_counts():
    train, _ = toy("attributes")
    forward, init = head(2, (2, 8))
    rows = np.arange(40)
    # A rate that ruins what was learnt.
    training = Training(epochs=12, peak_lr=2.0)
    params, values = few_shot.fit(
        forward, training, init(jax.random.key(0)), train.inputs, train.labels,
        rows[:30], rows[30:], jax.random.key(1),
    )  # fmt: skip
    logits = few_shot.predict(forward, params, train.inputs[rows[30:]])
    kept = few_shot.loss(logits, train.labels[rows[30:]]).mean()
    assert values.shape == (12,) and values.max() > values.min()
    np.testing.assert_allclose(kept, values.min(), rtol=1e-5)


def test_scores_by_hand():
    labels = np.zeros((40, 2), bool)
    labels[:20, 0] = labels[:9, 1] = True  # the second one: too few
    logits = np.full((40, 2), -1.0)
    logits[:15, 0] = 1.0
    logits[25:30, 0] = 1.0
    found = few_shot.scores(logits, labels)
    assert list(few_shot.balanced_attributes(labels)) == [0]
    # First: 15 of 20 and 15 of 20; second: 31 of 40.
    assert found == pytest.approx({"accuracy": 61 / 80, "balanced_accuracy": 0.75})
    classes = np.array([0, 0, 0, 0, 1, 2])
    said = np.eye(3)[[0, 0, 0, 1, 1, 0]]
    found = few_shot.scores(said, classes)
    expected = {"accuracy": 4 / 6, "balanced_accuracy": (3 / 4 + 1 + 0) / 3}
    assert found == pytest.approx(expected)
    assert np.isnan(few_shot.scores(logits[:2], labels[:2])["balanced_accuracy"])


def test_the_most_common_label():
    train = Examples(np.zeros(10), np.array([0] * 3 + [1] * 7))
    test = Examples(np.zeros(4), np.array([0, 1, 1, 1]))
    (found,) = few_shot.majority(train, test, (1.0,), (0,))[1.0]
    assert found == {"accuracy": 0.75, "balanced_accuracy": 0.5}
    binary = [
        Examples(x.inputs, np.stack([x.labels > 0] * 2, 1)) for x in (train, test)
    ]
    assert few_shot.majority(*binary, (1.0,), (0,))[1.0][0]["accuracy"] == 0.75


def test_summary_by_hand():
    runs = [{"accuracy": 0.5}, {"accuracy": 0.7}]
    (row,) = few_shot.summary({"a": {0.1: runs}})
    assert row["accuracy"] == pytest.approx(0.6)
    assert row["accuracy_std"] == pytest.approx(0.02**0.5)
    assert few_shot.summary({"a": {1: runs[:1]}})[0]["accuracy_std"] == 0
