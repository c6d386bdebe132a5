"""Signed strengths of attributes: what they add to the logits (SPEC E.15)."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from gptface_jax.systems.gptface import decode as D
from gptface_jax.systems.gptface import predict as P
from gptface_jax.systems.gptface.options import DecodeConfig

IMAGE, TEXT = tiny.LAYOUT.image_slice, tiny.LAYOUT.text_slice
PLAIN = DecodeConfig(k=4, guidance="none")
GUIDED = DecodeConfig(k=4, step_size=0.3, kl_max=0.0, fusion=1.0, form="explicit")
# Of two samples, for two attributes each: the sentence and the opposite one.
SENTENCES = np.random.default_rng(3).integers(5, 13, (2, 2, 2, 5)).astype(np.int32)
WEIGHTS = np.array([[1.5, -3.0], [0.0, 4.0]], np.float32)


def scores(config, tokens, strengths=None):
    """Log-probabilities [2,12,8] of codes, six of which are open."""
    return _scores(*tiny.model(), config, tokens, strengths)


@functools.partial(jax.jit, static_argnums=(0, 2))
def _scores(module, params, config, tokens, strengths):
    is_open = ~jnp.asarray(tiny.known_mask(len(tokens), range(6)))
    masked = jnp.where(is_open, tiny.VOCAB.mask_id, tokens)
    remaining = jnp.ones(len(tokens))
    return P.predict(
        module, params, config, None, masked, is_open, remaining, strengths=strengths
    )[0]["image"]


def difference(tokens):
    """Sum of w (z_sentence - z_opposite) by hand, a text at a time."""
    total = np.zeros((2, 12, 8), np.float32)
    for sample in range(2):
        for attribute in range(2):
            for side, sign in ((0, 1), (1, -1)):
                text = SENTENCES[sample, attribute, side]
                seen = tokens.at[:, TEXT].set(text)  # the other sample is not used
                found = np.asarray(scores(PLAIN, seen))[sample]
                total[sample] += sign * WEIGHTS[sample, attribute] * found
    return total


@pytest.mark.parametrize(
    "config",
    [
        pytest.param(PLAIN, id="plain"),
        pytest.param(GUIDED, id="guided", marks=pytest.mark.slow),
    ],
)
def test_differences_of_sentences_are_added_to_the_text_as_it_is(config):
    tokens = tiny.tokens(2)
    strengths = P.Strengths(SENTENCES, WEIGHTS)
    found = scores(config, tokens, strengths)
    # Log-probabilities differ from logits by a constant of each position.
    expected = jax.nn.log_softmax(scores(config, tokens) + difference(tokens))
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert np.abs(found - scores(config, tokens)).max() > 0.1


@pytest.mark.slow
def test_candidates_are_chosen_by_the_signs_of_the_strengths():
    """By hand: sentence above opposite for each attribute, and the text's own match."""
    module, params = tiny.model()
    tokens = tiny.tokens(2)
    tokens = tokens.at[1, TEXT].set(tiny.VOCAB.pad_id)  # the second has no text
    match = jax.jit(functools.partial(P.itm_log_prob, module, params))
    expected = np.array(match(tokens)) * [1, 0]
    for attribute in range(2):
        for side, sign in ((0, 1), (1, -1)):
            seen = tokens.at[:, TEXT].set(SENTENCES[:, attribute, side])
            expected += sign * np.sign(WEIGHTS[:, attribute]) * match(seen)
    strengths = P.Strengths(SENTENCES, WEIGHTS)
    score = jax.jit(functools.partial(P.signed_match, module, params))
    found = score(tokens, strengths)
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    assert np.abs(expected).min() > 1e-3
    known = jnp.asarray(tiny.known_mask(2, range(6)))
    keys = jax.random.split(jax.random.key(5), 2)
    best, scores = D.rerank(module, params, tokens, known, PLAIN, keys, 4, strengths)
    config = PLAIN.settled(module.config, "cpu")
    begin = D._begin(module, params, tokens, known, config)

    @jax.jit
    def drawn(number):
        own = jax.vmap(jax.random.fold_in, (0, None))(keys, number)
        advance = functools.partial(D._advance, strengths=strengths)
        return advance(module, params, begin, config, own).tokens

    each = [drawn(i) for i in range(4)]
    chosen = np.argmax([score(x, strengths) for x in each], axis=0)
    for row, number in enumerate(chosen):
        np.testing.assert_array_equal(best.tokens[row], each[number][row])
    np.testing.assert_allclose(scores[:, 0], match(best.tokens), rtol=1e-5)


@pytest.mark.slow
def test_strengths_of_0_leave_every_token_and_the_match():
    module, params = tiny.model()
    tokens = tiny.tokens(2)
    known = jnp.asarray(tiny.known_mask(2, range(12)))
    keys = jax.random.split(jax.random.key(5), 2)
    config = dataclasses.replace(PLAIN, prune_at=(0.4,))
    rerank = functools.partial(D.rerank, module, params, tokens, known, config, keys, 3)
    plain, match = rerank()
    zero, same = rerank(P.Strengths(SENTENCES, np.zeros((2, 2), np.float32)))
    np.testing.assert_array_equal(zero.tokens, plain.tokens)
    np.testing.assert_allclose(same, match, rtol=1e-5)
    strong, _ = rerank(P.Strengths(SENTENCES, np.full((2, 2), 4, np.float32)))
    assert (strong.tokens[:, IMAGE] != plain.tokens[:, IMAGE]).any()
    with pytest.raises(ValueError, match="strengths need 'image'"):
        scores(
            dataclasses.replace(PLAIN, side="text"),
            tokens,
            P.Strengths(SENTENCES, WEIGHTS),
        )
