"""NDCG and average precision against sums on paper."""

import math

import numpy as np
import pytest

from gptface_jax.evaluate import tagging

# Truth of one picture, and two systems that found different parts of it.
TRUTH = {"man": 2, "hat": 2, "hair": 1}
ONE, TWO = ["man", "dog", "hair"], ["cat", "hat", "man"]


def test_ndcg_by_hand():
    found = tagging.evaluate({"one": [ONE], "two": [TWO]}, [TRUTH], depths=(1, 3))
    third, half = 1 / math.log2(3), 1 / 2
    ideal = 3 + 3 * third + 1 * half  # of what both found: man, hat, hair
    assert found["one"]["ndcg@3"][0] == pytest.approx((3 + half) / ideal)
    assert found["two"]["ndcg@3"][0] == pytest.approx((3 * third + 3 * half) / ideal)
    linear = 2 + 2 * third + half
    assert found["one"]["linear_ndcg@3"][0] == pytest.approx((2 + half) / linear)
    assert [found[s]["ndcg@1"][0] for s in ("one", "two")] == [1, 0]
    # 1/1 and 2/3 of three; 1/2 and 2/3 of three.
    assert found["one"]["map"][0] == pytest.approx((1 + 2 / 3) / 3)
    assert found["two"]["map"][0] == pytest.approx((1 / 2 + 2 / 3) / 3)


def test_the_ideal_is_pooled():
    """Alone, a system that finds one true word first would be perfect."""
    alone = tagging.evaluate({"one": [["man"]]}, [TRUTH])
    assert alone["one"]["ndcg@5"][0] == alone["one"]["map"][0] == 1
    both = tagging.evaluate({"one": [["man"]], "two": [["man", "hat"]]}, [TRUTH])
    assert both["one"]["ndcg@5"][0] < 1 and both["one"]["map"][0] == 0.5
    assert both["two"]["ndcg@5"][0] == 1


def test_a_perfect_ranking_and_none():
    best = sorted(TRUTH, key=TRUTH.get, reverse=True)
    found = tagging.evaluate({"best": [best], "none": [[]]}, [TRUTH])
    assert all(values[0] == 1 for values in found["best"].values())
    assert all(values[0] == 0 for values in found["none"].values())
    nothing = tagging.evaluate({"a": [["dog"]]}, [TRUTH])["a"]
    assert all(np.isnan(values[0]) for values in nothing.values())


def test_most_results_count():
    words = [f"w{i}" for i in range(40)]
    truth = dict.fromkeys(words, 1)
    found = tagging.evaluate({"a": [words], "b": [words[20:]]}, [truth], most=30)
    assert found["a"]["map"][0] == 1  # 30 of at most 30
    assert found["b"]["map"][0] == pytest.approx(20 / 30)


def test_what_makes_no_ranking():
    with pytest.raises(ValueError, match="'a' ranks a word twice"):
        tagging.evaluate({"a": [["man", "man"]]}, [TRUTH])
    with pytest.raises(ValueError, match="'a' ranked tags of 1 pictures, there are 2"):
        tagging.evaluate({"a": [["man"]]}, [TRUTH, TRUTH])
