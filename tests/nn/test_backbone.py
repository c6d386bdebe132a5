"""Embedding, layers and output, in the forms that the papers have."""

import dataclasses
import json

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
from gptface_jax.ops.attention_mask import attention_mask

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


@pytest.mark.shared
def test_golden_talk2face(shared):
    """The dense prefix language model as the authors' framework computes it."""
    from gptface_jax.interop.torch_pickle import load_torch

    folder = shared / "golden"
    options = json.loads((folder / "talk2face_dense.json").read_text())
    state = load_torch(folder / "talk2face_dense.bin")
    arrays = np.load(folder / "talk2face_dense.npz")

    def dense(name):
        return {"kernel": state[f"{name}.weight"].T, "bias": state[f"{name}.bias"]}

    def norm(name):
        return {"scale": state[f"{name}.gamma"], "bias": state[f"{name}.beta"]}

    layers = []
    for i in range(options["layers_num"]):
        at = f"encoder.transformer.{i}"
        parts = ("query", "key", "value")
        attention = {
            name: dense(f"{at}.self_attn.linear_layers.{j}")
            for j, name in enumerate(parts)
        }
        attention["out"] = dense(f"{at}.self_attn.final_linear")
        mlp = {
            ours: dense(f"{at}.feed_forward.linear_{theirs}")
            for ours, theirs in (("up", 1), ("down", 2))
        }
        norms = {
            f"{name}_norm": norm(f"{at}.layer_norm_{j}")
            for name, j in (("attention", 1), ("mlp", 2))
        }
        layers.append({"attention": attention, "mlp": mlp, **norms})
    tables = {"embedding": "word", "position": "pos", "segment": "seg"}
    params = {
        "tokens": {
            ours: state[f"embedding.{theirs}.embedding.weight"]
            for ours, theirs in tables.items()
        },
        "transformer": {
            "layers": jax.tree.map(lambda *a: np.stack(a), *layers),
            "final_norm": norm("encoder.layer_norm"),
        },
    }
    params["tokens"]["output"] = state["target.lm.output_layer.weight"]
    size = options["vocab_size"]
    transformer = TransformerConfig(
        num_layers=options["layers_num"],
        width=options["hidden_size"],
        num_heads=options["heads_num"],
        mlp_width=options["feedforward_size"],
        feed_forward="dense",
        norm="unbiased",
        norm_eps=options["layernorm_eps"],
        remat="none",
    )
    config = dataclasses.replace(
        TALK2FACE,
        transformer=transformer,
        vocab=JointVocab(text_size=size, codebook_size=0, multiple_of=1),
        max_positions=options["max_seq_length"],
        tied_output=False,
    )
    module, params = Backbone(config), jax.tree.map(jnp.asarray, params)
    tokens, segments = (
        jnp.asarray(arrays[n].astype(np.int32)) for n in ("tokens", "segments")
    )
    mask = attention_mask(segments > 0, segments == 1)
    hidden = apply(
        module, {"params": params}, tokens, attn_mask=mask, segment_ids=segments
    )
    logits = apply(module, {"params": params}, hidden, method="token_logits")
    real = np.asarray(segments) > 0
    for name, found in (("hidden", hidden), ("logits", logits)):
        np.testing.assert_allclose(
            np.asarray(found)[real], arrays[name][real], atol=2e-4, err_msg=name
        )
    said = np.asarray(jax.nn.log_softmax(logits))
    nll = -np.take_along_axis(said, arrays["target"][..., None], -1)[..., 0]
    np.testing.assert_allclose(nll[segments == 2].mean(), arrays["loss"], atol=2e-4)
