"""Texts that end in a tail: cached as uncached, begun by themselves or by force."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny
import tiny_talk2face as t2f

from gptface_jax.systems.talk2face import decode, objective
from gptface_jax.systems.talk2face.decode import GenerateConfig

# A token that begins it, and three slots of four codes each.
VOCAB = dataclasses.replace(tiny.VOCAB, face_tokens=13)
BEGIN = VOCAB.size
SLOTS = tuple((BEGIN + 1 + 4 * i, BEGIN + 5 + 4 * i) for i in range(3))
TAIL = ((BEGIN, BEGIN + 1), *SLOTS)
WORDS = 4


def model(says: float = 0.0, ends: float = 0.0):
    """(module, params) that are so much likelier to begin the tail, and to end."""
    module, params = t2f.model(vocab=VOCAB, output_bias=True, max_positions=32)
    bias = params["tokens"]["output_bias"]
    bias = bias.at[BEGIN].set(says).at[VOCAB.sep_id].set(ends)
    return module, {**params, "tokens": {**params["tokens"], "output_bias": bias}}


def draw(says=0.0, ends=0.0, samples=4, given=None, tail=TAIL, **options):
    module, params = model(says, ends)
    config = GenerateConfig("text", max_tokens=WORDS, top_k=0, **options)
    keys = jax.random.split(jax.random.key(0), (3, samples))
    found = decode.generate(
        module, params, t2f.prefixes(), config, keys, given, tail
    )  # fmt: skip
    return jax.tree.map(np.asarray, found)


def test_cached_is_uncached_token_for_token():
    given = np.array([[7, 8], [9, t2f.PAD], [t2f.PAD] * 2], np.int32)
    cached, whole = (draw(1.0, given=given, cached=cached) for cached in (True, False))
    np.testing.assert_array_equal(cached.tokens, whole.tokens)
    np.testing.assert_array_equal(cached.missing, whole.missing)
    np.testing.assert_allclose(cached.log_probs, whole.log_probs, atol=1e-5)
    assert (cached.tokens[0, :, :2] == [7, 8]).all()


def test_every_text_ends_in_a_code_of_each_slot():
    found = draw(1.0, samples=32)
    assert 0 < found.missing.mean() < 1  # some begin by themselves
    for row, length in zip(found.tokens.reshape(-1, 8), found.lengths.ravel()):
        (start,) = np.flatnonzero(row == BEGIN)
        assert start <= WORDS and length == start + len(TAIL)
        assert ((row[:start] >= 5) & (row[:start] < 13)).all()  # words alone
        for token, (first, stop) in zip(row[start + 1 : length], SLOTS, strict=True):
            assert first <= token < stop
        assert (row[length:] == t2f.PAD).all()
    codes = found.tokens[found.tokens > BEGIN]
    assert len(np.unique(codes)) == 12  # all of them are drawn


@pytest.mark.parametrize("ends", [50.0, -50.0])
def test_a_missing_tail_is_appended_and_counted(ends):
    """By weights that never say it, whether the text ends or goes on for ever."""
    found = draw(-100.0, ends, samples=2)
    assert found.missing.all()
    start = 0 if ends > 0 else WORDS
    assert (found.tokens[..., start] == BEGIN).all()
    assert (found.lengths == start + len(TAIL)).all()
    # Of a text that ended it is told how sure its end was; of no other token.
    np.testing.assert_allclose(found.log_probs[..., start], 0, atol=1e-5)
    assert not draw(100.0, ends, samples=2).missing.any()


@pytest.mark.slow
def test_texts_without_tails_are_bit_for_bit_what_they_were():
    """Rows of face tokens may say anything: nothing else knows of them."""
    options = dict(output_bias=True, max_positions=32)
    module, params = t2f.model(vocab=tiny.VOCAB, **options)
    grown, _ = model()
    more = VOCAB.rows - tiny.VOCAB.rows
    tables = dict(params["tokens"])
    for name in ("embedding", "output_bias"):
        table = tables[name]
        tables[name] = jnp.concatenate([table, jnp.full((more, *table.shape[1:]), 7.0)])
    # Padding of the smaller table is face tokens in the larger one.
    tables["embedding"] = tables["embedding"].at[tiny.VOCAB.size :].set(7.0)
    config = GenerateConfig("text", max_tokens=WORDS, top_k=0)
    keys = jax.random.split(jax.random.key(0), (3, 2))
    before, after = (
        decode.generate(m, p, t2f.prefixes(), config, keys)
        for m, p in ((module, params), (grown, {**params, "tokens": tables}))
    )
    jax.tree.map(np.testing.assert_array_equal, before, after)
    assert not after.missing.any()
    candidates = np.tile(np.array([[7, t2f.SEP], [9, 8]], np.int32), (3, 1, 1))
    np.testing.assert_array_equal(
        decode.score(module, params, t2f.prefixes(), candidates),
        decode.score(grown, {**params, "tokens": tables}, t2f.prefixes(), candidates),
    )


def test_face_tokens_are_a_modality_of_the_loss():
    module, params = model()
    target = [6, 7, BEGIN, *(first for first, _ in SLOTS), t2f.SEP]
    start = [t2f.CLS, 5, t2f.SEP, 9, t2f.SEP]
    tokens = np.array([start + target], np.int32)
    batch = {
        "tokens": tokens,
        "segment_ids": np.where(np.arange(tokens.shape[1]) < len(start), 1, 2)[None],
        "loss_mask": np.arange(tokens.shape[1])[None] >= len(start),
    }
    wanted = objective.ObjectiveConfig(pooled=False, face_weight=2.0)
    measured = jax.jit(
        lambda p, b: {
            k: (jnp.sum(v * m), jnp.sum(m))
            for k, (v, m) in objective.token_metrics(module, wanted, p, b).items()
        }
    )
    found = measured(params, batch)
    counts = {k: int(v[1]) for k, v in found.items() if k.endswith("nll")}
    assert counts == {"image_nll": 0, "text_nll": 3, "face_nll": 4}
    loss = objective.combined(wanted, found)
    means = [float(found[f"{n}_nll"][0]) / n_ for n, n_ in (("text", 3), ("face", 4))]
    assert float(loss) == pytest.approx(means[0] + 2 * means[1], rel=1e-5)
    # Where the head begins, something else is likelier, or it is not.
    for bias, missed in ((-100, 1), (100, 0)):
        table = params["tokens"]["output_bias"].at[BEGIN].add(bias)
        other = {**params, "tokens": {**params["tokens"], "output_bias": table}}
        assert measured(other, batch)["head_missed"] == (missed, 1)
