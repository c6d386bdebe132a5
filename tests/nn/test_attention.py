"""One attention layer: numpy equations, both ways of computing it, every mask."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import apply
from flax import linen as nn

from gptface_jax.nn import attention as kernels
from gptface_jax.nn.transformer import Attention, TransformerConfig, on_any_device
from gptface_jax.ops.attention_mask import attention_mask

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


@pytest.mark.parametrize("attention", ["xla", "folded"])
@pytest.mark.parametrize("qk_norm", [False, True])
def test_equations(qk_norm, attention):
    config = dataclasses.replace(CONFIG, qk_norm=qk_norm, attention=attention)
    params = random_params(config)
    for name, mask in masks().items():
        out = apply(Attention(config), {"params": params}, X, mask)
        expected = reference(params, mask, qk_norm)
        np.testing.assert_allclose(out, expected, atol=1e-5, err_msg=name)
        first = X[:, :2], mask[:, :, :2]
        some = apply(Attention(config), {"params": params}, *first, memory=X)
        np.testing.assert_allclose(some, expected[:, :2], atol=1e-5, err_msg=name)


@pytest.mark.parametrize("qk_norm", [False, True])
def test_folded_heads_have_the_same_gradients(qk_norm):
    plain = dataclasses.replace(CONFIG, qk_norm=qk_norm, attention="xla")
    params, target = random_params(plain), jnp.cos(jnp.arange(120.0)).reshape(X.shape)

    def gradient(config, mask):
        def loss(params, x):
            return jnp.mean(target * apply(Attention(config), params, x, mask))

        return jax.grad(loss, (0, 1))({"params": params}, X)

    for name, mask in masks().items():
        a = jax.tree.leaves(gradient(plain, mask))
        folded = dataclasses.replace(plain, attention="folded")
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
    a, b = (apply(Attention(config), {"params": p}, X, mask) for p in (params, larger))
    np.testing.assert_allclose(a, b, atol=1e-4)


@pytest.mark.parametrize("attention", ["xla", "folded"])
def test_a_row_that_sees_nothing_stays_finite(attention):
    config = dataclasses.replace(CONFIG, attention=attention)
    params = random_params(config)
    mask = masks()["by head"].at[0, :, 2].set(False)

    def total(x):
        return apply(Attention(config), {"params": params}, x, mask).sum()

    value, slope = jax.value_and_grad(total)(X)
    assert np.isfinite(value) and np.isfinite(slope).all()


def heads(length, dtype=jnp.float32, width=8):
    """Queries, keys, values [2,L,2,H], and a mask of keys."""
    keys = jax.random.split(KEY, 3)
    shape = (2, length, 2, width)
    valid = jnp.arange(length) < jnp.array([[length], [length - 9]])
    arrays = (jax.random.normal(k, shape, jnp.float32).astype(dtype) for k in keys)
    return *arrays, valid[:, None, None, :]


def compare(implementation, query, key, value, mask, tolerance):
    def run(name):
        def loss(*arrays):
            out = kernels.attend(*arrays, mask, name)
            return jnp.sum(jnp.sin(out.astype(jnp.float32))), out

        (_, out), grads = jax.value_and_grad(loss, (0, 1, 2), has_aux=True)(
            query, key, value
        )
        return out, *grads

    for one, other in zip(run(implementation), run("xla")):
        assert one.dtype == other.dtype
        one, other = (np.asarray(x, np.float32) for x in (one, other))
        np.testing.assert_allclose(one, other, atol=tolerance)


@pytest.mark.slow
def test_flash_agrees_with_the_reference():
    from jax.experimental.pallas import tpu

    with tpu.force_tpu_interpret_mode():
        compare("flash", *heads(128), 1e-5)


@pytest.mark.parametrize(
    "length", [128, pytest.param(640, marks=pytest.mark.slow)]
)  # of one block, and of five
def test_splash_agrees_with_the_reference_on_masks_of_keys(length, monkeypatch):
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernel,
    )

    # The interpreter of TPUs does not know what `vmap` makes of this kernel (JAX 0.10).
    make = functools.partial(kernel.make_splash_mha, interpret=True)
    monkeypatch.setattr(kernel, "make_splash_mha", make)
    compare("splash", *heads(length), 1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("by_head", [False, True])
def test_splash_agrees_with_the_reference_on_prefix_masks(by_head):
    from jax.experimental.pallas import tpu

    query, key, value, mask = heads(128)
    prefix = jnp.arange(128) < jnp.array([[40], [3]])
    mask = attention_mask(mask[:, 0, 0], prefix)
    if by_head:  # one head does not see its neighbours to the left
        place = jnp.arange(128)
        near = (place[:, None] - 3 <= place) & (place < place[:, None])
        mask &= jnp.stack([~near, jnp.ones_like(near)])[None]
    with tpu.force_tpu_interpret_mode():
        compare("splash", query, key, value, mask, 1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("by_head", [False, True])
def test_cudnn_agrees_with_the_reference(by_head):
    query, key, value, mask = heads(256, jnp.bfloat16, 64)
    if by_head:
        mask &= jax.random.bernoulli(KEY, 0.7, (1, 2, 256, 256))
    compare("cudnn", query, key, value, mask, 3e-2)


def test_the_kernel_follows_device_and_shapes():
    query, _, _, mask = heads(128)
    short, _, _, short_mask = heads(100)
    half = query.astype(jnp.bfloat16)
    choose = kernels.choose
    assert choose(query, mask, "cpu") == "folded"
    assert choose(query, mask, "cpu", heads_split=True) == "xla"
    assert choose(query, mask, "gpu") == "xla"
    assert choose(half, mask, "gpu") == "cudnn"
    assert choose(half[:, :1], mask, "gpu") == "xla"
    odd = mask[..., :127, :127] if mask.shape[2] > 1 else mask[..., :127]
    assert choose(half[:, :127], odd, "gpu") == "xla"  # cuDNN has no gradients there
    assert choose(query, mask, "tpu") == "splash"
    assert choose(short, short_mask, "tpu") == "xla"
    by_head = jnp.broadcast_to(mask, (2, 2, 128, 128))
    assert choose(query, by_head, "tpu") == "xla"


def test_what_flash_cannot_do_is_explained():
    with pytest.raises(ValueError, match="128 divides.*here they are 100"):
        kernels.attend(*heads(100), "flash")
    with pytest.raises(ValueError, match="'splash' needs lengths that 128 divides"):
        kernels.attend(*heads(100), "splash")
    with pytest.raises(ValueError, match="'flsh' is none of"):
        dataclasses.replace(CONFIG, attention="flsh")


@pytest.mark.parametrize("by_head", [False, True])
def test_linear_attention_is_its_weighted_mean(by_head):
    """By the sum over keys as it is printed, one query after the other."""
    keys = jax.random.split(KEY, 4)
    query, key, value = (jax.random.normal(k, (2, 5, 3, 4)) for k in keys[:3])
    mask = jax.random.bernoulli(keys[3], 0.6, (2, 3 if by_head else 1, 1, 5))
    mask = mask.at[0].set(True)
    mask = mask.at[1, 0].set(False)  # nothing to see: in every head, or in one
    found = np.asarray(kernels.attend(query, key, value, mask, "linear"))

    def phi(x):
        return np.where(x > 0, x + 1, np.exp(np.minimum(x, 0)))

    for b, q, n in np.ndindex(2, 5, 3):
        seen = np.asarray(mask)[b, n if by_head else 0, 0]
        weights = phi(np.asarray(key)[b, :, n]) @ phi(np.asarray(query)[b, q, n])
        weights = weights * seen
        expected = weights @ np.asarray(value)[b, :, n] / max(weights.sum(), 1e-9)
        np.testing.assert_allclose(found[b, q, n], expected, rtol=2e-5, atol=1e-6)
    gradient = jax.grad(lambda *x: kernels.attend(*x, mask, "linear").sum(), (0, 1, 2))
    assert all(np.isfinite(g).all() for g in gradient(query, key, value))


def test_linear_attention_refuses_masks_between_queries():
    query, key, value, _ = heads(8)
    causal = jnp.tril(jnp.ones((8, 8), bool))[None, None]
    with pytest.raises(ValueError, match="cross_modal_heads 0"):
        kernels.attend(query, key, value, causal, "linear")


def test_kernels_of_certain_devices_are_left_to_be_chosen():
    """Those that compute the same anywhere, and another function, stay."""
    found = {
        kernel: on_any_device(dataclasses.replace(CONFIG, attention=kernel)).attention
        for kernel in kernels.IMPLEMENTATIONS
    }
    kept = {kernel: kernel for kernel in ("auto", "xla", "folded", "linear")}
    assert found == kept | dict.fromkeys(("cudnn", "flash", "splash"), "auto")
