"""Proposed masks measured, on the tiny model."""

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.protocols import proposals


def test_baselines_take_the_share_that_is_said():
    for values in (np.ones((8, 8)), -np.abs(np.arange(64.0) - 31.5).reshape(8, 8)):
        assert proposals._highest(values, 17 / 64).sum() == 17


def test_proposals_are_measured_beside_what_knows_no_text(model):
    names = ("Wearing_Hat", "Eyeglasses")
    figures = proposals.proposals(model, names, 3, progress=False)
    assert set(figures["attributes"]) == set(names)
    for row in (*figures["attributes"].values(), figures["mean"]):
        assert set(row) == {
            "proposed", "saliency", "saliency x average", "average", "centre", "random"
        }  # fmt: skip
        assert all(0 <= iou <= 1 for iou in row.values())
    # Drawn faces are aligned: where hats are is known before.
    assert figures["attributes"]["Wearing_Hat"]["average"] > 0.4
    with pytest.raises(UserError, match="no attribute 'Smilling' .did you mean"):
        proposals.proposals(model, ["Smilling"], 1)
