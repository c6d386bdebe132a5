import jax
import jax.numpy as jnp
import numpy as np
import pytest
import simulated_devices
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface_jax.ops import quantize

SHARDED = """
import json
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from gptface_jax.ops import quantize
quantize.MAX_DISTANCES, quantize.MIN_CODES = 1, 5
rng = np.random.default_rng(0)
z, codebook = (np.float32(rng.integers(-3, 4, s)) for s in ((16, 3, 3, 2), (12, 2)))
assert len(jax.devices()) == 8
rows = NamedSharding(Mesh(np.array(jax.devices()), ("batch",)), PartitionSpec("batch"))
nearest = jax.jit(quantize.nearest).lower(jax.device_put(z, rows), codebook).compile()
kinds = ("all-gather", "all-reduce", "all-to-all", "collective-permute")
found = [word for word in kinds if word in nearest.as_text()]
assert nearest.output_shardings.is_equivalent_to(rows, 3)
ids = nearest(jax.device_put(z, rows), codebook)
quantize.MAX_DISTANCES = 2**24
np.testing.assert_array_equal(ids, jax.jit(lambda z: quantize.nearest(z, codebook))(z))
print("RESULT", json.dumps(found))
"""

CODES = jnp.array([[0.0, 0.0], [3.0, 0.0], [0.0, 4.0]])


def test_distances_and_nearest_by_hand():
    z = jnp.array([[[1.0, 0.0], [2.0, 0.0]], [[1.0, 3.0], [3.0, 4.0]]])
    expected = [[[1, 4, 17], [4, 1, 20]], [[10, 13, 2], [25, 16, 9]]]
    np.testing.assert_allclose(quantize.distances(z, CODES), expected, rtol=1e-6)
    ids = quantize.nearest(z, CODES)
    assert ids.dtype == jnp.int32 and ids.tolist() == [[0, 1], [2, 2]]


def test_distances_are_float32_whatever_the_input():
    z = jnp.array([[1.0, 3.0]], jnp.bfloat16)
    assert quantize.distances(z, CODES.astype(jnp.bfloat16)).dtype == jnp.float32


@given(st.integers(0, 2**31 - 1))
@settings(max_examples=30, deadline=None)
def test_nearest_agrees_with_brute_force(seed):
    rng = np.random.default_rng(seed)
    z, codebook = rng.normal(size=(7, 5)), rng.normal(size=(11, 5))
    squared = ((z[:, None] - codebook[None]) ** 2).sum(-1)
    ids = np.asarray(quantize.nearest(jnp.float32(z), jnp.float32(codebook)))
    best = squared.min(-1)
    np.testing.assert_allclose(squared[np.arange(7), ids], best, rtol=1e-4)


def test_of_equally_close_codes_the_lowest_is_taken(monkeypatch):
    monkeypatch.setattr(quantize, "MIN_CODES", 3)
    codebook = jnp.tile(jnp.array([[5.0], [2.0], [2.0], [9.0], [2.0]]), (3, 1))
    for limit in (1, 2**24):  # in chunks of three, the last one moved back; at once
        monkeypatch.setattr(quantize, "MAX_DISTANCES", limit)
        ids = quantize.nearest(jnp.array([[2.0], [8.0], [5.0]]), codebook)
        assert ids.tolist() == [1, 3, 0]


@given(st.integers(0, 2**31 - 1), st.sampled_from((1, 6, 7, 8, 40)))
@settings(max_examples=20, deadline=None)
def test_chunks_give_what_one_comparison_gives(seed, size):
    rng = np.random.default_rng(seed)
    # Few values: many codes are equally close, and every distance is exact.
    z = jnp.float32(rng.integers(-2, 3, (2, 5, 3)))
    codebook = jnp.float32(rng.integers(-2, 3, (size, 3)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quantize, "MIN_CODES", 7)
        patch.setattr(quantize, "MAX_DISTANCES", 1)
        ids = quantize.nearest(z, codebook)
    assert ids.dtype == jnp.int32
    np.testing.assert_array_equal(ids, quantize.nearest(z, codebook))


def test_large_batches_never_hold_all_distances():
    z = jax.ShapeDtypeStruct((32, 42, 42, 8), jnp.float32)  # 1.8 GB of distances
    codebook = jax.ShapeDtypeStruct((8192, 8), jnp.float32)

    def memory(f):
        return jax.jit(f).lower(z, codebook).compile().memory_analysis()

    used = memory(quantize.nearest).temp_size_in_bytes
    assert used < 3 * 4 * quantize.MAX_DISTANCES
    loss = jax.grad(lambda z, c: jnp.sum((c[quantize.nearest(z, c)] - z) ** 2), 1)
    assert memory(loss).temp_size_in_bytes < 4 * 4 * quantize.MAX_DISTANCES


def test_chunks_leave_sharded_rows_on_their_devices():
    assert simulated_devices.run("-c", SHARDED, path=".") == []


def test_straight_through_has_the_value_of_codes_and_the_slope_of_latents():
    z_e, z_q = jnp.array([[1.0, -2.0]]), jnp.array([[0.5, 4.0]])
    np.testing.assert_allclose(quantize.straight_through(z_e, z_q), z_q, rtol=1e-6)

    def squared(z_e, z_q):
        return jnp.sum(quantize.straight_through(z_e, z_q) ** 2)

    latents, codes = jax.grad(squared, (0, 1))(z_e, z_q)
    np.testing.assert_allclose(latents, 2 * z_q, rtol=1e-6)
    assert not codes.any()


def rotation(a, b):
    """The matrix that turns a to the direction of b in their plane, and scales."""
    e, q = a / np.linalg.norm(a), b / np.linalg.norm(b)
    r = (e + q) / np.linalg.norm(e + q)
    turn = np.eye(len(a)) - 2 * np.outer(r, r) + 2 * np.outer(q, e)
    return np.linalg.norm(b) / np.linalg.norm(a) * turn


def test_the_rotation_trick_is_the_papers_formula():
    rng = np.random.default_rng(0)
    z_e, z_q, slope = np.float32(rng.normal(size=(3, 5, 4)))
    value, pull_back = jax.vjp(quantize.rotate, z_e, z_q)
    np.testing.assert_allclose(value, z_q, atol=1e-5)
    latents, codes = pull_back(slope)
    matrices = [rotation(a, b) for a, b in zip(z_e, z_q)]
    expected = [matrix.T @ g for matrix, g in zip(matrices, slope)]
    np.testing.assert_allclose(latents, expected, rtol=1e-3, atol=1e-5)
    assert not codes.any()
    # The slope lies to the latent as it lay to the code.
    for latent, code, before, after in zip(z_e, z_q, slope, latents):
        there = before @ code / np.linalg.norm(before) / np.linalg.norm(code)
        here = after @ latent / np.linalg.norm(after) / np.linalg.norm(latent)
        assert here == pytest.approx(there, abs=1e-4)


def test_the_rotation_trick_by_hand():
    z_e, z_q = jnp.array([[2.0, 0.0]]), jnp.array([[0.0, 1.0]])
    value, pull_back = jax.vjp(lambda z: quantize.rotate(z, z_q), z_e)
    np.testing.assert_allclose(value, z_q, atol=1e-6)
    # A quarter turn and half the length: a slope along the code becomes one along z_e.
    np.testing.assert_allclose(
        pull_back(jnp.array([[0.0, 1.0]]))[0], [[0.5, 0]], atol=1e-6
    )
    np.testing.assert_allclose(
        pull_back(jnp.array([[1.0, 0.0]]))[0], [[0, -0.5]], atol=1e-6
    )
    opposite = quantize.rotate(z_e, -z_e)
    np.testing.assert_allclose(opposite, -z_e, atol=1e-5)


@pytest.mark.parametrize("on_codebook", [False, True])
def test_codebook_loss_by_hand(on_codebook):
    z_e, z_q = jnp.array([[1.0, 0.0]]), jnp.array([[3.0, 1.0]])

    def loss(z_e, z_q):
        return quantize.codebook_loss(z_e, z_q, 0.25, on_codebook)

    # Mean square 5/2 in both terms: 1.25 * 2.5 in either ordering.
    np.testing.assert_allclose(loss(z_e, z_q), 3.125, rtol=1e-6)
    latents, codes = jax.grad(loss, (0, 1))(z_e, z_q)
    full = np.array([[2.0, 1.0]])  # d/dz_q of mean((z_q - z_e)^2)
    weak_codes, weak_latents = (0.25, 1.0) if on_codebook else (1.0, 0.25)
    np.testing.assert_allclose(codes, weak_codes * full, rtol=1e-6)
    np.testing.assert_allclose(latents, -weak_latents * full, rtol=1e-6)


def test_counts_and_perplexity_by_hand():
    usage = quantize.counts(jnp.array([[0, 2], [2, 2]]), 5)
    assert usage.tolist() == [1.0, 0.0, 3.0, 0.0, 0.0]
    entropy = -(0.25 * np.log(0.25) + 0.75 * np.log(0.75))
    np.testing.assert_allclose(quantize.perplexity(usage), np.exp(entropy), rtol=1e-5)
    np.testing.assert_allclose(quantize.perplexity(jnp.full(7, 3.0)), 7.0, rtol=1e-5)
    np.testing.assert_allclose(quantize.perplexity(jnp.eye(4)[1]), 1.0, rtol=1e-6)
    assert np.isfinite(quantize.perplexity(jnp.zeros(4)))


def test_revival_moves_dead_codes_only():
    rng = np.random.default_rng(0)
    codebook = jnp.float32(rng.normal(size=(50, 4)))
    usage = jnp.float32(rng.random(50))
    candidates = jnp.float32(rng.normal(size=(9, 4)) + 10.0)
    revived, dead = quantize.revive(codebook, usage, candidates, 0.3, jax.random.key(0))
    np.testing.assert_array_equal(dead, usage < 0.3)
    assert 0 < dead.sum() < 50
    np.testing.assert_array_equal(revived[~dead], codebook[~dead])
    # Revived codes lie beside a candidate, and not all beside the same one.
    moved = np.asarray(revived[dead])
    gap = np.abs(moved[:, None] - np.asarray(candidates)[None]).max(-1)
    assert gap.min(-1).max() < 0.01 * 6 * float(jnp.std(candidates))
    assert len(set(gap.argmin(-1))) > 1


def test_the_most_used_codes_are_split():
    usage = jnp.array([12.0, 1.0, 5.0])
    larger, parents = quantize.split(CODES, usage, 7, 0.1, jax.random.key(0))
    # 12, 5, 1 -> 6 + 6, 5, 1 -> 4 x 3, 5, 1 -> 4 x 3, 2.5 x 2, 1 -> 3 x 4, 2.5 x 2, 1
    assert parents[:3].tolist() == [0, 1, 2]
    assert sorted(parents[3:].tolist()) == [0, 0, 0, 2]
    np.testing.assert_array_equal(larger[:3], CODES)
    apart = np.abs(larger[3:] - CODES[parents[3:]])
    assert 0 < apart.min() and apart.max() < 0.1 * 4 * float(jnp.std(CODES))
    same, parents = quantize.split(CODES, usage, 3, 0.1, jax.random.key(0))
    np.testing.assert_array_equal(same, CODES)


def test_children_without_noise_change_no_code():
    rng = np.random.default_rng(0)
    codebook = jnp.float32(rng.normal(size=(20, 3)))
    z = jnp.float32(rng.normal(size=(300, 3)))
    before = quantize.nearest(z, codebook)
    usage = quantize.counts(before, 20)
    larger, parents = quantize.split(codebook, usage, 80, 0.0, jax.random.key(0))
    np.testing.assert_array_equal(larger, codebook[parents])
    np.testing.assert_array_equal(quantize.nearest(z, larger), before)
    assert np.bincount(parents)[np.argmax(usage)] == np.bincount(parents).max()
    # With a little noise a latent stays with the family of its code, mostly.
    near, parents = quantize.split(codebook, usage, 80, 0.01, jax.random.key(1))
    after = quantize.nearest(z, near)
    assert np.mean(parents[after] == before) > 0.95
    assert quantize.perplexity(quantize.counts(after, 80)) > 1.8 * quantize.perplexity(
        usage
    )


def test_revival_of_nothing():
    revived, dead = quantize.revive(
        CODES, jnp.ones(3), jnp.ones((2, 2)), 0.5, jax.random.key(1)
    )
    np.testing.assert_array_equal(revived, CODES)
    assert not dead.any()
