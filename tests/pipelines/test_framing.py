"""What may change, and what the model sees of a photo of any size."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface_jax.core.errors import UserError
from gptface_jax.pipelines import framing, squares, views
from gptface_jax.pipelines.views import View


def masked(size, box):
    mask = np.zeros(size, bool)
    x0, y0, x1, y1 = box
    mask[y0:y1, x0:x1] = True
    return mask


def test_a_portrait_keeps_its_centre_and_a_far_mask_gets_its_surroundings():
    size = (100, 160)
    assert squares.around(masked(size, (60, 40, 100, 60)), 32) == (30, 0, 130, 100)
    # Outside the centre: three times its extent.
    assert squares.around(masked(size, (140, 60, 160, 70)), 32) == (100, 35, 160, 95)
    # Small: at least what the model sees pixel by pixel.
    assert squares.around(masked(size, (80, 50, 84, 52)), 32) == (66, 35, 98, 67)
    with pytest.raises(UserError, match="the mask is 120 x 20; no square"):
        squares.around(masked(size, (10, 20, 130, 40)), 32)


@pytest.mark.parametrize("turned", [False, True])
def test_the_square_that_holds_most_of_a_mask(turned):
    for box, expected in (
        ((10, 0, 12, 60), (10, 0, 70, 60)),
        ((95, 0, 97, 60), (37, 0, 97, 60)),
        ((45, 0, 47, 60), squares.central((60, 100))),
        ((0, 30, 100, 32), squares.central((60, 100))),
    ):
        mask = masked((60, 100), box)
        if turned:
            mask = mask.T
            expected = tuple(expected[i] for i in (1, 0, 3, 2))
        assert squares.square_holding(mask) == expected


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
    x0, y0, x1, y1 = squares.around(mask, 64)
    assert 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height and x1 - x0 == y1 - y0
    assert mask[y0:y1, x0:x1].sum() == w * h


FRAME = np.array(
    [[0.37, 0.445], [0.63, 0.445], [0.5, 0.58], [0.39, 0.73], [0.62, 0.73]]
)


def turned_view(size=(300, 400), degrees=37, scale=150, centre=(200, 150)):
    angle = np.radians(degrees)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    points = scale * (FRAME - 0.5) @ turn.T + centre
    return View.upright(points, FRAME, size), points


def test_a_face_is_seen_upright_at_its_own_scale():
    view, points = turned_view()
    assert view.side == 150 and view.way.degrees == pytest.approx(-37)
    np.testing.assert_allclose(view.way.points(points), 150 * FRAME, atol=1e-6)
    x0, y0, x1, y1 = view.box
    assert 90 < x0 < 100 and 40 < y0 < 50 and x1 - x0 == y1 - y0


def test_there_and_back():
    view, _ = turned_view()
    rows, columns = np.indices((300, 400))
    photo = np.stack([rows / 2, columns / 2, rows * 0 + 7], -1).astype(np.uint8)
    back = view.back(view.picture(photo)).astype(int)
    whole = view.mask_back(np.ones((150, 150), bool), (300, 400))
    inner = whole[view.slices]
    # Away from the rim, where bicubic looks at what lies beyond.
    shrunk = ~np.asarray(framing.images.dilate(~inner, 4))
    difference = np.abs(back - photo[view.slices])[shrunk]
    assert difference.max() <= 2


def test_what_lies_beyond_the_photo_is_known():
    view, _ = turned_view(centre=(20, 150))
    beyond = view.beyond((300, 400))
    assert 0.2 < beyond.mean() < 0.6
    assert view.box[0] == 0
    assert not turned_view()[0].beyond((300, 400)).any()


def test_a_view_is_read_again_from_its_description_at_any_scale():
    for view in (turned_view()[0], View.crop((10, 20, 60, 70))):
        assert views.view_of(view.described()) == view
        double = views.view_of(view.described(), 2.0)
        assert double.side == 2 * view.side
        np.testing.assert_allclose(
            double.way.points([[240.0, 300.0]]), 2 * view.way.points([[120.0, 150.0]])
        )
    upright = {"a": 1.0, "b": 0.0, "dx": 0.0, "dy": 0.0}
    near = {"crop": [0, 0, 3000, 3000], "upright": {**upright, "side": 8000}}
    assert views.view_of(near).side == 8000
    for broken in (
        {},
        {"crop": [1, 2]},
        {"crop": [0, 0, 9, 9], "upright": {"side": 1}},
        {"crop": [0, 0, 3000, 3000], "upright": {**upright, "side": 24000}},
    ):
        with pytest.raises((KeyError, TypeError, ValueError)):
            views.view_of(broken)


def some_face(left, size, score=0.9):
    box = (left, 10.0, left + size, 10.0 + size)
    return framing.Face(box, score, 1.0, np.zeros((6, 2)), np.zeros((468, 2)), 0.0)


def test_the_largest_face_is_taken_and_the_others_are_told():
    found = [some_face(0, 20), some_face(50, 40), some_face(120, 30)]
    best, notes = framing.chosen_face(found, None, (200, 200))
    assert best is found[1]
    assert "3 faces were found; the largest, number 2 from the left" in notes[0]
    assert framing.chosen_face(found, 3, (200, 200)) == (found[2], [])
    faint, notes = framing.chosen_face([some_face(0, 20, 0.4)], None, (200, 200))
    assert "seen faintly (score 0.40)" in notes[0]


def test_what_cannot_be_chosen_says_what_can():
    with pytest.raises(UserError, match="face 3 is asked for, but 1 was found"):
        framing.chosen_face([some_face(0, 20)], 3, (200, 200))
    with pytest.raises(UserError, match="face is 'left'; give its number"):
        framing.chosen_face([some_face(0, 20)], "left", (200, 200))
    assert framing.chosen_face([], None, (200, 220))[0] is None
    with pytest.raises(UserError, match="no face was found.*400 x 200.*--no-align"):
        framing.chosen_face([], None, (200, 400))
