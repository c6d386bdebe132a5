"""Scratches are found by what they look like."""

import numpy as np
import pytest
from PIL import Image, ImageDraw
from scipy.sparse import linalg

from gptface_jax.core.errors import UserError
from gptface_jax.data import damage, synthetic


def scratched(points, colour, size=160):
    """(picture of a drawn face with a scratch, where it is)."""
    face = Image.fromarray(
        synthetic.SyntheticFaces(size=size, count=9, seed=3)[4].image
    )
    truth = Image.new("L", face.size)
    ImageDraw.Draw(face).line(points, fill=(colour,) * 3, width=2)
    ImageDraw.Draw(truth).line(points, fill=255, width=2)
    return np.asarray(face), np.asarray(truth) > 0


@pytest.mark.parametrize("kind, colour", [("bright", 250), ("dark", 5)])
def test_a_crooked_scratch_is_found(kind, colour):
    line = [(20, 20), (50, 45), (75, 80), (110, 100), (120, 140)]
    picture, truth = scratched(line, colour)
    clean, _ = scratched([(0, 0), (0, 0)], 128)
    before = damage.scratches(clean, kind)
    found = damage.scratches(picture, kind) & ~before
    assert found[truth].mean() > 0.7
    near = np.argwhere(truth)
    for y, x in np.argwhere(found):
        assert np.abs(near - (y, x)).max(1).min() <= 3
    other = {"bright": "dark", "dark": "bright"}[kind]
    changed = damage.scratches(picture, other) ^ damage.scratches(clean, other)
    assert changed[truth].mean() < 0.2


def test_spots_and_edges_are_no_scratches():
    picture = np.full((120, 120, 3), 90, np.uint8)
    picture[:, 60:] = 220  # an edge
    picture[20:24, 20:24] = 255  # a spot
    assert not damage.scratches(picture).any()
    with pytest.raises(UserError, match="'wet' is none of bright, dark, both"):
        damage.scratches(picture, "wet")


def test_thin_gaps_are_closed_as_scikit_image_closes_them():
    restoration = pytest.importorskip("skimage.restoration")
    rng = np.random.default_rng(0)
    photo = np.asarray(
        Image.fromarray(rng.integers(0, 255, (12, 12, 3), np.uint8)).resize((40, 48))
    )
    mask = np.zeros((48, 40), bool)
    mask[10:14, 5:30] = mask[20:44, 20:22] = True
    mask[0:3, 33:37] = True  # at the border
    filled = damage.fill(photo, mask)
    np.testing.assert_array_equal(filled[~mask], photo[~mask])
    theirs = restoration.inpaint_biharmonic(photo / 255.0, mask, channel_axis=-1)
    inside = mask.copy()
    inside[:4] = False  # they treat borders in another way
    assert np.abs(filled - 255 * theirs)[inside].max() < 1.5
    # A ramp goes on as a ramp.
    ramp = np.tile(np.arange(40, dtype=np.uint8)[None, :, None] * 4, (48, 1, 3))
    away = mask & (np.arange(40) > 3) & (np.arange(48) > 3)[:, None]
    assert np.abs(damage.fill(ramp, away).astype(int) - ramp).max() <= 1
    # What lies far away does not matter.
    larger = np.pad(photo, ((9, 9), (9, 9), (0, 0)), "edge")
    around = np.pad(away, 9)
    again = damage.fill(larger, around)[9:-9, 9:-9]
    np.testing.assert_array_equal(again, damage.fill(photo, away))
    assert (damage.fill(photo, np.ones_like(mask)) == 128).all()
    np.testing.assert_array_equal(damage.fill(photo, np.zeros_like(mask)), photo)


def test_thin_gaps_beside_wide_damage_are_filled_without_solving_for_it(monkeypatch):
    y, x = np.indices((240, 240))
    photo = np.stack([x, y, 255 - x], -1).astype(np.uint8)
    wide, thin = np.hypot(y - 120, x - 120) < 60, np.zeros((240, 240), bool)
    thin[118:122, 180:230] = True  # begins where the disc ends
    whole = damage.fill(photo, wide | thin)
    solved, splu = [], linalg.splu
    monkeypatch.setattr(linalg, "splu", lambda m: solved.append(m.shape[0]) or splu(m))
    filled = damage.fill(photo, thin, wide)
    assert solved == [thin.sum()]
    np.testing.assert_array_equal(filled[~thin], photo[~thin])
    assert np.abs(filled.astype(int) - whole)[thin].mean() < 1
    hidden = np.where(wide[..., None], np.uint8(0), photo)  # what it holds is damage
    np.testing.assert_array_equal(damage.fill(hidden, thin, wide)[thin], filled[thin])


def test_wide_parts_are_what_a_disc_covers():
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    mask[19:21, 30:40] = True  # a thin arm, to the border
    wide = damage.wide_parts(mask, 8)
    assert wide[12:28, 12:28].all() and not wide[:, 33:].any()
    assert not damage.wide_parts(mask, 30).any()
    assert not (wide & ~mask).any()
    assert not damage.wide_parts(np.zeros_like(mask), 3).any()
