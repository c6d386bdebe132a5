"""Verdicts that stay and people who are found again, counted by hand."""

import numpy as np
import pytest

from gptface_jax.evaluate import agreement


def test_verdicts_before_and_after_by_hand():
    # Two attributes; the last picture only fills up the batch.
    before = np.array([[1, -1], [2, -1], [3, -2], [-1, -3], [9, 9]], np.float32)
    after = np.array([[5, -1], [-2, 1], [1, -2], [-4, 2], [-9, -9]], np.float32)
    weight = np.array([1, 1, 1, 1, 0], np.float32)
    sums = agreement.attribute_sums(before, after, weight)
    counts = {k: [np.array(x).tolist() for x in v] for k, v in sums.items()}
    assert counts == {"present": [[2, 0], [3, 0]], "absent": [[1, 2], [1, 4]]}
    figures = agreement.attribute_figures(counts, ("glasses", "hat"))
    assert figures == pytest.approx(
        {
            "agreement/glasses": 3 / 4,
            "balanced_agreement/glasses": (2 / 3 + 1) / 2,
            "present/glasses": 3,
            "absent/glasses": 1,
            "agreement/hat": 2 / 4,
            "present/hat": 0,  # so that no balanced share exists
            "absent/hat": 4,
        }
    )


def test_people_are_found_among_the_other_photographs():
    # The photographs of persons 7, 7, 5, 5, 9 on a line.
    gallery = np.array([[0.0], [1.0], [4.0], [9.0], [10.0]])
    people = np.array([7, 7, 5, 5, 9])
    # 0 finds 1, 1 finds 0, 4 finds 1 (wrong), 9 finds 10 (wrong); 9 is alone.
    assert agreement.identity_sums(gallery, gallery, people) == (2, 4)
    # The first now looks like the third and may not find its own photograph.
    after = np.array([[4.1], [1.0], [8.0], [5.0], [0.0]])
    assert agreement.identity_sums(after, gallery, people) == (3, 4)
    # Shuffling changes nothing, nor do names of people.
    order = np.array([3, 1, 4, 0, 2])
    names = np.array(["b", "b", "a", "a", "c"])
    found = agreement.identity_sums(after[order], gallery[order], names[order])
    assert found == (3, 4)
    assert agreement.identity_sums(after, gallery, np.arange(5)) == (0, 0)
