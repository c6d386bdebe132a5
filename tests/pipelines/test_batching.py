"""Batches are filled with their last entry, and cut again."""

import numpy as np
import pytest

from gptface_jax.pipelines import batching


def test_filled_with_the_last():
    np.testing.assert_array_equal(batching.filled(np.array([1, 2]), 4), [1, 2, 2, 2])
    assert batching.filled(["a", "b"], 3) == ["a", "b", "b"]
    assert batching.filled(["a", "b"], 1) == ["a", "b"]


@pytest.mark.parametrize("count, power", [(1, 1), (2, 2), (3, 4), (4, 4), (5, 8)])
def test_powers_of_two(count, power):
    assert batching.power_of_two(count) == power


def test_all_entries_once_and_in_order():
    seen = []

    def function(numbers, words):
        seen.append((numbers.tolist(), words))
        return {"twice": 2 * numbers, "length": np.array([len(w) for w in words])}

    arrays = np.arange(5), ["", "a", "bb", "ccc", "dddd"]
    found = batching.run(function, arrays, 2)
    assert seen == [
        ([0, 1], ["", "a"]),
        ([2, 3], ["bb", "ccc"]),
        ([4, 4], ["dddd"] * 2),
    ]
    np.testing.assert_array_equal(found["twice"], 2 * np.arange(5))
    np.testing.assert_array_equal(found["length"], np.arange(5))


def test_a_short_part_may_have_a_smaller_batch():
    sizes = []

    def function(numbers):
        sizes.append(len(numbers))
        return numbers

    found = batching.run(function, [np.arange(7)], 4, batching.power_of_two)
    np.testing.assert_array_equal(found, np.arange(7))
    assert sizes == [4, 4]  # 3 get 4
    batching.run(function, [np.arange(5)], 4, batching.power_of_two)
    assert sizes[2:] == [4, 1]
