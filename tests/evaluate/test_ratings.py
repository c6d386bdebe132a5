"""Tables of made-up raters, by hand."""

import math

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import ratings as answers
from gptface_jax.evaluate import ratings as metrics
from gptface_jax.protocols import ratings

NONE = np.nan


def edit(rater, system, item, quality, agreement=None):
    row = {"rater": rater, "kind": "edit", "system": system, "item": item}
    row["quality"] = quality
    return row if agreement is None else {**row, "agreement": agreement}


def tag(rater, word, grade, ranks, item="p.jpg", words=3):
    row = {"rater": rater, "kind": "tag", "item": item, "word": word, "grade": grade}
    return {**row, "ranks": ranks, "words": words}


def test_alpha_is_that_of_its_author():
    """Krippendorff 2011, the data of section C: four observers, twelve units."""
    data = np.array(
        [
            [1, 2, 3, 3, 2, 1, 4, 1, 2, NONE, NONE, NONE],
            [1, 2, 3, 3, 2, 2, 4, 1, 2, 5, NONE, 3],
            [NONE, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, NONE],
            [1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, NONE],
        ]
    )
    assert metrics.krippendorff_alpha(data) == pytest.approx(0.815, abs=5e-4)
    assert metrics.krippendorff_alpha(np.array([[1, 2, 3], [1, 2, 3]])) == 1.0
    for alike in ([[2, 2], [2, 2]], [[1, NONE], [NONE, 2]]):
        assert math.isnan(metrics.krippendorff_alpha(np.array(alike)))


def test_intervals_of_means():
    assert metrics.interval(np.full(5, 3.0)) == (3.0, 3.0)
    assert all(map(math.isnan, metrics.interval(np.array([3.0]))))
    low, high = metrics.interval(np.array([1.0, 5.0] * 50))
    # The standard error is 2 / sqrt(100).
    assert low == pytest.approx(3 - 1.96 * 0.2, abs=0.05)
    assert high == pytest.approx(3 + 1.96 * 0.2, abs=0.05)


def test_means_of_edits_count_a_picture_once():
    rows = [edit("ann", "ours", "1", 5, 4), edit("bob", "ours", "1", 3, 4)]
    rows += [edit("ann", "ours", "2", 2), edit("ann", "other", "1", 1, 1)]
    found = ratings.figures(rows)
    ours = found["edit"]["ours"]
    assert (ours["quality"]["mean"], ours["quality"]["pictures"]) == (3.0, 2)
    assert (ours["agreement"]["mean"], ours["agreement"]["pictures"]) == (4.0, 1)
    assert (ours["quality"]["low"], ours["quality"]["high"]) == (2.0, 4.0)
    assert found["raters"]["quality"]["raters"] == 2
    assert found["raters"]["quality"]["questions"] == 1
    lines = ratings.tables(found).splitlines()
    assert lines[0] == "| system | pictures | quality | agreement |"
    assert lines[3] == "| ours | 2 | 3.00 (2.00 to 4.00) | 4.00 |"


def test_ranked_words_by_the_mean_grade():
    words = (("a", {"ours": 1}), ("b", {"ours": 2, "other": 1}), ("c", {"other": 2}))
    rows = [tag("ann", w, g, r) for (w, r), g in zip(words, (2, 0, 1))]
    rows += [tag("bob", w, g, r) for (w, r), g in zip(words, (2, 1, 1))]
    # Of a rater who stopped, nothing counts.
    rows += [tag("eve", "a", 0, {"ours": 1})]
    found = ratings.figures(rows)
    assert found["unfinished"] == 1
    gain = {"a": 3.0, "b": 2**0.5 - 1, "c": 1.0}  # 2^grade - 1 of 2, 1/2, 1
    second, third = 1 / math.log2(3), 1 / 2
    ideal = gain["a"] + gain["c"] * second + gain["b"] * third
    ours, other = found["tag"]["ours"], found["tag"]["other"]
    for depth in (5, 10, 20):
        name = f"ndcg@{depth}"
        own = gain["a"] + gain["b"] * second
        assert ours[name]["mean"] == pytest.approx(own / ideal)
        assert other[name]["mean"] == pytest.approx(
            (gain["b"] + gain["c"] * second) / ideal
        )
    # Relevant are a and c: precision 1 at the first rank, 1/2 at the second; of two.
    assert (ours["map"]["mean"], other["map"]["mean"]) == (0.5, 0.25)
    said = ratings.tables(found)
    assert "| ours | 1 | 85.0 | 85.0 | 85.0 | 50.0 |" in said
    assert said.endswith("1 times a rater has not rated all words of a photograph")


def test_a_torn_line_is_passed_over_and_the_last_answer_counts(tmp_path):
    answers.append(tmp_path, edit("Ann", "ours", "1", 5, 4))
    path = answers.path_of(tmp_path, "ann")
    with open(path, "a") as file:
        file.write('{"rater": "ann", "kind": "ed')
    answers.append(tmp_path, edit("ann", "ours", "1", 2, 2))
    answers.append(tmp_path, edit("bob", "ours", "1", 4, 4))
    assert len(path.read_text().splitlines()) == 3
    for given in ([tmp_path], sorted(path.parent.iterdir())):
        rows = answers.read(given)
        assert [(r["rater"].lower(), r["quality"]) for r in rows][-1] == ("bob", 4)
    with open(path, "a") as file:
        file.write('{"rater": "ann", "kind": "tag", "word": "a", "grade": 3}\n')
    with pytest.raises(UserError, match="line 4 of .*grade is 3; give 0 to 2"):
        answers.read([path])
    with pytest.raises(UserError, match="holds no ratings yet"):
        answers.read([tmp_path / "ratings"])
    for name in ("", "../ann", "a/b", "x" * 41, "-"):
        with pytest.raises(UserError, match="cannot be used"):
            answers.checked_name(name)
    assert answers.checked_name("  Ann  B. ") == "ann b."
