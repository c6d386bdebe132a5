"""Parameters shifted along any score's gradient: the same numbers in two forms."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.nn import backbone, low_rank, shifted_network
from gptface_jax.nn.backbone import Backbone, BackboneConfig
from gptface_jax.nn.transformer import TransformerConfig

KEY = jax.random.key(0)
TOKENS = tiny.tokens(1)[:1]
AT, CODE = 4, 2  # what is asked for: this code at this position


@functools.cache
def network(feed_forward="gated"):
    transformer = TransformerConfig(
        num_layers=2, width=16, num_heads=2, mlp_width=24, init="fan_in",
        feed_forward=feed_forward, remat="none",
    )  # fmt: skip
    module = Backbone(
        BackboneConfig(transformer, tiny.VOCAB, max_positions=20, embedding_init=0.3)
    )
    init = jax.jit(
        lambda key: module.init(key, TOKENS, method=lambda m, t: m.image_logits(m(t)))
    )
    return module, nn.meta.unbox(init(KEY)["params"])


def states_score(run):
    """How much the state of a position goes along with a direction."""
    first = run(0, 1, "states", TOKENS)
    hidden = run(1, 2, "__call__", TOKENS, hidden_states=first)
    return jnp.sum(hidden[0, AT] * jnp.arange(16.0)), hidden


def logits_of(module, tokens, hidden_states=None):
    hidden = module(tokens, hidden_states=hidden_states)
    return module.image_logits(hidden[:, AT])


def code_score(run):
    """log p of one code, by another method of the network."""
    first = run(0, 1, "states", TOKENS)
    logits = run(1, 2, logits_of, TOKENS, hidden_states=first)
    return jax.nn.log_softmax(logits[0])[CODE], None


def plain(score, module):
    """The same score of parameters, by JAX alone."""

    def of(params):
        def run(start, stop, method, *args, **kwargs):
            part, share = backbone.some_layers(module, params, start, stop)
            return part.apply({"params": share}, *args, method=method, **kwargs)

        return score(run)[0]

    return of


@pytest.mark.slow
@pytest.mark.parametrize("feed_forward", ["gated", "dense"])
@pytest.mark.parametrize("score", [states_score, code_score])
def test_gradient_of_any_score(score, feed_forward):
    module, params = network(feed_forward)
    value, slopes = jax.jit(jax.value_and_grad(plain(score, module)))(params)
    slopes = trees.flatten(slopes)

    @functools.partial(jax.jit, static_argnums=0)
    def ours(low):
        shift = shifted_network.begin(params, "^(transformer|output)", low)
        found = low_rank.value_and_gradient(module, params, shift, score)
        return found[0], found[2], found[2].squares()

    for low in (False, True):
        again, gradient, squares = ours(low)
        np.testing.assert_allclose(again, value, rtol=1e-5)
        kernels = {p for p in squares if p.endswith("/kernel")}
        assert set(gradient.keys) <= (kernels if low else set())
        for path, found in squares.items():
            own = slopes[path] ** 2
            axes = tuple(range(1, own.ndim)) if "/layers/" in path else None
            np.testing.assert_allclose(
                found, own.sum(axes), rtol=1e-4, atol=1e-9, err_msg=path
            )
        # X^T D of every layer is the gradient.
        for path, keys in gradient.keys.items():
            product = jnp.einsum("...nd,...ne->...de", keys, gradient.values[path])
            product = product.sum(-3) if "/layers/" in path else product
            product = product.reshape(slopes[path].shape)
            np.testing.assert_allclose(
                product, slopes[path], rtol=1e-4, atol=2e-5, err_msg=path
            )


@pytest.mark.slow
def test_a_step_raises_the_score_alike_in_both_forms():
    module, params = network()

    @functools.partial(jax.jit, static_argnums=0)
    def after(low):
        shift = shifted_network.begin(params, "^transformer/", low)
        found = []
        for _ in range(2):
            value, _, gradient = low_rank.value_and_gradient(
                module, params, shift, code_score
            )
            found.append(value)
            shift = low_rank.step("ascent_norm", 0.02, params, shift, gradient)
        logits = shifted_network.apply(
            module, shift.variables(params), TOKENS, method=logits_of
        )
        return jnp.stack(found), logits

    (first, materialized), (second, read) = after(False), after(True)
    assert (jnp.diff(first) > 0).all()
    np.testing.assert_allclose(second, first, rtol=1e-4)
    np.testing.assert_allclose(read, materialized, atol=1e-4)


def test_the_update_set_bounds_what_moves():
    module, params = network()
    shift = shifted_network.begin(params, "/mlp/", True)
    assert set(shift.factored) == {
        f"transformer/layers/mlp/{n}/kernel" for n in ("gate", "up", "down")
    }
    assert all("/mlp/" in p and p.endswith("/bias") for p in shift.materialized)
    _, _, gradient = low_rank.value_and_gradient(module, params, shift, states_score)
    assert set(gradient.keys) == set(shift.factored)
    assert set(gradient.materialized) == set(shift.materialized)


def test_what_reads_cannot_hold_is_said():
    module, params = network()
    shift = shifted_network.begin(params, "tokens/embedding", True)
    with pytest.raises(ValueError, match="logits by tokens/embedding"):
        low_rank.value_and_gradient(module, params, shift, code_score)
    low_rank.value_and_gradient(module, params, shift, states_score)

    def twice(module, tokens):
        return module.image_logits(module(tokens)) + module.image_logits(module(tokens))

    with pytest.raises(ValueError, match="used twice"):
        low_rank.value_and_gradient(
            module, params, shifted_network.begin(params, "^output", True),
            lambda run: (run(0, 2, twice, TOKENS).sum(), None),
        )  # fmt: skip
