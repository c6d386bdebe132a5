"""What may change, and what the model sees of a photo of any size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface_jax.core.errors import UserError
from gptface_jax.pipelines import framing


def masked(size, box):
    mask = np.zeros(size, bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    return mask


def test_a_portrait_keeps_its_centre_and_a_far_mask_gets_its_surroundings():
    size = (100, 160)
    assert framing.around(masked(size, (60, 40, 100, 60)), 32) == (30, 0, 130, 100)
    # Outside the centre: three times its extent.
    assert framing.around(masked(size, (140, 60, 160, 70)), 32) == (100, 35, 160, 95)
    # Small: at least what the model sees pixel by pixel.
    assert framing.around(masked(size, (80, 50, 84, 52)), 32) == (66, 35, 98, 67)
    with pytest.raises(UserError, match="the mask is 120 x 20; no square"):
        framing.around(masked(size, (10, 20, 130, 40)), 32)


@pytest.mark.parametrize("turned", [False, True])
def test_the_square_that_holds_most_of_a_mask(turned):
    for box, expected in (
        ((10, 0, 12, 60), (10, 0, 70, 60)),
        ((95, 0, 97, 60), (37, 0, 97, 60)),
        ((45, 0, 47, 60), framing.central((60, 100))),
        ((0, 30, 100, 32), framing.central((60, 100))),
    ):
        mask = masked((60, 100), box)
        if turned:
            mask = mask.T
            expected = tuple(expected[i] for i in (1, 0, 3, 2))
        assert framing.holding(mask) == expected


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_the_square_holds_the_mask_and_lies_in_the_photo(data):
    height, width = (data.draw(st.integers(20, 200)) for _ in range(2))
    side = min(height, width)
    w, h = (data.draw(st.integers(1, side)) for _ in range(2))
    left, top = (
        data.draw(st.integers(0, width - w)),
        data.draw(st.integers(0, height - h)),
    )
    mask = masked((height, width), (left, top, left + w, top + h))
    x0, y0, x1, y1 = framing.around(mask, 64)
    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height and x1 - x0 == y1 - y0
    assert mask[y0:y1, x0:x1].sum() == w * h
