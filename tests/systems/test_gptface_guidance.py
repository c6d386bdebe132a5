"""A sample's own parameters in two forms: the same numbers (SPEC E.1)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from gptface_jax.core import trees
from gptface_jax.nn import backbone, low_rank, shifted_network
from gptface_jax.systems.gptface import decode as D
from gptface_jax.systems.gptface import guidance
from gptface_jax.systems.gptface import predict as P
from gptface_jax.systems.gptface.options import DecodeConfig

# What contributes to p(q=1): all but the output layers.
CLASSES = {
    "linear maps": "transformer/layers/mlp/up/kernel",
    "their biases": "transformer/layers/attention/out/bias",
    "norms": "transformer/layers/mlp_norm/scale",
    "last norm": "transformer/final_norm/bias",
    "table": "tokens/embedding",
    "positions": "tokens/position",
    "match rows": "tokens/match",
    "matching head": "itm/kernel",
}


@functools.cache
def gradients(as_factors):
    """Squared norms of the gradient after a step, of three samples."""
    module, params = tiny.model()

    def one(tokens):
        shift = shifted_network.begin(params, ".*", as_factors)
        _, _, gradient = guidance.value_and_gradient(module, params, shift, tokens)
        shift = low_rank.step("ascent_norm", 0.1, params, shift, gradient)
        return guidance.value_and_gradient(module, params, shift, tokens)[2].squares()

    return jax.jit(jax.vmap(one))(tiny.tokens(3))


@pytest.mark.slow
@pytest.mark.parametrize("path", CLASSES.values(), ids=CLASSES)
def test_gradient_norms_of_every_class_of_parameters(path):
    materialized, low_rank = gradients(False)[path], gradients(True)[path]
    assert materialized.shape == ((3, 2) if "/layers/" in path else (3,))
    assert (materialized > 0).all()
    np.testing.assert_allclose(low_rank, materialized, rtol=1e-5)


@pytest.mark.parametrize("layers", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_the_gradient_is_that_of_the_whole_network(layers):
    module, params = tiny.model()
    module, params = backbone.some_layers(module, params, 0, layers)
    row = tiny.tokens(1)[0]
    shift = shifted_network.begin(params, ".*", low_rank=False)

    @jax.jit
    def ours(shift):
        return guidance.value_and_gradient(module, params, shift, row)

    value, hidden, gradient = ours(shift)
    expected, slopes = jax.jit(
        jax.value_and_grad(lambda p: P.itm_log_prob(module, p, row[None])[0])
    )(params)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    whole = module.apply({"params": params}, row[None])[0]
    np.testing.assert_allclose(hidden, whole, atol=1e-5)
    for path, slope in trees.flatten(slopes).items():
        np.testing.assert_allclose(
            gradient.materialized[path], slope, rtol=1e-4, atol=1e-6, err_msg=path
        )


@pytest.mark.parametrize("kernel", ["linear", "xla"])
def test_matching_of_one_layer_is_that_of_the_whole_pass(kernel):
    module, params = tiny.model()
    module, params = backbone.some_layers(module, params, 0, 1)
    c = module.config
    layers = dataclasses.replace(c.transformer, attention=kernel)
    module = module.clone(config=dataclasses.replace(c, transformer=layers))
    row = tiny.tokens(2)

    def both(module, row):
        return module.itm_logits(module(row)), module.match_logits(row)

    whole, alone = module.apply({"params": params}, row, method=both)
    np.testing.assert_allclose(alone, whole, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["literal", "ascent", "ascent_layer", "ascent_norm"])
def test_logits_of_both_sides_after_two_steps_and_a_trust_region(rule):
    module, params = tiny.model()
    tokens = tiny.tokens(3)
    tokens = tokens.at[:, [2, 3, 7, 15]].set(tiny.VOCAB.mask_id)

    def logits(form):
        config = DecodeConfig(
            guidance=rule, step_size=0.05, num_steps=2, update_set=".*",
            form=form, side="both",
        )  # fmt: skip

        def one(row):
            shift, *_ = P.shift(module, params, row, config)
            variables = shift.scaled(params, 0.7).variables(params)
            return P.side_logits(module, variables, row, config)

        return jax.jit(jax.vmap(one))(tokens)

    both = DecodeConfig(side="both")
    plain = [P.side_logits(module, {"params": params}, t, both) for t in tokens]
    materialized, low_rank = logits("explicit"), logits("low_rank")
    for side, expected in materialized.items():
        before = jnp.stack([x[side] for x in plain])
        finite = jnp.isfinite(before)
        size = jnp.abs(jnp.where(finite, expected, 0)).max()
        assert jnp.abs(expected - before)[finite].max() > 0.02 * size, side
        np.testing.assert_allclose(
            low_rank[side][finite], expected[finite], rtol=1e-5, atol=1e-5 * size
        )


@pytest.mark.slow
def test_no_weights_of_a_samples_own_are_formed():
    """In the low-rank form the program of a batch holds no array [batch, weights]."""
    module, params = tiny.model()
    known = jnp.asarray(tiny.known_mask(3, range(12)))

    def program(form):
        config = DecodeConfig(form=form, k=4)
        return D.fill_jitted.lower(
            module, params, tiny.tokens(3), known, config, jax.random.key(0)
        ).as_text()

    own = "tensor<3x2x16x24xf32>"  # [batch, layers, width, feed-forward width]
    assert own in program("explicit") and own not in program("low_rank")


@pytest.mark.slow
@pytest.mark.parametrize("form", ["explicit", "low_rank"])
def test_activations_in_bfloat16_leave_guidance_in_float32(form):
    module, params = tiny.model()
    half = type(module)(tiny.config(transformer={"dtype": "bfloat16"}))
    tokens = tiny.tokens(3).at[:, [2, 3, 7, 15]].set(tiny.VOCAB.mask_id)
    config = DecodeConfig(step_size=1e-3, form=form)

    def one(model, row):
        shift, match, _ = P.shift(model, params, row, config)
        logits = P.side_logits(model, shift.variables(params), row, config)["image"]
        return shift, match, logits

    shift, match, logits = jax.jit(jax.vmap(lambda t: one(half, t)))(tokens)
    _, expected, exact = jax.jit(jax.vmap(lambda t: one(module, t)))(tokens)
    assert logits.dtype == match.dtype == jnp.float32
    np.testing.assert_allclose(match, expected, atol=0.02)
    np.testing.assert_allclose(logits, exact, atol=0.05 * float(jnp.abs(exact).max()))
    parts = [shift.materialized, {p: r["values"] for p, r in shift.factors.items()}]
    assert {x.dtype for x in jax.tree.leaves(parts)} == {jnp.dtype("float32")}
    if form == "explicit":
        # A thousandth of the parameters' norm: three digits of bfloat16 would lose it.
        own = shifted_network.begin(params, config.update_set, False).materialized
        moved = sum(jnp.sum((shift.materialized[p] - x) ** 2, (*range(1, x.ndim + 1),))
                    for p, x in own.items())  # fmt: skip
        size = sum(jnp.sum(x**2) for x in own.values())
        np.testing.assert_allclose(jnp.sqrt(moved / size), 1e-3, rtol=1e-3)
