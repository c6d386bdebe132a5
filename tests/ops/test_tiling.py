import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface_jax.core.errors import UserError
from gptface_jax.ops.tiling import Tiling, border_gradient


def test_the_drawing():
    tiling = Tiling(length=12, tile=6, overlap=2)
    assert tiling.starts == (0, 3, 6)
    assert tiling.cuts == (4.5, 7.5)
    assert tiling.kept == ((0, 4), (4, 7), (7, 12))


def test_weights_by_hand():
    tiling = Tiling(length=6, tile=4, overlap=2)
    assert tiling.starts == (0, 2)
    # Two pixels a token: a ramp of four pixels around pixel 6.
    up = [0.125, 0.375, 0.625, 0.875]
    first = [1, 1, 1, 1, *(1 - x for x in up)]
    np.testing.assert_array_equal(tiling.weights(2), [first, first[::-1]])
    step = Tiling(length=6, tile=3, overlap=0).weights(1)
    np.testing.assert_array_equal(step, np.ones((2, 3)))


def test_an_axis_that_fits_is_one_tile():
    for length in (1, 7, 8):
        tiling = Tiling(length, tile=8, overlap=4)
        assert (tiling.starts, tiling.size) == ((0,), length)
        assert tiling.kept == ((0, length),)
        np.testing.assert_array_equal(tiling.weights(3), np.ones((1, 3 * length)))


@st.composite
def tilings(draw) -> Tiling:
    tile = draw(st.integers(1, 20))
    overlap = draw(st.integers(0, tile - 1))
    return Tiling(draw(st.integers(1, 60)), tile, overlap)


def summed(tiling: Tiling, scale: int) -> np.ndarray:
    total = np.zeros(tiling.length * scale, np.float32)
    for start, weights in zip(tiling.starts, tiling.weights(scale)):
        total[start * scale : (start + tiling.size) * scale] += weights
    return total


@given(tilings(), st.integers(1, 9))
@settings(max_examples=150, deadline=None)
def test_tiles_cover_the_axis_and_weights_sum_to_one_exactly(tiling, scale):
    starts, size = np.array(tiling.starts), tiling.size
    assert starts[0] == 0 and starts[-1] + size == tiling.length
    if len(starts) > 1:
        shared = starts[:-1] + size - starts[1:]
        assert (shared >= tiling.overlap).all() and (shared < size).all()
        fewer = size + (len(starts) - 2) * (size - tiling.overlap)
        assert fewer < tiling.length  # one tile less would not do
    tokens = [t for first, stop in tiling.kept for t in range(first, stop)]
    assert tokens == list(range(tiling.length))
    for start, (first, stop) in zip(starts, tiling.kept):
        assert start <= first < stop <= start + size
        # What is kept lies at least half the overlap from an inner edge.
        if start:
            assert first - start >= tiling.overlap // 2
        if start + size < tiling.length:
            assert start + size - stop >= tiling.overlap // 2
    weights = tiling.weights(scale)
    assert weights.dtype == np.float32 and weights.min() >= 0
    assert (summed(tiling, scale) == 1).all()


@given(tilings(), tilings())
@settings(max_examples=30, deadline=None)
def test_products_of_two_axes_sum_to_one_exactly(rows, columns):
    total = np.zeros((rows.length * 3, columns.length * 3), np.float32)
    for y, down in zip(rows.starts, rows.weights(3)):
        for x, across in zip(columns.starts, columns.weights(3)):
            place = total[y * 3 :, x * 3 :]
            place[: len(down), : len(across)] += down[:, None] * across
    assert (total == 1).all()


def test_border_gradient_by_hand():
    rows, columns = Tiling(1, 4, 0), Tiling(4, 2, 0)  # cut at pixel 4 of 8
    picture = np.zeros((1, 2, 8, 1), np.float32)
    picture[:, :, :4] = np.arange(4).reshape(4, 1)
    picture[:, :, 4:] = 3 + np.array([5, 6, 7, 8]).reshape(4, 1)
    # A step of 5 across; 1 inside: 6 columns of steps 1 and one row of steps 0.
    assert border_gradient(picture, rows, columns) == pytest.approx(5 / (6 / 7))
    even = np.broadcast_to(np.arange(8.0).reshape(1, 1, 8, 1), (1, 8, 8, 1))
    both = np.add(even, np.swapaxes(even, 1, 2))
    assert border_gradient(both, columns, columns) == 1.0


@pytest.mark.parametrize("tile,overlap", [(0, 0), (4, 4), (4, -1), (4, 9)])
def test_tiles_that_make_no_sense(tile, overlap):
    with pytest.raises(
        UserError, match=f"of {tile} tokens cannot overlap by {overlap}"
    ):
        Tiling(10, tile, overlap)
