"""The acceptance tests of SPEC A.14, on the smallest model."""

import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError
from gptface_jax.ops.guidance import RULES
from gptface_jax.systems.gptface import guidance
from gptface_jax.systems.gptface import predict as P
from gptface_jax.systems.gptface.decode import decode
from gptface_jax.systems.gptface.options import DecodeConfig

KEY = jax.random.key(5)
ALL = range(12)


def run(known, config, *, size=None, key=KEY, seed=0, tokens=None):
    module, params = tiny.model()
    size = size or len(known)
    tokens = tiny.tokens(size, seed) if tokens is None else tokens
    return decode(module, params, tokens, jnp.asarray(known), config, key)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _shifted(module, params, row, config):
    """Log p(q=1) and the parameters that the guidance makes of it."""
    shift, match, _ = P.shift(module, params, row, config)
    return match, shift.variables(params)["params"]


_KIN = [
    pytest.param(rule, marks=pytest.mark.slow)
    for rule in RULES
    if rule not in ("ascent_norm", "literal")
]


@pytest.mark.parametrize("rule", ["none", "ascent_norm", "literal", *_KIN])
def test_every_rule_fills_the_image_with_codes_only(rule):
    known = tiny.known_mask(3, [0, 1, 2, 5, 6])
    before = tiny.tokens(3)
    result = run(known, DecodeConfig(k=2, guidance=rule, step_size=0.01))
    tokens = np.asarray(result.tokens)
    np.testing.assert_array_equal(tokens[known], np.asarray(before)[known])
    filled = tokens[~known]
    assert (filled >= 13).all() and (filled < 21).all()
    scores = np.asarray(result.itm_log_prob)
    used = 0 if rule == "none" else 3
    assert (np.isfinite(scores).sum(axis=1) == used).all()


@pytest.mark.parametrize("k", [1, 5, 12])
@pytest.mark.parametrize("cells", [(), (7,), (0, 1, 2, 5, 6), tuple(ALL)])
def test_exactly_ceil_of_open_by_k_iterations(cells, k):
    known = tiny.known_mask(2, sorted(cells))
    result = run(known, DecodeConfig(k=k, guidance="none"))
    assert (result.num_iterations == math.ceil(len(cells) / k)).all()
    at = np.asarray(result.committed_at)
    assert (at[known] == -1).all()
    if cells:
        counts = np.bincount(at[0][~known[0]])
        assert (counts[:-1] == k).all() and 0 < counts[-1] <= k


def test_one_shot():
    known = tiny.known_mask(2, ALL)
    result = run(known, DecodeConfig(k=12, guidance="none"))
    assert (result.num_iterations == 1).all()


def test_commits_touch_the_boundary_while_it_is_wide_enough():
    known = tiny.known_mask(6, [1, 2, 3, 5, 6, 7, 9, 10, 11])  # all but column 0
    at = np.asarray(run(known, DecodeConfig(k=3, guidance="none")).committed_at)
    for row in at[:, 1:13].reshape(6, 3, 4):
        assert (row[:, 1] == 0).all()  # three boundary cells, k = 3
        assert (row[:, 2] == 1).all() and (row[:, 3] == 2).all()
    anywhere = DecodeConfig(k=3, guidance="none", select="global")
    at = np.asarray(run(known, anywhere).committed_at)[:, 1:13].reshape(6, 3, 4)
    assert any((row[:, 1] != 0).any() for row in at)


@pytest.mark.slow
def test_step_zero_is_unguided_decoding():
    known = tiny.known_mask(4, [0, 1, 4, 5, 8, 9])
    plain = run(known, DecodeConfig(k=2, guidance="none"))
    options = {"step_size": 0.0, "kl_max": 0.0, "fusion": 1.0, "k": 2}
    for rule in ("ascent_norm", "literal"):
        guided = run(known, DecodeConfig(guidance=rule, **options))
        np.testing.assert_array_equal(guided.tokens, plain.tokens)
        np.testing.assert_array_equal(guided.committed_at, plain.committed_at)


@pytest.mark.parametrize("rule", ["ascent_norm", "literal"])
def test_parameters_are_bitwise_unchanged(rule):
    module, params = tiny.model()
    copy = jax.tree.map(np.array, params)
    known = tiny.known_mask(3, [0, 1, 2, 5, 6])
    config = DecodeConfig(k=2, guidance=rule, step_size=0.01)  # compiled above
    first = run(known, config)
    for a, b in zip(jax.tree.leaves(copy), jax.tree.leaves(params)):
        np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(run(known, config).tokens, first.tokens)


def test_literal_without_gradient_scales_all_weights():
    module, params = tiny.model()
    # So sure of a match that p(q=1) is exactly 1 and no gradient is left.
    flat = trees.flatten(params)
    flat["itm/bias"] = jnp.array([-100.0, 100.0])
    params = trees.unflatten(flat)
    config = DecodeConfig(guidance="literal", step_size=0.05, form="explicit")
    match, formed = _shifted(module, params, tiny.tokens(1)[0], config)
    assert match == 0.0
    for a, b in zip(jax.tree.leaves(formed), jax.tree.leaves(params)):
        np.testing.assert_allclose(a, 0.95 * np.asarray(b), rtol=1e-6, atol=1e-8)


def test_a_small_step_raises_the_match():
    module, params = tiny.model()
    tokens = tiny.tokens(128, seed=3)
    tokens = jnp.where(tiny.known_mask(128, [1, 2, 5, 6]), tokens, tiny.VOCAB.mask_id)
    config = DecodeConfig(guidance="ascent_norm", step_size=1e-3, form="explicit")

    @jax.jit
    @jax.vmap
    def before_and_after(row):
        shifted, before, _ = P.shift(module, params, row, config)
        after = guidance.value_and_gradient(module, params, shifted, row)[0]
        return before, after

    before, after = before_and_after(tokens)
    assert np.mean(after > before) >= 0.95


@pytest.mark.slow
def test_guidance_changes_blocks_only_and_literal_everything():
    module, params = tiny.model()
    row = tiny.tokens(1)[0]
    flat = trees.flatten(params)

    def changes(**options):
        config = DecodeConfig(step_size=0.1, form="explicit", **options)
        moved = trees.flatten(_shifted(module, params, row, config)[1])
        return {n for n, x in moved.items() if (np.asarray(x) != flat[n]).any()}

    changed = changes()
    assert changed and all(n.startswith("transformer/") for n in changed)
    changed = changes(guidance="literal")
    assert {"itm/kernel", "tokens/embedding", "tokens/position"} <= changed
    said = r"'\^nothing' matches no parameter; .* itm/bias.* default is '\^transformer"
    with pytest.raises(UserError, match=said):
        P.shift(
            module, params, row, DecodeConfig(update_set="^nothing", form="explicit")
        )


@pytest.mark.parametrize(
    "rule",
    [
        "none",
        *(pytest.param(r, marks=pytest.mark.slow) for r in ("ascent_norm", "literal")),
    ],
)
def test_a_sample_does_not_depend_on_its_batch_mates(rule):
    config = DecodeConfig(k=2, guidance=rule, step_size=0.02)
    tokens = tiny.tokens(5, seed=1)
    known = tiny.known_mask(5, [2, 3, 6, 7, 11])
    known[3] = tiny.known_mask(1, ALL)[0]  # a mate that takes longer
    keys = jax.vmap(lambda i: jax.random.fold_in(KEY, i))(jnp.arange(5))
    together = run(known, config, tokens=tokens, key=keys)
    for i in range(5):
        alone = run(
            known[i : i + 1], config, tokens=tokens[i : i + 1], key=keys[i : i + 1]
        )
        np.testing.assert_array_equal(together.tokens[i], alone.tokens[0])
        np.testing.assert_allclose(
            together.itm_log_prob[i], alone.itm_log_prob[0], rtol=1e-5, atol=1e-6
        )


@pytest.mark.slow
def test_text_can_be_the_masked_side():
    known = tiny.known_mask(4, range(5), side="text")
    before = tiny.tokens(4)
    known |= np.asarray(before) == tiny.VOCAB.pad_id
    result = run(known, DecodeConfig(k=1, side="text"))
    tokens = np.asarray(result.tokens)
    np.testing.assert_array_equal(tokens[known], np.asarray(before)[known])
    assert (tokens[~known] >= 5).all() and (tokens[~known] < 13).all()  # no specials
    assert (result.num_iterations == (~known).sum(1)).all()
    both = tiny.known_mask(4, [0, 1]) & known
    result = run(both, DecodeConfig(k=2, side="both"))
    assert (np.asarray(result.tokens) != tiny.VOCAB.mask_id).all()


def test_equation_six_hides_the_text_while_sampling():
    known = tiny.known_mask(3, ALL)
    config = DecodeConfig(k=3, guidance="none", eq6=True)
    one = run(known, config, tokens=tiny.tokens(3))
    other_text = tiny.tokens(3).at[:, 14:].set(tiny.tokens(3, seed=9)[:, 14:])
    two = run(known, config, tokens=other_text)
    np.testing.assert_array_equal(one.tokens[:, :13], two.tokens[:, :13])
    visible = dataclasses.replace(config, eq6=False)
    module, params = tiny.model()
    log_probs = [
        P.side_logits(module, {"params": params}, t[0], visible)["image"]
        for t in (tiny.tokens(3), other_text)
    ]
    assert np.abs(log_probs[0] - log_probs[1]).max() > 1e-3


def test_temperature_zero_is_greedy_and_keys_matter():
    known = tiny.known_mask(2, ALL)
    greedy = DecodeConfig(
        guidance="none", k=3, temperature=0.0, temperature_end=0.0, confidence_noise=0.0
    )
    a = run(known, greedy, key=jax.random.key(1))
    b = run(known, greedy, key=jax.random.key(2))
    np.testing.assert_array_equal(a.tokens, b.tokens)
    warm = DecodeConfig(guidance="none", k=3)
    a = run(known, warm, key=jax.random.key(1))
    b = run(known, warm, key=jax.random.key(2))
    assert (np.asarray(a.tokens) != np.asarray(b.tokens)).any()


@pytest.mark.parametrize("refresh", [1, 0])
def test_density_prefers_codes_that_have_others_beside_them(refresh):
    known = tiny.known_mask(2, ALL)
    module, params = tiny.model()
    # Codes 0 to 4 are nearly the same; 5, 6, 7 are alone.
    codebook = jnp.array([[0.0], [0.1], [0.2], [0.3], [0.4], [50], [80], [99]])

    def drawn(**options):
        config = DecodeConfig(guidance="none", k=3, refresh=refresh, **options)
        tokens = tiny.tokens(2)
        return decode(module, params, tokens, known, config, KEY, codebook=codebook)

    cold = {"temperature": 0.0, "temperature_end": 0.0}
    codes = [
        np.asarray(drawn(density=d, **cold).tokens)[~known] - 13 for d in (0.0, 3.0)
    ]
    # The tiny model's logits are nearly equal: what there is more of wins.
    assert (codes[0] > 4).any() and (codes[1] <= 4).all()
    warm = {"temperature": 1.0, "temperature_end": 1.0}
    same = [drawn(density=d, **warm).tokens for d in (0.0, 3.0)]
    np.testing.assert_array_equal(*same)
    with pytest.raises(ValueError, match="density is 2.0, and .* pass the codebook"):
        run(known, DecodeConfig(guidance="none", density=2.0))


def test_wrong_options_are_named():
    for options, said in (
        ({"guidance": "magic"}, "'magic'"),
        ({"k": 0}, "k is 0"),
        ({"side": "left"}, "'left'"),
        ({"select": "best"}, "'best'"),
        ({"num_steps": 0}, "num_steps is 0; use 1 or more, or guidance 'none'"),
        ({"update_set": "(open"}, r"'\(open' is no regular expression .* default"),
        ({"fusion": 1.5}, "fusion is 1.5; use 0 .* to 1"),
        ({"fusion": -0.1}, "fusion is -0.1"),
        ({"fusion": math.nan}, "fusion is nan"),
        ({"cfg": 2.0, "side": "text"}, "cfg .* needs side 'image'"),
        ({"cfg_end": 2.0, "eq6": True}, "cfg .* no eq6"),
    ):
        with pytest.raises(ValueError, match=said):
            DecodeConfig(**options)
    for name in ("step_size", "kl_max", "temperature", "temperature_end",
                 "confidence_noise", "density", "cfg", "cfg_end",
                 "last_blocks"):  # fmt: skip
        for value in (-1.0, math.nan, math.inf):
            said = f"^{name} is {value}; use a number from 0 on"
            with pytest.raises(ValueError, match=said):
                DecodeConfig(**{name: value})
        DecodeConfig(**{name: 0.0})
    DecodeConfig(fusion=0.0)
