"""The attribute judge: counts by hand, unknown labels, and that it learns."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from compiled import apply
from flax import linen as nn

from gptface_jax.nn.classifier import Classifier, ClassifierConfig
from gptface_jax.systems.judge import make_system

CONFIG = ClassifierConfig(
    resolution=8, attributes=("left", "bright"), channels=(8, 8), groups=4
)
MODEL = {
    "resolution": 8,
    "attributes": ("left", "bright"),
    "channels": (8, 8),
    "groups": 4,
}
KEY = jax.random.key(0)


@pytest.fixture(scope="module")
def system():
    return make_system({"model": MODEL, "batch_size": 8})


@pytest.fixture(scope="module")
def params(system):
    return nn.meta.unbox(jax.jit(system.init)(KEY))


def pictures(size, seed=0):
    """A white square on the left or right half, on a dark or bright ground."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 2, (size, 2))
    image = np.broadcast_to(
        np.where(labels[:, 1], 0.2, -0.8)[:, None, None, None], (size, 8, 8, 3)
    ).copy()
    for picture, (left, _) in zip(image, labels):
        column = 1 if left else 5
        picture[2:5, column : column + 2] = 1.0
    image += rng.normal(0, 0.05, image.shape)
    return {
        "image": jnp.float32(image),
        "labels": jnp.float32(labels),
        "label_mask": jnp.ones((size, 2), jnp.float32),
    }


def saying(params, logits):
    """Parameters of a judge that always gives these logits."""
    kernel = jnp.zeros_like(params["output"]["kernel"])
    return {**params, "output": {"kernel": kernel, "bias": jnp.array(logits)}}


def test_hits_and_totals_by_hand(system, params):
    batch = {
        "image": jnp.zeros((4, 8, 8, 3)),
        "labels": jnp.array([[1, 0], [1, 1], [0, 0], [0, 1]], jnp.float32),
        "label_mask": jnp.array([[1, 1], [1, 0], [1, 1], [0, 1]], jnp.float32),
    }
    # Says "left" and "not bright" of everything.
    always = saying(params, [1.0, -2.0])
    metrics = jax.jit(system.evaluations["eval"].metrics)(always, {}, {}, batch, KEY)
    counts = {name: (int(a), int(b)) for name, (a, b) in metrics.items()}
    del counts["loss"]
    assert counts == {
        "left_present": (2, 2),
        "left_absent": (0, 1),
        "bright_present": (0, 1),
        "bright_absent": (2, 2),
    }
    # -log sigmoid(x) of what was said when it is right, of -x when it is wrong.
    right, wrong = np.log1p(np.exp([-1.0, -2.0])), np.log1p(np.exp([1.0, 2.0]))
    expected = 2 * right[0] + wrong[0] + 2 * right[1] + wrong[1]
    total, count = metrics["loss"]
    np.testing.assert_allclose(total, expected, rtol=1e-5)
    assert count == 6
    loss_fn = jax.jit(system.phases[0].loss)
    loss, (_, metrics) = loss_fn(always, {}, {}, {"pictures": batch}, KEY, jnp.int32(0))
    np.testing.assert_allclose(loss, expected / 6, rtol=1e-5)
    assert [float(x) for x in metrics["accuracy"]] == [4.0, 6.0]


def test_unknown_labels_change_nothing(system, params):
    batch = pictures(4)
    batch["label_mask"] = batch["label_mask"].at[1, 0].set(0.0).at[3].set(0.0)
    hidden = batch["label_mask"] == 0
    other = {**batch, "labels": jnp.where(hidden, 1 - batch["labels"], batch["labels"])}

    @jax.jit
    def gradient(data):
        def loss(p):
            return system.phases[0].loss(
                p, {}, {}, {"pictures": data}, KEY, jnp.int32(0)
            )[0]

        return jax.grad(loss)(params)

    for a, b in zip(jax.tree.leaves(gradient(batch)), jax.tree.leaves(gradient(other))):
        np.testing.assert_array_equal(a, b)
    nothing = {**batch, "label_mask": jnp.zeros((4, 2))}
    for leaf in jax.tree.leaves(gradient(nothing)):
        np.testing.assert_array_equal(leaf, 0.0)


def test_dropout_only_in_training(system, params):
    batch = pictures(4)
    first = apply(Classifier(CONFIG), {"params": params}, batch["image"])
    again = apply(Classifier(CONFIG), {"params": params}, batch["image"])
    assert first.shape == (4, 2) and first.dtype == jnp.float32
    np.testing.assert_array_equal(first, again)
    loss = jax.jit(system.phases[0].loss)
    values = [
        float(
            loss(params, {}, {}, {"pictures": batch}, jax.random.key(i), jnp.int32(0))[
                0
            ]
        )
        for i in range(2)
    ]
    assert values[0] != values[1]


def test_where_and_how_bright_is_learnt(system, params):
    train, held_out = pictures(64), pictures(200, seed=1)
    tx = optax.adam(3e-3)

    @jax.jit
    def step(params, opt, key):
        def loss(p):
            return system.phases[0].loss(
                p, {}, {}, {"pictures": train}, key, jnp.int32(0)
            )[0]

        updates, opt = tx.update(jax.grad(loss)(params), opt)
        return optax.apply_updates(params, updates), opt

    opt, evaluate = tx.init(params), jax.jit(system.evaluations["eval"].metrics)
    for number in range(60):
        params, opt = step(params, opt, jax.random.fold_in(KEY, number))
    metrics = evaluate(params, {}, {}, held_out, KEY)
    for name, (hits, total) in metrics.items():
        if name != "loss":
            assert hits / total > 0.95, name
