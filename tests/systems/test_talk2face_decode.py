"""Cached decoding equals the uncached, token for token; scores are the model's."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_talk2face as t2f

from gptface_jax.systems.talk2face import decode
from gptface_jax.systems.talk2face.decode import GenerateConfig
from gptface_jax.systems.talk2face.model import logits

FORMS = {
    "plain": {},
    "by_modality": {"positions": "by_modality", "cross_modal_heads": 1},
    "untied": {"tied_output": False, "transformer": (("qk_norm", True),)},
    "no_segments": {"segments": 0},
}


def keys(prompts: int, samples: int, seed: int = 0):
    return jax.random.split(jax.random.key(seed), (prompts, samples))


def draw(form="plain", samples=2, rows=slice(None), given=None, **options):
    module, params = t2f.model(**FORMS[form])
    config = GenerateConfig(**options)
    return decode.generate(
        module, params, t2f.prefixes()[rows], config, keys(3, samples)[rows], given
    )


IMAGE = {"modality": "image", "top_k": 5}
TEXT = {"modality": "text", "max_tokens": 6, "top_k": 0, "top_p": 0.9}
QUICK = (("untied", IMAGE), ("by_modality", TEXT))


@pytest.mark.parametrize(
    "form, options",
    [
        pytest.param(
            form, options, marks=[pytest.mark.slow] * ((form, options) not in QUICK)
        )
        for form in FORMS
        for options in (IMAGE, TEXT)
    ],
)
def test_cached_is_uncached_token_for_token(form, options):
    given = np.array([[7, 8], [9, t2f.PAD], [t2f.PAD] * 2], np.int32)
    given = given if options["modality"] == "text" else None
    cached, whole = (
        draw(form, given=given, cached=cached, **options) for cached in (True, False)
    )
    np.testing.assert_array_equal(cached.tokens, whole.tokens)
    np.testing.assert_allclose(cached.log_probs, whole.log_probs, atol=1e-5)
    assert len(np.unique(cached.tokens.reshape(6, -1), axis=0)) > 3


@pytest.mark.slow
def test_greedy_takes_the_likeliest_token_of_the_whole_sequence():
    module, params = t2f.model()
    found = draw(samples=1, modality="image", temperature=0.0)
    prefix = t2f.prefixes()[1]
    used = (prefix != t2f.PAD).sum()
    sequence = list(prefix[:used])
    for place in range(4):
        tokens = np.array([sequence], np.int32)
        segments = np.where(np.arange(len(sequence)) < used, 1, 2)[None]
        said = logits(module.config, params, tokens, segments)[0, -1]
        codes = said[t2f.CODES : t2f.CODES + 8]
        assert found.tokens[1, 0, place] == t2f.CODES + int(jnp.argmax(codes))
        log_prob = jax.nn.log_softmax(codes).max()
        np.testing.assert_allclose(found.log_probs[1, 0, place], log_prob, atol=1e-5)
        sequence.append(int(found.tokens[1, 0, place]))


def test_density_prefers_codes_that_have_others_beside_them():
    module, params = t2f.model()
    codebook = jnp.array([[0.0], [0.1], [0.2], [0.3], [0.4], [50], [80], [99]])

    def drawn(temperature, density):
        config = GenerateConfig(temperature=temperature, density=density, top_k=0)
        found = decode.generate(
            module, params, t2f.prefixes(), config, keys(3, 2), codebook=codebook
        )
        return np.asarray(found.tokens) - t2f.CODES, np.asarray(found.log_probs)

    (plain, _), (dense, said) = drawn(0.0, 0.0), drawn(0.0, 3.0)
    assert (plain > 4).any() and (dense <= 4).all()
    # What is told of a code is the model's own probability.
    assert (said < 0).all() and (said > -4).all()
    np.testing.assert_array_equal(drawn(1.0, 0.0)[0], drawn(1.0, 3.0)[0])
    with pytest.raises(ValueError, match="density is 3.0, and .* pass the codebook"):
        draw(density=3.0)


def test_a_sample_does_not_depend_on_its_batch_mates():
    options = {"modality": "text", "max_tokens": 6, "top_k": 0}
    whole = draw(samples=3, **options)
    alone = draw(samples=3, rows=slice(1, 2), **options)
    np.testing.assert_array_equal(whole.tokens[1:2], alone.tokens)
    module, params = t2f.model()
    one = decode.generate(
        module,
        params,
        t2f.prefixes()[1:2],
        GenerateConfig(**options),
        keys(3, 3)[1:2, 2:],
    )
    np.testing.assert_array_equal(whole.tokens[1, 2], one.tokens[0, 0])


def test_a_text_stops_at_its_separator_and_holds_words_only():
    found = draw(samples=64, modality="text", max_tokens=8, top_k=0)
    tokens, lengths = np.asarray(found.tokens), np.asarray(found.lengths)
    ended = tokens == t2f.SEP
    assert ended.any() and (ended.sum(-1) <= 1).all()
    for row, length in zip(tokens.reshape(-1, 8), lengths.ravel()):
        assert (row[length:] == t2f.PAD).all() and (row[:length] != t2f.PAD).all()
        assert length == 8 or row[length - 1] == t2f.SEP
    allowed = {t2f.SEP, t2f.PAD, *range(5, 13)}  # no other special token, no code
    assert set(tokens.ravel().tolist()) <= allowed


def test_an_image_has_all_its_codes_and_nothing_else():
    found = draw(samples=8, modality="image", top_k=0)
    assert (found.lengths == 4).all()
    assert found.tokens.min() >= t2f.CODES and found.tokens.max() < t2f.CODES + 8


def test_what_is_given_begins_the_target():
    given = np.array([[7, 8, 9], [6, t2f.PAD, t2f.PAD], [t2f.PAD] * 3], np.int32)
    found = draw(samples=2, given=given, modality="text", max_tokens=6)
    for row, said, start in zip(found.tokens, found.log_probs, given):
        count = (start != t2f.PAD).sum()
        assert (np.asarray(row)[:, :count] == start[:count]).all()
        assert (np.asarray(said)[:, :count] == 0).all()


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
def test_scores_are_those_of_the_uncached_model(form):
    module, params = t2f.model(**FORMS[form])
    prefixes = t2f.prefixes()
    candidates = np.array([[7, 8, t2f.SEP, 0], [9, t2f.SEP, 0, 0], [6, 6, 6, t2f.SEP]])
    tiled = np.tile(candidates, (3, 1, 1)).astype(np.int32)
    found = decode.score(module, params, prefixes, tiled, given=1)
    special = [i for i in tiny.VOCAB.special_ids if i != t2f.SEP]
    for p, prefix in enumerate(prefixes):
        start = prefix[prefix != t2f.PAD]
        for c, row in enumerate(candidates):
            row = row[: int(np.argmax(row == t2f.SEP)) + 1]
            tokens = np.concatenate([start, row])[None].astype(np.int32)
            segments = np.where(np.arange(tokens.shape[1]) < len(start), 1, 2)[None]
            said = logits(module.config, params, tokens, segments)[0, :, :13]
            said = said.at[:, jnp.array(special)].set(-jnp.inf)
            said = jax.nn.log_softmax(said[len(start) - 1 :])
            expected = [said[i, t] for i, t in enumerate(row)]
            expected[0] = 0.0  # given
            np.testing.assert_allclose(
                found[p, c, : len(row)], np.array(expected), atol=1e-5
            )
            assert (found[p, c, len(row) :] == 0).all()


def test_drawing_follows_the_scores():
    """Of many samples the shares of a single token are its probabilities."""
    module, params = t2f.model()
    config = GenerateConfig("text", max_tokens=1, top_k=0)
    found = decode.generate(module, params, t2f.prefixes()[:1], config, keys(1, 4000))
    ids = np.arange(13)
    said = decode.score(module, params, t2f.prefixes()[:1], ids[None, :, None])
    drawn = np.bincount(np.asarray(found.tokens).ravel(), minlength=13) / 4000
    p = np.exp(np.asarray(said)[0, :, 0]) * (ids != t2f.PAD)
    np.testing.assert_allclose(drawn, p, atol=0.03)


@pytest.mark.parametrize(
    "options,message",
    [
        ({"modality": "sound"}, "'sound' is none of image, text"),
        ({"temperature": -1}, "temperature is -1; use a number from 0 on"),
        ({"top_p": 1.5}, "top_p is 1.5; use a number 0 to 1"),
        ({"max_tokens": 0}, "max_tokens is 0"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(ValueError, match=message):
        GenerateConfig(**options)


def test_a_target_that_has_no_room():
    with pytest.raises(ValueError, match="longer than the 24 positions"):
        draw(modality="text", max_tokens=15)


def test_the_shared_prefix_is_read_once():
    """The cache of prefixes has no samples in it."""
    module, params = t2f.model()
    prefix = jax.eval_shape(
        lambda p: decode.read_prefix(module, {"params": p}, t2f.prefixes()), params
    )
    assert [p["key"].shape for p in prefix.past] == [(3, 2, 10, 8)] * 2
    assert dataclasses.asdict(prefix)["real"].shape == (3, 10)
