"""One transform for pictures, points and masks."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface_jax.core.errors import UserError
from gptface_jax.data import geometry, image
from gptface_jax.data.geometry import Similarity, fitted
from gptface_jax.data.record import Record
from gptface_jax.data.synthetic import SyntheticFaces


def drawn(mirror):
    return st.builds(
        lambda scale, angle, dx, dy, mirror: Similarity(
            scale * np.cos(angle), scale * np.sin(angle), dx, dy, mirror
        ),
        st.floats(0.1, 8),
        st.floats(-3.1, 3.1),
        st.floats(-50, 50),
        st.floats(-50, 50),
        mirror,
    )


ways, upright = drawn(st.booleans()), drawn(st.just(False))
POINTS = np.array([[0.0, 0.0], [3.0, 1.0], [-2.0, 7.5], [11.0, -4.0]])


def test_points_by_hand():
    quarter = Similarity(0, 2, 1, -1)  # a quarter turn clockwise, twice as large
    np.testing.assert_allclose(quarter.points([1, 0]), [1, 1])
    np.testing.assert_allclose(quarter.points([0, 1]), [-1, -1])
    assert quarter.degrees == pytest.approx(90) and quarter.scale == 2
    turned = Similarity(0, 2, 1, -1, mirror=True)  # left and right change places first
    np.testing.assert_allclose(turned.points([1, 0]), [1, -3])
    np.testing.assert_allclose(turned.points([0, 1]), [-1, -1])
    np.testing.assert_allclose(quarter.boxes([0, 1, 3, 2]), [-3, -1, -1, 5])


@given(ways, ways)
def test_a_way_back_and_ways_in_turn(first, second):
    there = first.points(POINTS)
    np.testing.assert_allclose(first.inverse.points(there), POINTS, atol=1e-6)
    both = first.then(second).points(POINTS)
    np.testing.assert_allclose(both, second.points(there), atol=1e-6)


@given(upright)
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


FACE = SyntheticFaces(size=64, count=1)[0]
POINTS_68 = FACE.landmarks


def known(record: Record, **changes) -> Record:
    boxes = np.array([[10, 12, 50, 60]], np.float32)
    return dataclasses.replace(record, boxes=boxes, **changes)


def assert_equal(ours: Record, theirs: Record, tolerance=0.0):
    for name in ("image", "parsing"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
    for name in ("landmarks", "boxes"):
        one, other = getattr(ours, name), getattr(theirs, name)
        assert one.dtype == np.float32
        np.testing.assert_allclose(one, other, atol=tolerance)
    assert ours.labels == theirs.labels and ours.text == theirs.text


def test_a_mirror_of_a_mirror_is_the_record():
    face = known(FACE)
    mirror = geometry.mirrored(face)
    np.testing.assert_array_equal(mirror.image, face.image[:, ::-1])
    np.testing.assert_array_equal(mirror.boxes, [[14, 12, 54, 60]])
    # The right eye of the picture is called so in both.
    assert mirror.landmarks[45, 0] == pytest.approx(63 - face.landmarks[36, 0])
    brows = (face.parsing[:, ::-1] == 2) & (mirror.parsing == 3)
    assert (face.parsing == 2).sum() == brows.sum() > 0
    assert_equal(geometry.mirrored(mirror), face, 1e-5)


@settings(max_examples=25, deadline=None)
@given(
    st.integers(0, 3), st.booleans(), st.integers(-9, 9), st.integers(-9, 9),
    st.integers(1, 3),
)  # fmt: skip
def test_there_and_back_is_the_record(turns, mirror, dx, dy, times):
    """Exact where pixels fall on pixels: quarter turns, mirrors, whole shifts; and maps
    and points in pictures that are whole times as large."""
    cos, sin = ((1, 0), (0, 1), (-1, 0), (0, -1))[turns]
    way = Similarity(cos, sin, dx, dy, mirror).scaled(times)
    middle = way.points([32, 32])
    room = Similarity(
        dx=round(48 * times - middle[0]), dy=round(48 * times - middle[1])
    )
    way = way.then(room)  # the whole picture stays in view
    there = geometry.moved(known(FACE), way, (96 * times, 96 * times))
    back = geometry.moved(there, way.inverse, (64, 64))
    if times > 1:  # pixels were interpolated
        difference = np.abs(back.image.astype(int) - FACE.image)
        assert difference.mean() < 3
        back = dataclasses.replace(back, image=FACE.image)
    assert_equal(back, known(FACE), 1e-4)


@settings(max_examples=25, deadline=None)
@given(ways)
def test_points_come_back_from_anywhere(way):
    there = geometry.moved(known(FACE, parsing=None), way, (32, 32))
    back = geometry.moved(there, way.inverse, (64, 64))
    np.testing.assert_allclose(back.landmarks, POINTS_68, atol=2e-3)


@settings(max_examples=25, deadline=None)
@given(
    st.floats(0.7, 3), st.floats(-3.1, 3.1), st.booleans(), st.floats(0, 1),
    st.floats(0, 1),
)  # fmt: skip
def test_picture_points_boxes_and_map_move_together(scale, angle, mirror, x, y):
    """A disc is found at its point, in its box and in its class."""
    centre = 20 + 24 * np.array([x, y])
    rows, columns = np.indices((64, 64)) + 0.5
    disc = np.hypot(columns - centre[0], rows - centre[1]) < 6
    points = np.full((5, 2), np.nan, np.float32)
    points[0] = centre - 0.5
    record = Record(
        image=np.repeat(np.uint8(255 * disc)[..., None], 3, 2),
        parsing=np.uint8(2 * disc),  # l_brow
        landmarks=points,
        landmark_scheme="five",
        boxes=np.float32([[*(centre - 6), *(centre + 6)]]),
    )
    way = Similarity(scale * np.cos(angle), scale * np.sin(angle), mirror=mirror)
    dx, dy = 100 - way.points(centre)
    way = way.then(Similarity(dx=dx, dy=dy))
    there = geometry.moved(record, way, (200, 200))
    eye, brow = (1, 3) if mirror else (0, 2)
    np.testing.assert_allclose(there.landmarks[eye], [99.5, 99.5], atol=1e-3)
    assert np.isnan(there.landmarks[1 - eye]).all()
    assert set(np.unique(there.parsing)) == {0, brow}
    for weights in (there.image[..., 0] / 255.0, there.parsing == brow):
        rows, columns = np.indices((200, 200)) + 0.5
        found = (weights * columns).sum(), (weights * rows).sum()
        np.testing.assert_allclose(found / weights.sum(), [100, 100], atol=0.6)
    x0, y0, x1, y1 = there.boxes[0]
    np.testing.assert_allclose([(x0 + x1) / 2, (y0 + y1) / 2], [100, 100], atol=1e-3)
    assert 12 * scale - 1e-3 <= x1 - x0 <= 12 * scale * 2**0.5 + 1e-3


def test_the_central_square():
    """The picture is what `image.fit` makes; all else lies where it shows it."""
    wide = np.zeros((40, 60, 3), np.uint8)
    wide[10:20, 20:30] = 255
    record = Record(
        image=wide,
        parsing=np.uint8(wide[..., 0] > 0),
        landmarks=np.array([[24.5, 14.5], [2, 20], [0, 0], [0, 0], [0, 0]], np.float32),
        landmark_scheme="five",
        boxes=np.array([[20, 10, 30, 20]], np.float32),
        image_ids=np.zeros((2, 2), np.uint16),
    )
    small = geometry.squared(record, 20)
    np.testing.assert_array_equal(small.image, image.fit(wide, 20))
    np.testing.assert_array_equal(small.boxes, [[5, 5, 10, 10]])
    np.testing.assert_array_equal(small.landmarks[:2], [[7, 7], [-4.25, 9.75]])
    assert small.parsing.sum() == 25 and small.parsing[5:10, 5:10].all()
    assert small.image_ids is None and record.parsing.shape == (40, 60)


def test_points_of_no_scheme_have_no_mirror():
    seven = known(FACE, landmarks=np.zeros((7, 2), np.float32), landmark_scheme="")
    way = Similarity(mirror=True)
    with pytest.raises(UserError, match="scheme '' is unknown.*known: five"):
        geometry.moved(seven, way, (8, 8))
    with pytest.raises(UserError, match="scheme 'mine' is unknown.*celebamask-hq"):
        geometry.mirrored(known(FACE, parsing_scheme="mine"))
    assert geometry.moved(seven, Similarity(), (8, 8)).landmarks.shape == (7, 2)
    with pytest.raises(UserError, match="'elsewhere' holds no picture"):
        geometry.mirrored(Record(source="elsewhere"))


@pytest.mark.parametrize("box", [(0, 0, 64, 64), (7, 5, 39, 37), (-6, 20, 34, 60)])
def test_a_part_is_cut_as_a_similarity_would_move_it(box):
    """Points and boxes exactly, pixels as far as two ways to resample agree."""
    source = SyntheticFaces(count=1, size=64)[0]
    record = dataclasses.replace(source, boxes=np.float32([[10, 10, 50, 50]]))
    way = geometry.Similarity(dx=-box[0], dy=-box[1]).scaled(32 / (box[2] - box[0]))
    cut, moved = geometry.cut(record, box, 32), geometry.moved(record, way, (32, 32))
    np.testing.assert_allclose(cut.landmarks, moved.landmarks, atol=1e-4)
    np.testing.assert_allclose(cut.boxes, moved.boxes, atol=1e-4)
    apart = np.abs(cut.image.astype(int) - moved.image.astype(int))
    assert cut.image.shape == (32, 32, 3) and apart.mean() < 6


def test_left_and_right_are_exchanged_in_words():
    record = Record(
        image=np.zeros((2, 2, 3), np.uint8),
        text="Left: a man looking LEFT, his right hand raised in bright light",
        texts=("looking right", "leftover"),
        facts={"light": "left", "pose": "right", "hair": "dark brown"},
    )
    found = geometry.mirrored(record)
    assert found.text == (
        "Right: a man looking RIGHT, his left hand raised in bright light"
    )
    assert found.texts == ("looking left", "leftover")
    assert found.facts == {"light": "right", "pose": "left", "hair": "dark brown"}
    assert geometry.mirrored(found).text == record.text
    still = geometry.moved(record, Similarity(), (2, 2))
    assert (still.text, still.facts) == (record.text, record.facts)
