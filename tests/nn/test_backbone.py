"""Embedding, layers and output, in the forms that the papers have."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
from compiled import apply
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.core.vocab import JointVocab
from gptface_jax.nn.backbone import Backbone, BackboneConfig, some_layers
from gptface_jax.nn.transformer import TransformerConfig

KEY = jax.random.key(0)
SMALL = BackboneConfig(
    transformer=TransformerConfig(
        num_layers=2, width=16, num_heads=2, mlp_width=24, init="fan_in", remat="none"
    ),
    vocab=tiny.VOCAB,
    max_positions=20,
    embedding_init=0.3,
)
# SPEC B.6: dense, bare, with segments.
TALK2FACE = BackboneConfig(
    transformer=TransformerConfig(feed_forward="dense", norm="unbiased"),
    vocab=JointVocab(codebook_size=1024, multiple_of=1),
    max_positions=1024,
    segments=3,
    output_bias=False,
    output_transform=False,
)


def everything(module, tokens):
    return module.token_logits(module(tokens))


def shapes(config):
    tokens = jnp.zeros((1, 4), jnp.int32)
    made = jax.eval_shape(
        lambda key: Backbone(config).init(key, tokens, method=everything), KEY
    )
    return nn.meta.unbox(made["params"])


def build(**changes):
    module = Backbone(dataclasses.replace(SMALL, **changes))
    init = jax.jit(lambda key: module.init(key, tiny.tokens(1), method=everything))
    return module, nn.meta.unbox(init(KEY)["params"])


@pytest.mark.parametrize("tied,values", [(True, 110_072_064), (False, 134_299_392)])
def test_talk2face_has_as_many_parameters_as_published(tied, values):
    found = shapes(dataclasses.replace(TALK2FACE, tied_output=tied))
    assert trees.count(found) == values
    assert ("output" in found["tokens"]) is not tied


def test_parameter_paths_are_those_of_released_models():
    """Public API: renaming one makes every model directory unreadable."""
    ours = set(trees.flatten(shapes(SMALL)))
    dense = [f"{n}/{p}" for n in ("output_dense",) for p in ("kernel", "bias")]
    layers = [
        f"transformer/layers/{n}/{p}"
        for n in (
            *(f"attention/{x}" for x in ("query", "key", "value", "out")),
            *(f"mlp/{x}" for x in ("gate", "up", "down")),
        )
        for p in ("kernel", "bias")
    ]
    norms = [
        f"{n}/{p}"
        for n in (
            "output_norm",
            "transformer/final_norm",
            "transformer/layers/attention_norm",
            "transformer/layers/mlp_norm",
        )
        for p in ("scale", "bias")
    ]
    tables = [f"tokens/{n}" for n in ("embedding", "position", "output_bias")]
    assert ours == {*dense, *layers, *norms, *tables}
    _, params = tiny.model()
    more = {"tokens/match", "itm/kernel", "itm/bias"}
    assert set(trees.flatten(params)) == ours | more


def test_segments_add_nothing_at_the_start_and_rows_of_their_own_later():
    plain, params = build()
    module, given = build(segments=3)
    assert not given["tokens"]["segment"].any()
    tokens = tiny.tokens(2)
    given = {**params, "tokens": {**params["tokens"], **given["tokens"]}}
    given["tokens"].update({k: params["tokens"][k] for k in params["tokens"]})
    expected = apply(plain, {"params": params}, tokens)
    np.testing.assert_array_equal(apply(module, {"params": given}, tokens), expected)
    row = jnp.linspace(-1, 1, 16)  # a constant would be lost in the norms
    given["tokens"]["segment"] = jnp.zeros((3, 16)).at[2].set(row)
    segments = jnp.zeros(tokens.shape, jnp.int32).at[1, 4:].set(2)
    states = apply(module, {"params": given}, tokens, segment_ids=segments)
    np.testing.assert_array_equal(states[0], expected[0])
    assert jnp.abs(states[1] - expected[1]).max() > 0.01


def test_an_untied_output_reads_a_table_of_its_own():
    module, params = build(tied_output=False, output_transform=False)
    assert not {"output_dense", "output_norm"} & set(params)
    hidden = jax.random.normal(KEY, (2, 3, 16))
    logits = apply(module, {"params": params}, hidden, method="token_logits")
    expected = hidden @ params["tokens"]["output"].T
    np.testing.assert_allclose(logits[..., :21], expected[..., :21], atol=1e-5)
    assert (logits[..., 21:] < -1e29).all()  # rows without an id


def test_states_after_chosen_layers():
    module, params = build()
    tokens = tiny.tokens(2)
    variables = {"params": params}
    first, last = apply(module, variables, tokens, method="layer_states")
    half, share = some_layers(module, params, 0, 1)
    np.testing.assert_allclose(
        first, apply(half, {"params": share}, tokens, method="states"), atol=1e-6
    )
    whole = apply(module, variables, tokens, method="states")
    np.testing.assert_allclose(last, whole, atol=1e-6)
    (chosen,) = module.apply(variables, tokens, (2,), method="layer_states")
    np.testing.assert_allclose(chosen, last, atol=1e-6)
