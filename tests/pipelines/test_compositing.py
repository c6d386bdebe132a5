"""Edited squares pasted into photos: to the bit outside, by hand inside."""

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.pipelines.compositing import Blend, paste
from gptface_jax.pipelines.framing import Framed
from gptface_jax.pipelines.views import View

GRID = (4, 4)
PLAIN = Blend(feather=0, borders=0)


@pytest.fixture
def photo():
    return np.random.default_rng(0).integers(0, 255, (40, 64, 3), np.uint8)


def framed(box=(12, 12, 20, 20), crop=(8, 4, 40, 36)):
    mask = np.zeros((40, 64), bool)
    mask[box[1] : box[3], box[0] : box[2]] = True
    return Framed(mask, View.crop(crop), {})


def opened(where: Framed) -> np.ndarray:
    return images.pixels_to_tokens(where.inside, GRID)


def test_a_decode_that_is_right_around_the_mask_is_pasted_as_it_is(photo):
    where = framed()
    square = photo[where.view.slices].copy()
    square[where.inside] = [200, 10, 90]
    found = paste(photo, square, opened(where), where, PLAIN)
    np.testing.assert_array_equal(found.image[~where.mask], photo[~where.mask])
    assert (found.image[where.mask] == [200, 10, 90]).all()
    np.testing.assert_array_equal(found.mask, where.mask)


def test_a_shift_of_the_tokenizer_is_taken_back():
    photo, where = np.full((40, 64, 3), 100, np.uint8), framed()
    square = np.full((32, 32, 3), 110, np.uint8)  # 10 too bright everywhere
    found = paste(photo, square, opened(where), where, PLAIN)
    assert np.abs(found.image.astype(int) - 100).max() <= 1


def test_beyond_the_mask_all_that_was_drawn_changes(photo):
    where = framed(box=(13, 13, 15, 15))
    square = photo[where.view.slices].copy()
    drawn = opened(where)
    assert drawn.sum() == 1
    cell = images.tokens_to_pixels(drawn, (32, 32))
    square[cell] = 7
    found = paste(photo, square, drawn, where, Blend(True, 0, 0, beyond_mask=True))
    changed = np.zeros((40, 64), bool)
    changed[where.view.slices] = cell
    np.testing.assert_array_equal(found.mask, changed)
    assert (found.image[changed] == 7).all()
    np.testing.assert_array_equal(found.image[~changed], photo[~changed])


def test_not_composited_is_the_raw_square(photo):
    where = framed()
    square = np.random.default_rng(1).integers(0, 255, (32, 32, 3), np.uint8)
    found = paste(photo, square, opened(where), where, Blend(composite=False))
    np.testing.assert_array_equal(found.image[where.view.slices], square)
    rest = np.ones((40, 64), bool)
    rest[where.view.slices] = False
    np.testing.assert_array_equal(found.image[rest], photo[rest])


def test_a_grey_photo_stays_grey():
    levels = np.random.default_rng(2).integers(0, 255, (64, 64, 1), np.uint8)
    photo = np.repeat(levels, 3, 2)
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    where = Framed(mask, View.crop((0, 0, 64, 64)), {})
    square = photo.copy()
    square[mask] = [200, 10, 90]
    found = paste(photo, square, opened(where), where)
    assert str(found.tone) == "grey" and np.ptp(found.image, axis=2).max() == 0


def test_unfit_borders_are_refused():
    with pytest.raises(UserError, match="borders is 256; use 0 to 255"):
        Blend(borders=256)
    with pytest.raises(UserError, match="feather is -1; use 0 pixels or more"):
        Blend(feather=-1)
