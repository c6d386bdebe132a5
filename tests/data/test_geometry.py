"""One transform for pictures, points and masks."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface_jax.data.geometry import Similarity, fitted

ways = st.builds(
    lambda scale, angle, dx, dy: Similarity(
        scale * np.cos(angle), scale * np.sin(angle), dx, dy
    ),
    st.floats(0.1, 8),
    st.floats(-3.1, 3.1),
    st.floats(-50, 50),
    st.floats(-50, 50),
)
POINTS = np.array([[0.0, 0.0], [3.0, 1.0], [-2.0, 7.5], [11.0, -4.0]])


def test_points_by_hand():
    quarter = Similarity(0, 2, 1, -1)  # a quarter turn clockwise, twice as large
    np.testing.assert_allclose(quarter.points([1, 0]), [1, 1])
    np.testing.assert_allclose(quarter.points([0, 1]), [-1, -1])
    assert quarter.degrees == pytest.approx(90) and quarter.scale == 2


@given(ways, ways)
def test_a_way_back_and_ways_in_turn(first, second):
    there = first.points(POINTS)
    np.testing.assert_allclose(first.inverse.points(there), POINTS, atol=1e-6)
    both = first.then(second).points(POINTS)
    np.testing.assert_allclose(both, second.points(there), atol=1e-6)


@given(ways)
def test_the_fit_finds_a_similarity_again(way):
    found = fitted(POINTS, way.points(POINTS))
    np.testing.assert_allclose(found.points(POINTS), way.points(POINTS), atol=1e-6)


def test_the_fit_is_the_least_squares_one():
    target = POINTS + np.array([[1.0, 0], [0, 0.5], [0, 0], [-0.5, 0]])
    best = fitted(POINTS, target)

    def error(way):
        return np.square(way.points(POINTS) - target).sum()

    for nudge in np.eye(4) * 1e-3:
        values = np.array([best.a, best.b, best.dx, best.dy])
        assert error(best) <= error(Similarity(*(values + nudge)))
        assert error(best) <= error(Similarity(*(values - nudge)))


def test_a_shift_by_whole_pixels_moves_pixels_and_repeats_the_border():
    image = np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)
    moved = Similarity(dx=-3, dy=-2).image(image, (12, 16))
    np.testing.assert_array_equal(moved[:10, :13], image[2:, 3:])
    np.testing.assert_array_equal(moved[5, 13:], np.repeat(image[7:8, 15], 3, 0))
    far = Similarity(dx=-40, dy=-40).image(image, (4, 4))
    np.testing.assert_array_equal(far, np.broadcast_to(image[-1, -1], (4, 4, 3)))


def test_right_angles_are_exact():
    image = np.random.default_rng(1).integers(0, 256, (8, 8, 3), np.uint8)
    turned = Similarity(0, 1, 8, 0).image(image, (8, 8))  # clockwise
    np.testing.assert_array_equal(turned, np.rot90(image, -1))


def test_a_picture_shrinks_by_means():
    checks = np.indices((64, 64)).sum(0) % 2 * 255
    image = np.repeat(checks[..., None], 3, 2).astype(np.uint8)
    small = Similarity(1 / 8).image(image, (8, 8))
    assert np.abs(small.astype(int) - 127).max() <= 1  # no moire


def test_points_and_pictures_agree():
    image = np.zeros((60, 80, 3), np.uint8)
    image[28:33, 48:53] = 255  # around (50.5, 30.5)
    way = Similarity(1.2, 0.5, -20, 4)
    x, y = way.points([50.5, 30.5])
    moved = way.image(image, (90, 90))[..., 0].astype(float)
    rows, columns = np.indices(moved.shape) + 0.5
    found = (moved * columns).sum() / moved.sum(), (moved * rows).sum() / moved.sum()
    np.testing.assert_allclose(found, (x, y), atol=0.05)


@settings(max_examples=40)
@given(ways, st.integers(0, 29), st.integers(0, 19))
def test_no_marked_pixel_is_lost(way, x, y):
    mask = np.zeros((20, 30), bool)
    mask[y, x] = True
    column, row = np.floor(way.points([x + 0.5, y + 0.5])).astype(int)
    moved = way.mask(mask, (40, 40))
    assert moved.any() or not (0 <= column < 40 and 0 <= row < 40)
    if 0 <= column < 40 and 0 <= row < 40:
        assert moved[row, column]


def test_a_lookup_is_false_beyond():
    found = Similarity(dx=2).lookup(np.ones((3, 3), bool), (3, 6))
    np.testing.assert_array_equal(found, [[0, 0, 1, 1, 1, 0]] * 3)
