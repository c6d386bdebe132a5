import jax
import jax.numpy as jnp
import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface_jax.ops import sampling


def test_distances_and_rings_by_hand():
    known = jnp.array([[1, 1, 0, 0], [1, 0, 0, 0]], bool).reshape(-1)
    distances = sampling.grid_distances((2, 4))
    ring = np.asarray(sampling.rings(distances, known)).reshape(2, 4)
    assert ring.tolist() == [[0, 0, 1, 2], [0, 1, 2, 3]]
    line = sampling.rings(sampling.line_distances(5), jnp.array([0, 0, 1, 0, 0], bool))
    assert line.tolist() == [2, 1, 0, 1, 2]
    nothing = sampling.rings(distances, jnp.zeros(8, bool))
    assert (nothing == sampling.FAR).all()


@given(st.integers(1, 8), st.integers(0, 2**31 - 1))
@settings(max_examples=50, deadline=None)
def test_commit_takes_the_boundary_first_then_the_surest(k, seed):
    rng = np.random.default_rng(seed)
    ring = jnp.array(rng.integers(1, 4, 12))
    confidence = jnp.array(rng.normal(size=12), jnp.float32)
    is_open = jnp.array(rng.random(12) < 0.6)
    commit = np.asarray(sampling.commit_mask(ring, confidence, is_open, k))
    number = min(k, int(is_open.sum()))
    ranked = sorted(
        np.flatnonzero(is_open), key=lambda i: (int(ring[i]), -float(confidence[i]))
    )
    assert sorted(np.flatnonzero(commit)) == sorted(ranked[:number])


def test_sampling_follows_the_distribution():
    log_probs = jnp.log(jnp.tile(jnp.array([0.2, 0.5, 0.3, 0.0]), (20_000, 1)))
    ids, sure = sampling.sample(log_probs, jnp.float32(1.0), jax.random.key(0))
    shares = np.bincount(ids, minlength=4) / 20_000
    np.testing.assert_allclose(shares, [0.2, 0.5, 0.3, 0.0], atol=0.015)
    np.testing.assert_allclose(sure, np.log([0.2, 0.5, 0.3, 1.0])[ids], rtol=1e-5)
    # Logits give the same tokens and their own score.
    same, logit = sampling.sample(log_probs + 9.0, jnp.float32(1.0), jax.random.key(0))
    np.testing.assert_allclose(np.mean(same == ids), 1.0, atol=1e-3)
    np.testing.assert_allclose(logit, (log_probs + 9.0)[0][same], rtol=1e-5)
    ids, _ = sampling.sample(log_probs[:50], jnp.float32(0.0), jax.random.key(1))
    assert (ids == 1).all()
    # Temperature 0.5 squares the odds.
    ids, _ = sampling.sample(log_probs, jnp.float32(0.5), jax.random.key(2))
    shares = np.bincount(ids, minlength=4) / 20_000
    expected = np.array([0.04, 0.25, 0.09, 0]) / 0.38
    np.testing.assert_allclose(shares, expected, atol=0.015)


def test_density_counts_the_codes_nearby():
    # Three the same, two at the unit of distance from one another, one alone.
    codes = jnp.array([[0.0], [0], [0], [50], [51], [99]])
    found = np.exp(sampling.code_density(codes[3:]))
    # The median distance to the nearest is 1; 48 and more are nothing.
    np.testing.assert_allclose(found, [1 + np.exp(-0.5)] * 2 + [1], rtol=1e-5)
    wider = np.exp(sampling.code_density(codes[3:], width=2.0))
    np.testing.assert_allclose(wider, [1 + np.exp(-0.125)] * 2 + [1], rtol=1e-5)
    same = np.exp(sampling.code_density(codes[jnp.array([0, 1, 2, 5])]))
    np.testing.assert_allclose(same, [3, 3, 3, 1], rtol=1e-5)


@given(st.integers(1, 6), st.floats(0.05, 2.0))
@settings(max_examples=30, deadline=None)
def test_a_code_split_into_copies_keeps_its_share_at_any_temperature(copies, t):
    p = np.array([0.5, 0.3, 0.2])
    whole = p ** (1 / t) / np.sum(p ** (1 / t))
    # The first code as so many copies, each with its part of the probability.
    codes = jnp.array([[0.0]] * copies + [[4.0], [9.0]])
    split = np.log([0.5 / copies] * copies + [0.3, 0.2])
    density = sampling.code_density(codes, 0.01)
    scores = np.asarray(sampling.for_temperature(jnp.array(split), t, density)) / t
    found = np.exp(scores - np.logaddexp.reduce(scores))
    np.testing.assert_allclose(found[:copies].sum(), whole[0], rtol=2e-3)
    np.testing.assert_allclose(found[copies:], whole[1:], rtol=2e-3)


def test_every_block_of_ids_is_drawn_by_its_share():
    scores = np.full((60_000, 150), -np.inf, np.float32)
    shares = {0: 0.1, 63: 0.2, 64: 0.3, 127: 0.05, 149: 0.35}
    for i, share in shares.items():
        scores[:, i] = np.log(share)
    ids, _ = sampling.sample(jnp.asarray(scores), jnp.float32(1.0), jax.random.key(0))
    found = np.bincount(ids, minlength=150) / 60_000
    assert set(np.flatnonzero(found)) == set(shares)
    np.testing.assert_allclose(found[list(shares)], list(shares.values()), atol=0.006)


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=30, deadline=None)
def test_what_cannot_be_is_never_drawn(seed):
    rng = np.random.default_rng(seed)
    scores = rng.normal(scale=20, size=(500, 70)).astype(np.float32)
    scores[rng.random(scores.shape) < 0.5] = -np.inf
    scores[:, seed % 70] = 0.0
    for temperature in (0.0, 0.3, 3.0):
        ids, sure = sampling.sample(
            jnp.asarray(scores), jnp.float32(temperature), jax.random.key(seed)
        )
        assert np.isfinite(sure).all()
        np.testing.assert_array_equal(sure, scores[np.arange(500), ids])
        if temperature == 0:
            np.testing.assert_array_equal(ids, scores.argmax(-1))


def test_keep_likely_by_hand():
    """SPEC B.9: ids below the k-th, or beyond a cumulative probability, fall away."""
    p = np.array([0.15, 0.5, 0.05, 0.3])

    def kept(**options):
        return np.isfinite(sampling.keep_likely(jnp.log(p), **options)).tolist()

    assert kept() == [True] * 4
    assert kept(top_k=2) == [False, True, False, True]
    assert kept(top_k=9) == [True] * 4
    assert kept(top_p=0.4) == [False, True, False, False]
    assert kept(top_p=0.6) == [False, True, False, True]
    assert kept(top_p=0.81) == [True, True, False, True]
    assert kept(top_p=1.0) == [True] * 4
    assert kept(top_k=1, top_p=0.99) == [False, True, False, False]
