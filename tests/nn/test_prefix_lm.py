"""Prefix language model: masks, positions; nothing is seen of what is to be written."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_talk2face as t2f
from compiled import apply
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.core.vocab import JointVocab
from gptface_jax.nn import prefix_lm
from gptface_jax.nn.prefix_lm import PrefixLM, PrefixLMConfig

SEGMENTS = np.array([[1, 1, 1, 2, 2, 0]], np.int32)


def test_the_mask_of_the_specification():
    """SPEC B.12."""
    found = prefix_lm.sequence_mask(SEGMENTS, SEGMENTS, t2f.config())
    expected = [
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 1, 0],
        [1, 1, 1, 1, 1, 0],
    ]
    np.testing.assert_array_equal(found[0, 0], np.array(expected, bool))


def test_full_and_causal_masks():
    full = prefix_lm.sequence_mask(SEGMENTS, SEGMENTS, t2f.config(visibility="full"))
    assert full.shape == (1, 1, 1, 6) and full[0, 0, 0].tolist() == [True] * 5 + [False]
    causal = prefix_lm.sequence_mask(
        SEGMENTS, SEGMENTS, t2f.config(visibility="causal")
    )
    expected = np.tril(np.ones((6, 6), bool)) & (SEGMENTS > 0)
    np.testing.assert_array_equal(causal[0, 0], expected)


def test_rows_by_modality():
    config = t2f.config(positions="by_modality")
    image = [t2f.CODES + c for c in range(4)]
    text_first = [t2f.CLS, 5, 6, t2f.SEP, 7, t2f.SEP, *image, t2f.SEP]
    image_first = [t2f.CLS, 5, t2f.SEP, *image, t2f.SEP, 7, 8, t2f.SEP]
    found = prefix_lm.position_rows(np.array([text_first, image_first]), config)
    assert found[0].tolist() == [0, 5, 6, 7, 8, 9, 1, 2, 3, 4, 10]
    assert found[1].tolist() == [0, 5, 6, 1, 2, 3, 4, 7, 8, 9, 10]
    assert prefix_lm.position_rows(np.array([text_first]), t2f.config()) is None


def test_rows_by_modality_are_those_of_gptface():
    """A sequence of GPTFace has row t at t, so its tables serve both (SPEC E.16)."""
    config = t2f.config(grid=tiny.LAYOUT.grid, positions="by_modality")
    found = prefix_lm.position_rows(tiny.tokens(2), config)
    expected = np.broadcast_to(np.arange(tiny.LAYOUT.length), found.shape)
    np.testing.assert_array_equal(found, expected)


def test_two_images_in_a_sequence_have_the_same_rows():
    config = t2f.config(positions="by_modality")
    image = [t2f.CODES] * 4
    tokens = np.array([[t2f.CLS, *image, 5, t2f.SEP, *image, t2f.SEP]])
    assert prefix_lm.position_rows(tokens, config)[0].tolist() == [
        *(0, 1, 2, 3, 4),
        *(5, 6),
        *(1, 2, 3, 4),
        7,
    ]


@pytest.mark.parametrize(
    "changes",
    [{}, {"positions": "by_modality", "cross_modal_heads": 1}],
    ids=["plain", "by_modality"],
)
@pytest.mark.parametrize("row", range(3))
def test_nothing_is_seen_of_what_comes_later(changes, row):
    """Another token at a place of the target changes no state before it."""
    module, params = t2f.model(**changes)
    prefix = t2f.prefixes()[row]
    used = int((prefix != t2f.PAD).sum())
    target = [7, 8, 9, t2f.SEP]
    tokens = np.array([[*prefix[:used], *target]], np.int32)
    segments = np.where(np.arange(tokens.shape[1]) < used, 1, 2)[None]
    variables = {"params": params}
    before = apply(module, variables, tokens, segments, method="sequence")
    for place in range(used, tokens.shape[1]):
        changed = tokens.copy()
        changed[0, place] = 10
        after = apply(module, variables, changed, segments, method="sequence")
        np.testing.assert_allclose(after[0, :place], before[0, :place], atol=1e-6)
        assert jnp.abs(after[0, place:] - before[0, place:]).max() > 1e-3


@pytest.mark.parametrize("tied,values", [(True, 110_072_064), (False, 134_299_392)])
def test_the_default_has_as_many_parameters_as_published(tied, values):
    config = PrefixLMConfig(
        tied_output=tied, vocab=JointVocab(codebook_size=1024, multiple_of=1)
    )
    tokens = jnp.zeros((1, 4), jnp.int32)
    shapes = jax.eval_shape(
        lambda key: PrefixLM(config).init(key, tokens, method="init_all"),
        jax.random.key(0),
    )
    assert trees.count(nn.meta.unbox(shapes["params"])) == values


@pytest.mark.parametrize(
    "changes,message",
    [
        ({"visibility": "some"}, "'some' is none of prefix, full, causal"),
        ({"positions": "rotary"}, "'rotary' is none of absolute, by_modality"),
        ({"length": 30}, "length 30 exceeds max_positions 24"),
        ({"cross_modal_heads": 2}, "cross_modal_heads is 2"),
    ],
)
def test_bad_configs(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(t2f.config(), **changes)
