"""Differences between groups, by hand."""

import numpy as np

from gptface_jax.evaluate import groups

AXES = {"skin": ("light", "dark"), "sex": ("female", "male")}


def test_figures_by_hand():
    """Two people, one attribute; the second is misread where it is dark."""
    truth = np.array([1.0, 0.0])[:, None, None, None] * np.ones((2, 2, 2, 1))
    said = truth > 0.5
    said[1, 1] = True  # both sexes
    said[0, 1, 1] = False
    found = groups.figures(said, truth, np.full(said.shape, 0.75), AXES)
    skin = found["groups"]["skin"]
    assert skin["light"] == {
        "accuracy": 1.0, "true_positive": 1.0, "false_positive": 0.0, "ece": 0.25
    }  # fmt: skip
    assert skin["dark"]["accuracy"] == 0.25
    assert (skin["dark"]["true_positive"], skin["dark"]["false_positive"]) == (0.5, 1.0)
    assert found["gaps"]["skin"]["accuracy"] == 0.75
    assert found["gaps"]["skin"]["interval"] == (0.5, 1.0)
    assert found["gaps"]["skin"]["false_positive"] == 1.0
    # Of four pairs that differ in skin alone three are read differently.
    assert found["flips"] == {"skin": 0.75, "sex": 0.25}
    assert found["worst"] == {"group": "dark, male", "accuracy": 0.0}
    assert found["best"]["accuracy"] == 1.0


def test_what_is_not_known_counts_nowhere():
    truth = np.full((3, 2, 2, 1), np.nan)
    truth[0] = 1.0
    said = np.ones(truth.shape, bool)
    said[1:, 1] = False
    found = groups.figures(said, truth, np.ones(said.shape), AXES)
    assert found["flips"] == {"skin": 0.0, "sex": 0.0}
    row = found["groups"]["skin"]["dark"]
    assert row["accuracy"] == 1.0 and np.isnan(row["false_positive"])


def test_what_the_group_changes_is_no_flip():
    """Who becomes a man is rightly called one."""
    truth = np.zeros((2, 1, 2, 1))
    truth[:, :, 1] = 1.0
    axes = {"skin": ("light",), "sex": ("female", "male")}
    found = groups.figures(truth > 0.5, truth, np.ones(truth.shape), axes)
    assert found["gaps"]["sex"]["accuracy"] == 0.0 and np.isnan(found["flips"]["sex"])
