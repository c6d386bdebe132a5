import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptface_jax.evaluate import edits


def test_mcnemar_by_hand():
    # 9 pairs only the first has, 1 only the second: 2 * (1 + 10) / 2**10.
    first = np.array([True] * 9 + [False] + [True] * 5)
    second = np.array([False] * 9 + [True] + [True] * 5)
    assert edits.mcnemar(first, second) == pytest.approx(22 / 1024)
    assert edits.mcnemar(first, first) == 1.0
    many = np.ones(4000, bool)
    assert 0 < edits.mcnemar(many, ~many) < 1e-300 or edits.mcnemar(many, ~many) == 0


@given(st.integers(0, 40), st.integers(0, 40))
def test_mcnemar_is_the_binomial_test(a, b):
    first = np.array([True] * a + [False] * b, bool)
    exact = sum(math.comb(a + b, i) for i in range(min(a, b) + 1)) / 2 ** (a + b)
    assert edits.mcnemar(first, ~first) == pytest.approx(min(1.0, 2 * exact))


def test_rates():
    asked = np.array([True, True, True, False])
    opposite = np.array([False, True, False, False])
    rates = edits.rates(asked, opposite, np.array([True, False, False, False]))
    assert (rates.asked, rates.opposite, rates.before) == (0.75, 0.25, 0.25)
    assert rates.gap == 0.5 and rates.count == 4
    assert rates.to_dict()["p_value"] == 0.5


def test_outside_psnr():
    photo = np.full((1, 4, 4, 3), 100, np.uint8)
    mask = np.zeros((1, 4, 4), bool)
    mask[:, :2] = True
    inside = photo.copy()
    inside[:, 0] = 0
    assert np.isinf(edits.outside_psnr(inside, photo, mask)[0])
    outside = photo.copy()
    outside[:, 2:] += 10
    expected = 10 * math.log10(255**2 / 100)
    assert edits.outside_psnr(outside, photo, mask)[0] == pytest.approx(expected)


def test_area_under_curve():
    positive, negative = np.array([3.0, 1.0]), np.array([0.0, 1.0, 4.0])
    # Of six pairs 3 wins against 0 and 1, 1 against 0, and one is a tie.
    assert edits.area_under_curve(positive, negative) == pytest.approx(3.5 / 6)
    assert edits.area_under_curve(negative, negative) == 0.5
    assert math.isnan(edits.area_under_curve(positive[:0], negative))


def test_balanced_accuracy():
    truth = np.array([True] * 2 + [False] * 8)
    said = np.array([True, False] + [False] * 8)
    assert edits.balanced_accuracy(said, truth) == 0.75
    assert math.isnan(edits.balanced_accuracy(said, np.ones(10, bool)))
