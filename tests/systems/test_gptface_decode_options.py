"""What each option of the decoder does, on the smallest model."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError
from gptface_jax.ops import sampling
from gptface_jax.systems.gptface import decode as D
from gptface_jax.systems.gptface import predict as P
from gptface_jax.systems.gptface.decode import decode
from gptface_jax.systems.gptface.options import DecodeConfig

KEY = jax.random.key(5)
IMAGE, TEXT = tiny.LAYOUT.image_slice, tiny.LAYOUT.text_slice
PLAIN = DecodeConfig(k=4, guidance="none")
STRONG = DecodeConfig(k=4, step_size=0.3, kl_max=0.0, fusion=1.0)
GREEDY = DecodeConfig(
    guidance="none", k=3, temperature=0.0, temperature_end=0.0, confidence_noise=0.0
)


def run(config, key=KEY):
    """Decodes two whole images: (tokens [2,12], committed_at [2,12])."""
    known = jnp.asarray(tiny.known_mask(2, range(12)))
    result = decode(*tiny.model(), tiny.tokens(2), known, config, key)
    return np.asarray(result.tokens)[:, IMAGE], np.asarray(result.committed_at)[
        :, IMAGE
    ]


def scores(tokens, is_open, config):
    """Log-probabilities that one iteration samples from: side -> [B,P,V]."""
    module, params = tiny.model()
    masked = jnp.where(is_open, tiny.VOCAB.mask_id, tokens)
    config = config.settled(module.config, "cpu")
    predict = jax.jit(functools.partial(P.predict, module, params, config, None))
    return predict(masked, is_open, jnp.ones(len(tokens)))[0]


@pytest.mark.slow
def test_trust_region_bounds_the_mean_over_both_sides():
    tokens = tiny.tokens(4)
    known = tiny.known_mask(4, range(6)) & tiny.known_mask(4, range(5), side="text")
    is_open = ~known & (np.asarray(tokens) != tiny.VOCAB.pad_id)
    free = DecodeConfig(side="both", step_size=0.003, kl_max=0.0, fusion=1.0)
    plain = scores(tokens, is_open, dataclasses.replace(free, guidance="none"))

    def divergence(config):
        """By hand: the mean over a sample's open positions, whatever their side."""
        moved, found = scores(tokens, is_open, config), []
        for row in range(4):
            kl = []
            for side, where in (("image", IMAGE), ("text", TEXT)):
                p, q = (np.asarray(s[side][row], np.float64) for s in (moved, plain))
                p, q = (x[:, np.isfinite(p[0])] for x in (p, q))
                kl += list((np.exp(p) * (p - q)).sum(-1)[is_open[row, where]])
            found.append(np.mean(kl))
        return np.array(found)

    limit = 5e-4
    assert (divergence(free) > 5 * limit).all()
    bounded = divergence(dataclasses.replace(free, kl_max=limit))
    # The divergence is only about quadratic in the step.
    assert (bounded > 0.9 * limit).all() and (bounded < 1.4 * limit).all()


@pytest.mark.slow
def test_fusion_goes_from_unguided_to_guided():
    plain, guided = run(PLAIN), run(STRONG)
    assert (plain[0] != guided[0]).any()
    unguided = run(dataclasses.replace(STRONG, fusion=0.0))
    np.testing.assert_array_equal(unguided[0], plain[0])
    np.testing.assert_array_equal(unguided[1], plain[1])


@pytest.mark.slow
def test_growing_steps_start_at_none():
    (plain, first), (guided, _) = run(PLAIN), run(STRONG)
    growing, at = run(dataclasses.replace(STRONG, eta_growth=True))
    np.testing.assert_array_equal(at == 0, first == 0)
    np.testing.assert_array_equal(growing[at == 0], plain[at == 0])
    assert (guided[at == 0] != plain[at == 0]).any()
    assert (growing != plain).any()


@pytest.mark.slow
def test_more_steps_are_steps_from_the_moved_parameters():
    module, params = tiny.model()
    row = tiny.tokens(1)[0]
    one = DecodeConfig(guidance="ascent", step_size=0.1, form="explicit")

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def shift(module, params, row, config):
        moved, match, _ = P.shift(module, params, row, config)
        return moved.variables(params)["params"], match

    once, before = shift(module, params, row, one)
    by_hand, after = shift(module, once, row, one)
    twice, match = shift(module, params, row, dataclasses.replace(one, num_steps=2))
    assert match == before and after > before
    flat = trees.flatten(once)
    for name, leaf in trees.flatten(twice).items():
        np.testing.assert_allclose(
            leaf, trees.flatten(by_hand)[name], rtol=1e-4, atol=1e-6
        )
        assert name.startswith("transformer/") == bool((leaf != flat[name]).any())


def test_temperature_and_noise_fall_linearly(monkeypatch):
    temperatures, noises = [], {}
    sample, commit_mask = sampling.sample, sampling.commit_mask

    def watched_sample(scores, temperature, *others):
        jax.debug.callback(lambda t: temperatures.append(float(t)), temperature)
        ids, sure = sample(scores, temperature, *others)
        return ids, jnp.zeros_like(sure)  # so that noise is all there is

    def watched_commit(ring, confidence, is_open, k):
        def keep(confidence, count):
            noises[int(count)] = np.array(confidence)[IMAGE]

        jax.debug.callback(keep, confidence, jnp.sum(is_open))
        return commit_mask(ring, confidence, is_open, k)

    monkeypatch.setattr(D.sampling, "sample", watched_sample)
    monkeypatch.setattr(D.sampling, "commit_mask", watched_commit)
    config = dataclasses.replace(
        PLAIN, temperature=2.0, temperature_end=0.5, confidence_noise=3.0
    )
    known = jnp.asarray(tiny.known_mask(1, range(12)))
    D.fill(*tiny.model(), tiny.tokens(1), known, config, KEY[None])
    jax.effects_barrier()
    # 12, 8 and 4 of 12 positions are open.
    np.testing.assert_allclose(sorted(temperatures), [1.0, 1.5, 2.0], rtol=1e-6)
    for index, (count, scale) in enumerate(((12, 3.0), (8, 2.0), (4, 1.0))):
        key = trees.stream(jax.random.fold_in(KEY, index), "order")
        noise = jax.random.gumbel(key, (tiny.LAYOUT.length,))[IMAGE]
        np.testing.assert_allclose(noises[count], scale * noise, rtol=1e-5)


def test_the_surest_come_first_and_noise_changes_the_order():
    _, at = run(GREEDY)
    np.testing.assert_array_equal(run(GREEDY, jax.random.key(1))[1], at)
    row = jnp.where(tiny.known_mask(2, range(12)), tiny.tokens(2), tiny.VOCAB.mask_id)
    module, params = tiny.model()
    logits = [
        P.side_logits(module, {"params": params}, t, GREEDY)["image"] for t in row
    ]
    for times, sure in zip(at, np.max(jax.nn.log_softmax(jnp.stack(logits)), -1)):
        assert sorted(np.argsort(-sure)[:3]) == sorted(np.flatnonzero(times == 0))
    noisy = dataclasses.replace(GREEDY, confidence_noise=3.0)
    orders = [run(noisy, jax.random.key(i))[1] for i in range(2)]
    assert (orders[0] != orders[1]).any()


@pytest.mark.slow
@pytest.mark.parametrize("raw", [False, True])
def test_raw_confidence_ranks_by_logits_under_the_default_guidance(raw, monkeypatch):
    # Cell 0 holds large logits and knows nothing, cell 1 the reverse.
    logits = jnp.zeros((12, 8)).at[0].set(9.0).at[1, 3].set(5.0)
    monkeypatch.setattr(P, "side_logits", lambda *_: {"image": logits})
    known = jnp.asarray(tiny.known_mask(1, [0, 1]))
    config = DecodeConfig(
        k=1, confidence_noise=0.0, raw_confidence=raw, form="low_rank"
    )
    assert config.guidance != "none" and config.fusion < 1
    unjitted = D.fill
    result = unjitted(*tiny.model(), tiny.tokens(1), known, config, KEY)
    at = np.asarray(result.committed_at)[0, IMAGE]
    assert at[:2].tolist() == ([0, 1] if raw else [1, 0])


def half_open(size=3):
    """(tokens, is_open) of pictures half of which is to be drawn."""
    tokens, known = tiny.tokens(size), tiny.known_mask(size, range(6))
    return jnp.where(known, tokens, tiny.VOCAB.mask_id), jnp.asarray(~known)


def test_classifier_free_guidance_goes_away_from_the_scores_without_text():
    tokens, is_open = half_open()
    options = {"guidance": "none", "raw_confidence": True}
    text, null, guided = (
        scores(tokens, is_open, DecodeConfig(**options, **more))["image"]
        for more in ({}, {"eq6": True}, {"cfg": 3.0, "cfg_end": 1.0})
    )
    # All is open, so the first weight holds.
    np.testing.assert_allclose(guided, null + 3 * (text - null), rtol=1e-4, atol=1e-5)
    assert jnp.abs(guided - text).max() > 0.01


@pytest.mark.slow
def test_embedding_guidance_is_the_slope_of_the_match_along_each_code():
    module, params = tiny.model()
    tokens, is_open = half_open(1)
    options = {"kl_max": 0.0, "fusion": 1.0, "raw_confidence": True}
    guided, plain = (
        scores(tokens, is_open, DecodeConfig(guidance=g, step_size=2.0, **options))
        for g in ("embedding", "none")
    )
    gain = (guided["image"] - plain["image"])[0] / 2.0
    table = params["tokens"]["embedding"]
    offset, cell = tiny.VOCAB.text_size, 4
    flat = trees.flatten(params)

    def match(code, step):
        """With the embedding at one cell moved towards that of a code."""
        change = step * (table[offset + code] - table[tiny.VOCAB.mask_id])
        position = flat["tokens/position"].at[IMAGE.start + cell].add(change)
        moved = trees.unflatten({**flat, "tokens/position": position})
        return float(P.itm_log_prob(module, moved, tokens)[0])

    slope = [(match(c, 0.01) - match(c, -0.01)) / 0.02 for c in range(3)]
    np.testing.assert_allclose(gain[cell, :3], slope, rtol=0.02, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("form", ["explicit", "low_rank"])
def test_guidance_of_the_last_blocks_leaves_the_others(form):
    module, params = tiny.model()
    tokens, is_open = half_open()
    config = DecodeConfig(
        guidance="ascent", step_size=0.1, kl_max=0.0, fusion=1.0, form=form,
        last_blocks=1, raw_confidence=True,
    )  # fmt: skip
    found = scores(tokens, is_open, config)["image"]

    @jax.jit
    @jax.vmap
    def by_hand(row):
        moved, *_ = P.shift(
            module, params, row, dataclasses.replace(config, form="explicit")
        )

        def keep_first(name, old, new):
            return new.at[:1].set(old[:1]) if "/layers/" in name else new

        new = trees.flatten(moved.variables(params)["params"])
        old = trees.flatten(params)
        mixed = {n: keep_first(n, old[n], new[n]) for n in old}
        variables = {"params": trees.unflatten(mixed)}
        return P.side_logits(module, variables, row, config)["image"]

    np.testing.assert_allclose(found, by_hand(tokens), rtol=1e-4, atol=1e-5)
    all_of_them = dataclasses.replace(config, last_blocks=2)
    whole = dataclasses.replace(config, last_blocks=0)
    np.testing.assert_array_equal(
        scores(tokens, is_open, all_of_them)["image"],
        scores(tokens, is_open, whole)["image"],
    )
    with pytest.raises(UserError, match="last_blocks is 3; the model has 2"):
        scores(tokens, is_open, dataclasses.replace(config, last_blocks=3))


def test_rerank_keeps_the_candidate_that_matches_best():
    module, params = tiny.model()
    tokens, known = tiny.tokens(3), jnp.asarray(tiny.known_mask(3, range(12)))
    keys = jax.random.split(KEY, 3)
    best, found = D.rerank(module, params, tokens, known, PLAIN, keys, 4)
    assert found.shape == (3, 4) and (np.ptp(found, axis=1) > 0).all()
    np.testing.assert_allclose(
        P.itm_log_prob(module, params, best.tokens), found.max(axis=1), rtol=1e-5
    )
    again, _ = D.rerank(module, params, tokens, known, PLAIN, keys, 4)
    np.testing.assert_array_equal(again.tokens, best.tokens)


@pytest.mark.slow
def test_candidates_are_given_up_on_the_way():
    """The last is one of those that all would have been, by the same keys."""
    module, params = tiny.model()
    tokens, known = tiny.tokens(3), jnp.asarray(tiny.known_mask(3, range(12)))
    keys = jax.random.split(KEY, 3)
    config = dataclasses.replace(PLAIN, prune_at=(0.3, 0.6))
    best, found = D.rerank(module, params, tokens, known, config, keys, 9)
    assert found.shape == (3, 1) and (best.num_iterations == 3).all()
    np.testing.assert_allclose(
        P.itm_log_prob(module, params, best.tokens), found[:, 0], rtol=1e-5
    )
    for b in range(3):
        candidates = [
            decode(
                module, params, tokens[b : b + 1], known[b : b + 1], PLAIN, key[None]
            )
            for key in (jax.random.fold_in(keys[b], i) for i in range(9))
        ]
        assert any((c.tokens[0] == best.tokens[b]).all() for c in candidates)


def test_the_cost_of_candidates_by_hand():
    config = DecodeConfig(prune_at=(0.25, 0.5))
    assert config.survivors(16) == ((0.25, 4), (0.5, 1))
    assert config.passes(16) == 0.25 * 16 + 0.25 * 4 + 0.5
    assert DecodeConfig().survivors(16) == ((1.0, 1),)
    assert DecodeConfig().passes(16) == 16
    nan = float("nan")
    for shares in ((0.5, 0.5), (0.0,), (1.0,), (0.6, 0.3), 0.25, "x", (nan,)):
        with pytest.raises(ValueError, match="give rising shares between 0 and 1"):
            DecodeConfig(prune_at=shares)


@pytest.mark.slow
def test_the_match_is_traced_as_guidance_that_moves_nothing_tells_it():
    module, params = tiny.model()
    tokens = tiny.tokens(2)
    known = tiny.known_mask(2, range(12))
    known[1, IMAGE.start : IMAGE.start + 5] = True  # two iterations, not three
    known, keys = jnp.asarray(known), jax.random.split(KEY, 2)
    still = DecodeConfig(k=4, guidance="ascent", step_size=0.0, kl_max=0.0, fusion=1.0)
    told = decode(module, params, tokens, known, still, keys)
    traced = dataclasses.replace(PLAIN, trace=True)
    found = decode(module, params, tokens, known, traced, keys)
    np.testing.assert_array_equal(found.tokens, told.tokens)
    assert np.isfinite(found.itm_log_prob).sum(axis=1).tolist() == [3, 2]
    np.testing.assert_allclose(found.itm_log_prob, told.itm_log_prob, rtol=1e-5)
    plain, _ = D.rerank(module, params, tokens, known, PLAIN, keys, 2)
    best, _ = D.rerank(module, params, tokens, known, traced, keys, 2)
    np.testing.assert_array_equal(best.tokens, plain.tokens)
    assert np.isnan(plain.itm_log_prob).all()
    assert np.isfinite(best.itm_log_prob).sum(axis=1).tolist() == [3, 2]


@pytest.mark.slow
def test_a_trusted_sample_does_not_depend_on_one_that_went_too_far():
    module, params = tiny.model()
    tokens, is_open = half_open(2)
    config = DecodeConfig(guidance="ascent", step_size=0.05, fusion=1.0)
    free = scores(tokens, is_open, dataclasses.replace(config, kl_max=0.0))
    plain = scores(tokens, is_open, dataclasses.replace(config, guidance="none"))
    p, q = free["image"], plain["image"]
    kl = jnp.sum(jnp.sum(jnp.exp(p) * (p - q), -1) * is_open[:, IMAGE], 1) / 6
    near = int(jnp.argmin(kl))
    limit = float(jnp.sqrt(kl[0] * kl[1]))  # between the two
    bounded = scores(tokens, is_open, dataclasses.replace(config, kl_max=limit))
    np.testing.assert_allclose(bounded["image"][near], p[near], atol=1e-5)
    assert jnp.abs(bounded["image"][1 - near] - p[1 - near]).max() > 1e-3


@pytest.mark.slow
def test_a_few_at_a_time_give_the_same_in_less_memory():
    module, params = tiny.model()
    known = jnp.asarray(tiny.known_mask(7, range(12)))
    config = DecodeConfig(k=4, step_size=0.05, form="explicit")

    def both(size):
        some = dataclasses.replace(config, at_once=size)
        arguments = (params, tiny.tokens(7), known)
        lowered = D.fill_jitted.lower(module, *arguments, some, KEY)
        compiled = lowered.compile()
        memory = compiled.memory_analysis().temp_size_in_bytes
        return compiled(*arguments, KEY), memory

    (whole, most), (parts, least) = both(0), both(2)
    np.testing.assert_array_equal(parts.tokens, whole.tokens)
    np.testing.assert_array_equal(parts.committed_at, whole.committed_at)
    np.testing.assert_allclose(parts.itm_log_prob, whole.itm_log_prob, rtol=1e-4)
    assert least < most / 2


@pytest.mark.slow
def test_without_restoring_the_shifts_of_all_iterations_add_up():
    module, params = tiny.model()
    tokens = tiny.tokens(2)
    is_open = jnp.asarray(~tiny.known_mask(2, range(12)))
    masked = jnp.where(is_open, tiny.VOCAB.mask_id, tokens)
    adding = dataclasses.replace(STRONG, step_size=0.02, form="explicit", restore=False)

    def predict(config, before=None):
        one = functools.partial(P.predict, module, params, config, None)
        return jax.jit(one)(masked, is_open, jnp.ones(2), before)

    own = P.start(params, adding)
    before = jax.tree.map(lambda x: jnp.repeat(x[None], 2, 0), own)
    # Two iterations that saw the same take the two steps of one iteration.
    first, _, moved = predict(adding, before)
    second, match, _ = predict(adding, moved)
    two = dataclasses.replace(STRONG, step_size=0.02, num_steps=2, form="explicit")
    expected, *_ = predict(two)
    np.testing.assert_allclose(second["image"], expected["image"], rtol=2e-5, atol=1e-6)
    assert (match > predict(adding, before)[1]).all()
    assert np.abs(first["image"] - second["image"]).max() > 1e-3
    # The loop carries them: alike until the first commit.
    restored, places = run(dataclasses.replace(adding, restore=True))
    added, others = run(adding)
    np.testing.assert_array_equal(places == 0, others == 0)
    np.testing.assert_array_equal(restored[places == 0], added[places == 0])
    with pytest.raises(ValueError, match="restore=False adds up"):
        DecodeConfig(restore=False, guidance="none")
