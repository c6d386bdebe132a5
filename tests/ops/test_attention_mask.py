"""What may see what, as it is drawn: rows are queries, columns keys."""

import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.ops.attention_mask import attention_mask


def drawn(*rows):
    return np.array([[x == "1" for x in row.split()] for row in rows])


def valid(text):
    """bool [1,L], False where `_` stands."""
    return jnp.array([[x != "_" for x in text.split()]])


def test_padding_is_never_seen():
    mask = attention_mask(jnp.array([[True, True, False], [True, True, True]]))
    assert mask.shape == (2, 1, 1, 3)
    np.testing.assert_array_equal(mask[:, 0, 0], drawn("1 1 0", "1 1 1"))


def test_a_prefix_is_seen_by_all_and_targets_are_one_way():
    # SPEC B.12: segments 1 1 1 2 2 0.
    mask = attention_mask(valid("p p p t t _"), jnp.array([[1, 1, 1, 0, 0, 0]]) == 1)
    expected = drawn(
        "1 1 1 0 0 0",
        "1 1 1 0 0 0",
        "1 1 1 0 0 0",
        "1 1 1 1 0 0",
        "1 1 1 1 1 0",
        "1 1 1 1 1 0",
    )
    assert mask.shape == (1, 1, 6, 6)
    np.testing.assert_array_equal(mask[0, 0], expected)


def test_prefixes_are_an_examples_own_and_none_is_causal():
    prefix = jnp.array([[True, False, False], [False, False, False]])
    mask = attention_mask(jnp.ones((2, 3), bool), prefix)
    causal = drawn("1 0 0", "1 1 0", "1 1 1")
    np.testing.assert_array_equal(mask[1, 0], causal)
    np.testing.assert_array_equal(mask[0, 0], causal)  # a prefix of one sees itself
    prefix = prefix.at[0, 1].set(True)
    mask = attention_mask(jnp.ones((2, 3), bool), prefix)
    np.testing.assert_array_equal(mask[0, 0], drawn("1 1 0", "1 1 0", "1 1 1"))


def test_heads_see_all_their_own_or_the_other_modality():
    side = jnp.array([0, 0, 1, 1])
    mask = attention_mask(valid("i i w _"), None, side, ("own", "other", "all"))
    own, other, all_of_them = mask[0]
    np.testing.assert_array_equal(
        own, drawn("1 1 0 0", "1 1 0 0", "0 0 1 0", "0 0 1 0")
    )
    np.testing.assert_array_equal(
        other, drawn("0 0 1 0", "0 0 1 0", "1 1 0 0", "1 1 0 0")
    )
    np.testing.assert_array_equal(all_of_them, np.tile(valid("i i w _"), (4, 1)))


def test_positions_of_neither_modality_are_narrowed_by_no_head():
    side = jnp.array([[0, 1, -1], [0, 1, 0]])
    mask = attention_mask(jnp.ones((2, 3), bool), None, side, ("other", "all"))
    np.testing.assert_array_equal(mask[0, 0], drawn("0 1 1", "1 0 1", "1 1 1"))
    np.testing.assert_array_equal(mask[1, 0], drawn("0 1 0", "1 0 1", "0 1 0"))
    assert mask[:, 1].all()


def test_all_of_it_together():
    """Image, text, two target words: cross-modal heads are off in the target."""
    prefix = jnp.array([[True, True, False, False, False]])
    side = jnp.array([0, 1, -1, -1, -1])
    mask = attention_mask(valid("i w t t _"), prefix, side, ("other", "all"))
    expected = drawn("0 1 0 0 0", "1 0 0 0 0", "1 1 1 0 0", "1 1 1 1 0", "1 1 1 1 0")
    np.testing.assert_array_equal(mask[0, 0], expected)
    expected[:2, :2] = True
    np.testing.assert_array_equal(mask[0, 1], expected)


def test_wrong_heads_are_named():
    ones = jnp.ones((1, 2), bool)
    with pytest.raises(ValueError, match="head 'both' is none of all, own, other"):
        attention_mask(ones, heads=("both",))
    with pytest.raises(ValueError, match="need the modality"):
        attention_mask(ones, heads=("all", "other"))
