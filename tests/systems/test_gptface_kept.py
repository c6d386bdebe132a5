"""Keys of known positions are kept between passes (SPEC E.14)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from gptface_jax.core.errors import UserError
from gptface_jax.nn.transformer import taken_apart
from gptface_jax.systems.gptface import decode as D
from gptface_jax.systems.gptface import kept, predict
from gptface_jax.systems.gptface.options import DecodeConfig

KEY = jax.random.key(5)
PLAIN = DecodeConfig(guidance="none", k=2, cfg=2.0, match_token=True)
KEPT = dataclasses.replace(PLAIN, refresh=0)
OPEN = (1, 2, 5, 6, 9)


def test_the_number_of_places_by_hand():
    """Multiples of an eighth of the 12 codes, here 2; within jit all of them."""
    config = tiny.config()

    def slots(options, cells, **changes):
        known = np.concatenate([tiny.known_mask(1, cells), tiny.known_mask(1, [0])])
        return kept.slots(options, tiny.config(**changes), known)

    assert [slots(KEPT, range(n)) for n in (1, 2, 5, 8, 9)] == [2, 2, 6, 8, 10]
    assert slots(PLAIN, OPEN) == 0
    for change in ({"guidance": "ascent_norm"}, {"side": "text", "cfg": 1.0}):
        with pytest.raises(ValueError, match="refresh is 0; keys are kept of pictures"):
            dataclasses.replace(KEPT, **change)
    with pytest.raises(UserError, match="refresh is 0.*'linear' has no keys"):
        slots(KEPT, OPEN, transformer={"attention": "linear"})
    traced = jax.jit(lambda known: jnp.int32(kept.slots(KEPT, config, known)))
    assert traced(tiny.known_mask(1, OPEN)) == 12


@pytest.mark.parametrize("crossed", [pytest.param(0, marks=pytest.mark.slow), 1])
def test_scores_are_those_of_a_whole_pass_until_something_is_filled(crossed):
    module, params = tiny.model(cross_modal_heads=crossed)
    tokens, known = tiny.tokens(3), jnp.asarray(tiny.known_mask(3, OPEN))
    carry = D._begin(module, params, tokens, known, KEPT, slots=8)
    parts = taken_apart(module.config.transformer, params["transformer"])
    share = jnp.ones(3)

    def scores(tokens, cached, **more):
        found, match, _ = predict.predict(
            module, params, KEPT, None, tokens, carry.is_open, share, kept=cached,
            parts=parts, **more,
        )  # fmt: skip
        found = np.asarray(found["image"])
        if cached is not None:  # the places are the open ones first, in their order
            rows = kept.image_rows(cached.places, tiny.LAYOUT)
            np.testing.assert_array_equal(rows[:, : len(OPEN)], [OPEN] * 3)
        return found[:, : len(OPEN)] if cached is not None else found[:, list(OPEN)]

    whole, cached = scores(carry.tokens, None), scores(carry.tokens, carry.kept)
    np.testing.assert_allclose(cached, whole, atol=2e-5)
    texts = jnp.asarray(np.random.default_rng(0).integers(5, 13, (3, 1, 2, 5)))
    more = {
        "strengths": predict.Strengths(texts, jnp.array([[2.0], [-1.0], [0.5]])),
        "bias": jax.random.normal(KEY, (3, 12, 8)),
    }
    changed = scores(carry.tokens, carry.kept, **more)
    assert np.abs(changed - cached).max() > 0.5
    whole = scores(carry.tokens, None, **more)
    np.testing.assert_allclose(changed, whole, atol=2e-5)
    # A code that is filled is seen by the open ones at once, by known ones when they
    # are read again.
    at = tiny.LAYOUT.image_slice.start + OPEN[0]
    filled = carry.tokens.at[:, at].set(tiny.VOCAB.text_size + 3)
    whole, stale = scores(filled, None), scores(filled, carry.kept)
    assert np.abs(stale - cached).max() > 1e-2 < np.abs(stale - whole).max()
    views = predict.kept_views(module, filled, KEPT)
    anew = carry.kept.replace(past=kept.read(module, params, views))
    np.testing.assert_allclose(scores(filled, anew), whole, atol=2e-5)


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({}, marks=pytest.mark.slow),
        pytest.param({"refresh": 2}, marks=pytest.mark.slow),
        {"watermark": 3.0, "confidence": "entropy"},
    ],
)
def test_it_fills_what_is_open(changes):
    """The first iteration as without keeping, and each sample as if it were alone."""
    module, params = tiny.model()
    config = dataclasses.replace(KEPT, **changes)
    before = dataclasses.replace(config, refresh=1)
    tokens = tiny.tokens(3)
    known = np.concatenate([tiny.known_mask(2, OPEN), tiny.known_mask(1, (4, 8))])
    keys = jax.random.split(KEY, 3)
    plain, found = (
        D.decode(module, params, tokens, known, c, keys) for c in (before, config)
    )
    np.testing.assert_array_equal(found.num_iterations, [3, 3, 1])
    np.testing.assert_array_equal(
        np.where(known, found.tokens, 0), np.where(known, tokens, 0)
    )
    assert (np.asarray(found.tokens)[~known] >= tiny.VOCAB.text_size).all()
    first = np.asarray(plain.committed_at) == 0
    np.testing.assert_array_equal(first, np.asarray(found.committed_at) == 0)
    np.testing.assert_array_equal(
        np.asarray(found.tokens)[first], np.asarray(plain.tokens)[first]
    )


@pytest.mark.parametrize("refresh", [pytest.param(0, marks=pytest.mark.slow), 2])
def test_a_sample_does_not_depend_on_how_much_of_others_is_open(refresh):
    module, params = tiny.model()
    config = dataclasses.replace(KEPT, refresh=refresh, k=1)
    tokens = tiny.tokens(2)
    known = np.concatenate([tiny.known_mask(1, range(12)), tiny.known_mask(1, OPEN)])
    keys = jax.random.split(KEY, 2)
    both = D.decode(module, params, tokens, known, config, keys)
    alone = D.decode(module, params, tokens[1:], known[1:], config, keys[1:])
    np.testing.assert_array_equal(alone.tokens[0], both.tokens[1])
    np.testing.assert_array_equal(alone.committed_at[0], both.committed_at[1])


def test_candidates_share_what_is_read_at_the_start():
    module, params = tiny.model()
    tokens, known = tiny.tokens(2), tiny.known_mask(2, OPEN)
    keys = jax.random.split(KEY, 2)
    best, matches = D.rerank(module, params, tokens, known, KEPT, keys, 3)
    each = jax.vmap(jax.random.fold_in, (None, 0))
    for b in range(2):
        found = D.decode(
            module, params, jnp.repeat(tokens[b : b + 1], 3, 0),
            np.repeat(known[b : b + 1], 3, 0), KEPT, each(keys[b], jnp.arange(3)),
        )  # fmt: skip
        number = int(np.argmax(matches[b]))
        np.testing.assert_array_equal(found.tokens[number], best.tokens[b])
