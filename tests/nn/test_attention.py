"""One attention layer: numpy equations, both ways of computing it, every mask."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from gptface_jax.nn.transformer import Attention, TransformerConfig

CONFIG = TransformerConfig(width=12, num_heads=3, mlp_width=8, init="fan_in")
KEY = jax.random.key(0)
X = jax.random.normal(KEY, (2, 5, 12))


def random_params(config):
    made = Attention(config).init(KEY, X, jnp.ones((1, 1, 1, 5), bool))["params"]
    leaves, tree = jax.tree.flatten(nn.meta.unbox(made))
    rng = np.random.default_rng(0)
    noisy = [x + 0.3 * rng.normal(size=x.shape).astype(np.float32) for x in leaves]
    return jax.tree.unflatten(tree, noisy)


def masks():
    padding = jnp.arange(5) < jnp.array([[5], [3]])
    causal = jnp.tril(jnp.ones((5, 5), bool))
    heads = jax.random.bernoulli(KEY, 0.5, (2, 3, 5, 5)) | jnp.eye(5, dtype=bool)
    return {
        "padding": padding[:, None, None, :],
        "causal": causal[None, None],
        "both": causal[None, None] & padding[:, None, None, :],
        "by head": heads,
    }


def reference(params, mask, qk_norm):
    """softmax(q k / sqrt(H)) v in float64, a head at a time."""
    p = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    x, out = np.asarray(X, np.float64), np.zeros((2, 5, 12))
    mask = np.broadcast_to(mask, (2, 3, 5, 5))

    def project(name, head):
        cut = slice(4 * head, 4 * head + 4)
        y = x @ p[name]["kernel"][:, cut] + p[name]["bias"][cut]
        if qk_norm and name != "value":
            y = y / np.sqrt((y**2).mean(-1, keepdims=True) + 1e-6)
            y = y * p[f"{name}_norm"]["scale"]
        return y

    for head in range(3):
        query, key, value = (project(n, head) for n in ("query", "key", "value"))
        logits = query @ key.transpose(0, 2, 1) / np.sqrt(4)
        weights = np.exp(logits) * mask[:, head]
        weights /= weights.sum(-1, keepdims=True)
        out[..., 4 * head : 4 * head + 4] = weights @ value
    return out @ p["out"]["kernel"] + p["out"]["bias"]


@pytest.mark.parametrize("fold_heads", [False, True])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_equations(qk_norm, fold_heads):
    config = dataclasses.replace(CONFIG, qk_norm=qk_norm, fold_heads=fold_heads)
    params = random_params(config)
    for name, mask in masks().items():
        out = Attention(config).apply({"params": params}, X, mask)
        expected = reference(params, mask, qk_norm)
        np.testing.assert_allclose(out, expected, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_folded_heads_have_the_same_gradients(qk_norm):
    plain = dataclasses.replace(CONFIG, qk_norm=qk_norm)
    params, target = random_params(plain), jnp.cos(jnp.arange(120.0)).reshape(X.shape)

    def gradient(config, mask):
        def loss(params, x):
            return jnp.mean(target * Attention(config).apply(params, x, mask))

        return jax.grad(loss, (0, 1))({"params": params}, X)

    for name, mask in masks().items():
        a = jax.tree.leaves(gradient(plain, mask))
        folded = dataclasses.replace(plain, fold_heads=True)
        b = jax.tree.leaves(gradient(folded, mask))
        for one, other in zip(a, b):
            np.testing.assert_allclose(one, other, atol=1e-5, err_msg=name)


def test_qk_norm_ignores_the_size_of_queries_and_keys():
    config = dataclasses.replace(CONFIG, qk_norm=True)
    params, mask = random_params(config), masks()["padding"]
    larger = {
        **params,
        "query": jax.tree.map(lambda a: 50.0 * a, params["query"]),
        "key": jax.tree.map(lambda a: 7.0 * a, params["key"]),
    }
    a, b = (Attention(config).apply({"params": p}, X, mask) for p in (params, larger))
    np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("fold_heads", [False, True])
def test_a_row_that_sees_nothing_stays_finite(fold_heads):
    config = dataclasses.replace(CONFIG, fold_heads=fold_heads)
    params = random_params(config)
    mask = masks()["by head"].at[0, :, 2].set(False)

    def total(x):
        return Attention(config).apply({"params": params}, x, mask).sum()

    value, slope = jax.value_and_grad(total)(X)
    assert np.isfinite(value) and np.isfinite(slope).all()
