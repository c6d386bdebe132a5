"""Scratches are found by what they look like."""

import numpy as np
import pytest
from PIL import Image, ImageDraw

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
