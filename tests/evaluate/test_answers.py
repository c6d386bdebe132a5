"""Answers against the truth, on paper."""

import math

import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.evaluate import answers


def test_accuracy_by_hand():
    """Three of four men, one of two women right; one answer was none."""
    truth = ["male"] * 4 + ["female"] * 2
    said = ["male", "male", "male", None, "female", "male"]
    found = answers.accuracy(said, truth)
    assert found["accuracy"] == pytest.approx(4 / 6)
    assert found["balanced_accuracy"] == pytest.approx((3 / 4 + 1 / 2) / 2)
    assert found["coverage"] == pytest.approx(5 / 6) and found["count"] == 6


def test_no_is_no_missing_answer():
    found = answers.accuracy([False, None, True], [False, False, True])
    assert found["accuracy"] == pytest.approx(2 / 3)
    assert found["balanced_accuracy"] == pytest.approx(3 / 4)
    assert math.isnan(answers.accuracy([True], [True])["balanced_accuracy"])
    assert answers.accuracy([0, None], [0, 0])["accuracy"] == 0.5


def test_ages_by_hand():
    found = answers.age_errors([20, None, 43], [25, 30, 40], median=36)
    assert found["mae"] == pytest.approx((5 + 3) / 2)
    assert found["mae_with_median"] == pytest.approx((5 + 6 + 3) / 3)
    assert found["coverage"] == pytest.approx(2 / 3) and found["count"] == 3
    unknown = answers.age_errors([20, None, 43], [25, 30, 40])
    assert unknown["mae"] == found["mae"] and math.isnan(unknown["mae_with_median"])
    assert answers.age_errors([20], [25])["mae_with_median"] == 5
    none = answers.age_errors([None], [30], median=36)
    assert math.isnan(none["mae"]) and none["mae_with_median"] == 6
    assert none["coverage"] == 0


def test_bad_input():
    for function in (answers.accuracy, lambda s, t: answers.age_errors(s, t, 30)):
        with pytest.raises(UserError, match="1 answers and 2 truths"):
            function([1], [1, 2])
        with pytest.raises(UserError, match="0 answers and 0 truths"):
            function([], [])
