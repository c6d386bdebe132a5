import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from compiled import apply
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.nn.transformer import (
    REMAT,
    Attention,
    Transformer,
    TransformerConfig,
    layer_norm,
)

BASE = TransformerConfig(
    num_layers=3, width=16, num_heads=2, mlp_width=24, init="fan_in", remat="none"
)
KEY = jax.random.key(0)


def build(config, length=7, size=3):
    module = Transformer(config)
    x = jax.random.normal(jax.random.fold_in(KEY, 1), (size, length, config.width))
    lengths = jnp.array([length, 4, 6])[:size]
    mask = (jnp.arange(length) < lengths[:, None])[:, None, None, :]
    params = nn.meta.unbox(module.init(KEY, x, mask)["params"])
    noise = jax.random.split(jax.random.key(9), len(trees.flatten(params)))
    flat = {
        name: leaf + 0.1 * jax.random.normal(k, leaf.shape)
        for k, (name, leaf) in zip(noise, trees.flatten(params).items())
    }
    return module, trees.unflatten(flat), x, mask


def reference(params, x, mask, heads, act, eps=1e-6, memory=None, **options):
    """Equations 1-2 in numpy, a layer at a time, and the other forms; float64.

    Args:
      memory: [B,K,D] read in place of x.
      options: `norm` and `norm_position` of the config.

    Returns:
      The last states; before them those of every layer.
    """
    unbiased = options.get("norm") == "unbiased"
    post = options.get("norm_position") == "post"

    def norm(x, p):
        centred = x - x.mean(-1, keepdims=True)
        if unbiased:
            scaled = centred / (x.std(-1, ddof=1, keepdims=True) + eps)
        else:
            scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + eps)
        return scaled * p["scale"] + p["bias"]

    def forward(x, m):
        if "gate" in m:
            hidden = act(dense(x, m["gate"])) * dense(x, m["up"])
        else:
            hidden = act(dense(x, m["up"]))
        return dense(hidden, m["down"])

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    def split(x):
        return x.reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)

    params = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    x, layers = np.asarray(x, np.float64), params["layers"]
    memory = None if memory is None else np.asarray(memory, np.float64)
    found = []
    for i in range(len(layers["mlp_norm"]["scale"])):
        p = jax.tree.map(lambda a, i=i: a[i], layers)
        a, read = p["attention"], x if memory is None else memory
        h, read = (
            (x, read) if post else (norm(y, p["attention_norm"]) for y in (x, read))
        )
        q, k, v = (
            split(dense(y, a[n]))
            for n, y in (("query", h), ("key", read), ("value", read))
        )
        logits = q @ k.transpose(0, 1, 3, 2) / np.sqrt(q.shape[-1])
        logits = np.where(mask, logits, -np.inf)
        weights = np.exp(logits - logits.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        out = (weights @ v).transpose(0, 2, 1, 3).reshape(x.shape)
        x = x + dense(out, a["out"])
        if post:
            x = norm(x, p["attention_norm"])
            x = norm(x + forward(x, p["mlp"]), p["mlp_norm"])
        else:
            x = x + forward(norm(x, p["mlp_norm"]), p["mlp"])
        found.append(x)
    return [*found, x if post else norm(x, params["final_norm"])]


def gelu(x):
    return 0.5 * x * (1 + np.tanh(np.sqrt(2 / np.pi) * (x + 0.044715 * x**3)))


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


@pytest.mark.parametrize("gate,act", [("gelu", gelu), ("sigmoid", sigmoid)])
def test_equations_one_and_two(gate, act):
    config = dataclasses.replace(BASE, gate=gate)
    module, params, x, mask = build(config)
    out = apply(module, {"params": params}, x, mask)
    expected = reference(params, x, mask, 2, act)
    np.testing.assert_allclose(out, expected[-1], atol=2e-5)


def quick_gelu(x):
    return x * sigmoid(1.702 * x)


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize(
    "change,act",
    [
        ({"feed_forward": "dense"}, gelu),
        ({"norm": "unbiased"}, gelu),
        ({"norm_position": "post"}, gelu),
        ({"feed_forward": "dense", "norm_position": "post", "gate": "relu"}, relu),
        (
            {"feed_forward": "dense", "gate": "quick_gelu", "norm": "unbiased"},
            quick_gelu,
        ),
    ],
    ids=lambda c: "-".join(c.values()) if isinstance(c, dict) else "",
)
def test_the_other_forms_and_the_states_of_chosen_layers(change, act):
    config = dataclasses.replace(BASE, **change)
    module, params, x, mask = build(config)
    assert ("final_norm" in params) == (config.norm_position == "pre")
    assert ("gate" in params["layers"]["mlp"]) == (config.feed_forward == "gated")
    expected = reference(params, x, mask, 2, act, **change)
    out, states = apply(module, {"params": params}, x, mask, collect=(3, 1))
    np.testing.assert_allclose(out, expected[-1], atol=3e-5)
    np.testing.assert_allclose(states[0], expected[2], atol=3e-5)
    np.testing.assert_allclose(states[1], expected[0], atol=3e-5)
    with pytest.raises(ValueError, match="layer 4 of 3 is not there"):
        module.apply({"params": params}, x, mask, collect=(4,))


@pytest.mark.parametrize(
    "change", [{}, {"norm_position": "post"}, {"attention": "xla"}]
)
def test_a_stack_that_reads_a_memory(change):
    config = dataclasses.replace(BASE, **change)
    module, params, memory, mask = build(config)
    queries = jax.random.normal(jax.random.key(3), (3, 5, 16))
    out = apply(module, {"params": params}, queries, mask, memory=memory)
    expected = reference(params, queries, mask, 2, gelu, memory=memory, **change)
    np.testing.assert_allclose(out, expected[-1], atol=3e-5)
    # Queries do not see each other.
    other = queries.at[:, 1:].set(7.0)
    again = apply(module, {"params": params}, other, mask, memory=memory)
    np.testing.assert_allclose(again[:, 0], out[:, 0], atol=1e-5)


def test_values_may_differ_from_keys():
    """As where positions are added to what is looked for and not to what is read."""
    attention = Attention(BASE)
    x, memory, values = (
        jax.random.normal(jax.random.key(i), (2, n, 16))
        for i, n in enumerate((3, 6, 6))
    )
    mask = jnp.ones((1, 1, 1, 6), bool)
    params = nn.meta.unbox(attention.init(KEY, x, mask, memory)["params"])
    out = apply(attention, {"params": params}, x, mask, memory, values)
    flat = jax.tree.map(lambda a: np.asarray(a, np.float64), params)
    q, k, v = (
        (np.asarray(y) @ flat[n]["kernel"]).reshape(2, -1, 2, 8).transpose(0, 2, 1, 3)
        for n, y in (("query", x), ("key", memory), ("value", values))
    )
    weights = np.exp(q @ k.transpose(0, 1, 3, 2) / np.sqrt(8))
    weights /= weights.sum(-1, keepdims=True)
    expected = (weights @ v).transpose(0, 2, 1, 3).reshape(2, 3, 16)
    np.testing.assert_allclose(out, expected @ flat["out"]["kernel"], atol=1e-5)


def test_the_unbiased_norm_bears_equal_values():
    config = dataclasses.replace(BASE, norm="unbiased")
    norm = layer_norm(config, None)
    x = jnp.ones((1, 2, 16))
    params = nn.meta.unbox(norm.init(KEY, x)["params"])
    out, slope = jax.value_and_grad(lambda x: norm.apply({"params": params}, x).sum())(
        x
    )
    assert out == 0 and jnp.isfinite(slope).all()


@pytest.mark.parametrize(
    "change",
    [
        {"remat": "full"},
        *(
            pytest.param({"remat": name}, marks=pytest.mark.slow)
            for name in REMAT
            if name not in ("none", "full")
        ),
        {"unroll": 3},
        {"attention": "xla"},
    ],
    ids=lambda c: "-".join(map(str, *c.items())),
)
def test_how_it_is_computed_changes_nothing(change):
    module, params, x, mask = build(BASE)
    other = Transformer(dataclasses.replace(BASE, **change))

    def loss(m):
        return lambda p: jnp.sum(m.apply({"params": p}, x, mask) ** 2 * x)

    value, grads = jax.value_and_grad(loss(module))(params)
    again, others = jax.value_and_grad(loss(other))(params)
    np.testing.assert_allclose(value, again, rtol=1e-5)
    for a, b in zip(jax.tree.leaves(grads), jax.tree.leaves(others)):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=2e-4)


def products(rules=(), sizes=(1, 1, 1)):
    """Ranks of what a stack's products with kernels multiply, forward and backward."""
    module, params, x, mask = build(dataclasses.replace(BASE, num_layers=1))

    def loss(params):
        return jnp.sum(module.apply({"params": params}, x, mask) ** 2)

    def ranks(jaxpr):
        for eqn in jaxpr.eqns:
            if eqn.primitive.name == "dot_general":
                # Attention's products have batch axes, a dense layer's none.
                if not eqn.params["dimension_numbers"][1][0]:
                    yield tuple(v.aval.ndim for v in eqn.invars)
            for inner in jax.tree.leaves(list(eqn.params.values())):
                inner = getattr(inner, "jaxpr", inner)
                if hasattr(inner, "eqns"):
                    yield from ranks(inner)

    mesh = jax.sharding.AbstractMesh(sizes, ("data", "fsdp", "tensor"))
    with jax.sharding.use_abstract_mesh(mesh), nn.logical_axis_rules(rules):
        return list(ranks(jax.make_jaxpr(jax.grad(loss))(params).jaxpr))


@pytest.mark.slow
def test_dense_layers_are_products_of_two_matrices():
    found = products()
    # Seven kernels: forward, by the input, by the kernel (x itself needs no gradient).
    assert len(found) >= 18 and set(found) == {(2, 2)}
    split = (("length", "tensor"),)
    assert set(products(split, (1, 1, 1))) == {(2, 2)}  # a rule that splits nothing
    # The rows of a sequence on several devices are not made one axis with the batch.
    assert (3, 2) in products(split, (1, 1, 2))


def test_padding_is_never_seen():
    module, params, x, mask = build(dataclasses.replace(BASE, qk_norm=True))
    hidden = ~np.asarray(mask)[:, 0, 0]
    other = jnp.where(hidden[..., None], 100.0, x)
    a = np.asarray(apply(module, {"params": params}, x, mask))
    b = np.asarray(apply(module, {"params": params}, other, mask))
    np.testing.assert_allclose(a[~hidden], b[~hidden], atol=1e-5)
    assert np.abs(a[hidden] - b[hidden]).max() > 0.1


@pytest.mark.parametrize("norm_position", ["pre", "post"])
def test_one_layer_computes_the_positions_that_are_asked_for(norm_position):
    config = dataclasses.replace(BASE, num_layers=1, norm_position=norm_position)
    module, params, x, mask = build(config)
    whole = apply(module, {"params": params}, x, mask)
    some = apply(module, {"params": params}, x[:, :2], mask[:, :, :2], memory=x)
    np.testing.assert_allclose(some, whole[:, :2], atol=1e-5)


def test_bfloat16_keeps_float32_parameters():
    module, params, x, mask = build(dataclasses.replace(BASE, dtype="bfloat16"))
    assert all(p.dtype == jnp.float32 for p in jax.tree.leaves(params))
    out = apply(module, {"params": params}, x, mask)
    assert out.dtype == jnp.bfloat16
    exact = apply(Transformer(BASE), {"params": params}, x, mask)
    np.testing.assert_allclose(out.astype(jnp.float32), exact, atol=0.15)


def test_wrong_options_are_named():
    for options, said in (
        ({"num_heads": 3}, "not divisible"),
        ({"gate": "relu6"}, "'relu6'"),
        ({"init": "zero"}, "'zero'"),
        ({"feed_forward": "moe"}, "'moe' is none of gated, dense"),
        ({"norm": "batch"}, "'batch' is none of standard, unbiased"),
        ({"norm_position": "mid"}, "'mid' is none of pre, post"),
    ):
        with pytest.raises(ValueError, match=said):
            dataclasses.replace(BASE, **options)


@pytest.mark.shared
def test_golden_prenorm_glu(shared):
    """The block as the authors' framework builds it.

    Its norm divides by the unbiased standard deviation; sqrt((D-1)/D) on the gain
    makes that ours.
    """
    from gptface_jax.interop.torch_pickle import load_torch

    folder = shared / "golden"
    options = json.loads((folder / "prenorm_glu.json").read_text())
    state = load_torch(folder / "prenorm_glu.bin")
    arrays = np.load(folder / "prenorm_glu.npz")
    width = options["hidden_size"]
    unbiased = np.sqrt((width - 1) / width)

    def dense(name):
        return {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}

    def norm(name):
        scale = state[f"{name}.gamma"] * unbiased
        return {"scale": scale, "bias": state[f"{name}.beta"]}

    layers = []
    for i in range(options["layers_num"]):
        at = f"encoder.transformer.{i}"
        attention = {
            name: dense(f"{at}.self_attn.linear_layers.{j}")
            for j, name in enumerate(("query", "key", "value"))
        }
        attention["out"] = dense(f"{at}.self_attn.final_linear")
        mlp = {
            ours: dense(f"{at}.feed_forward.linear_{theirs}")
            for ours, theirs in (("gate", "gate"), ("up", "1"), ("down", "2"))
        }
        layers.append(
            {
                "attention": attention,
                "mlp": mlp,
                "attention_norm": norm(f"{at}.layer_norm_1"),
                "mlp_norm": norm(f"{at}.layer_norm_2"),
            }
        )
    params = {
        "layers": jax.tree.map(lambda *a: np.stack(a), *layers),
        "final_norm": norm("encoder.layer_norm"),
    }
    config = TransformerConfig(
        num_layers=options["layers_num"],
        width=width,
        num_heads=options["heads_num"],
        mlp_width=options["feedforward_size"],
        gate="gelu_exact",
        norm_eps=1e-12,
        remat="none",
    )
    tokens, segments = arrays["tokens"], arrays["segments"]
    words = state["embedding.word.embedding.weight"][tokens]
    x = words + state["embedding.pos.embedding.weight"][: tokens.shape[1]]
    mask = (segments > 0)[:, None, None, :]
    hidden = apply(Transformer(config), {"params": params}, jnp.asarray(x), mask)
    real = segments > 0
    np.testing.assert_allclose(
        np.asarray(hidden)[real], arrays["hidden"][real], atol=2e-4
    )
