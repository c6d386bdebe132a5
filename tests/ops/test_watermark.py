"""The keyed half of the codes: its hash by hand, and that it is a fair coin."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.ops import watermark


def by_hand(key, position, left, code):
    """murmur3's finalizer after every word, in Python's own integers."""
    h = 0
    for value in (key & 0xFFFFFFFF, key >> 32, position, left, code):
        h = ((h ^ (value & 0xFFFFFFFF)) + 0x9E3779B9) & 0xFFFFFFFF
        h = ((h ^ (h >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
        h = ((h ^ (h >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
        h ^= h >> 16
    return h >= 2**31


@pytest.mark.parametrize("key", [0, 7, 2**32, 2**64 - 1])
def test_the_hash_is_the_documented_one(key):
    position, left, code = np.indices((5, 4, 6)).reshape(3, -1)
    left = left - 1  # with NONE
    found = jax.jit(watermark.green, static_argnums=0)(key, position, left, code)
    expected = [
        by_hand(key, *triple)
        for triple in zip(*map(np.ndarray.tolist, (position, left, code)))
    ]
    assert found.tolist() == expected


def test_every_word_of_the_triple_tosses_the_coin_anew():
    position, left, code = np.indices((16, 8, 512))
    base = np.asarray(watermark.green(11, position, left, code))
    assert abs(base.mean() - 0.5) < 0.01
    for other in (
        watermark.green(12, position, left, code),
        watermark.green(11 + 2**32, position, left, code),
        watermark.green(11, position + 1, left, code),
        watermark.green(11, position, left + 1, code),
        watermark.green(11, position, left, code + 1),
    ):
        assert abs(np.mean(base == other) - 0.5) < 0.01
    # No position, neighbour or code of its own is far from half.
    for axes, count in (((1, 2), 4096), ((0, 2), 8192), ((0, 1), 128)):
        assert (abs(base.mean(axes) - 0.5) < 4.5 * 0.5 / np.sqrt(count)).all()


def test_left_neighbours_and_what_is_favoured():
    codes = jnp.array([3, 1, -9, 2, 0, 5])  # -9: still open
    left = watermark.left_neighbours(codes, 3)
    assert left.tolist() == [-1, 3, 1, -1, 2, 0]
    codes = jnp.array([3, -9, 1, 2, 0, 5])
    half = np.asarray(watermark.favoured(5, codes, 3, 8, by_left=True))
    for row, (position, neighbour) in enumerate(enumerate((-1, 3, -1, -1, 2, 0))):
        expected = watermark.green(5, position, neighbour, np.arange(8))
        np.testing.assert_array_equal(half[row], expected)
    plain = np.asarray(watermark.favoured(5, codes, 3, 8, by_left=False))
    expected = watermark.green(5, np.arange(6)[:, None], -1, np.arange(8))
    np.testing.assert_array_equal(plain, expected)


@pytest.mark.parametrize("key", [-1, 2**64, 1.0, "a", True, None])
def test_what_is_no_key(key):
    with pytest.raises(ValueError, match="watermark_key is .*use an integer"):
        watermark.check_key(key)
