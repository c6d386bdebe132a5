"""Grey and toned photographs are told from those in colours."""

import io
import pathlib

import numpy as np
import pytest
from PIL import Image

import gptface_jax
from gptface_jax.data import synthetic, tone

PHOTO = pathlib.Path(gptface_jax.__file__).parent / "assets" / "astronaut.jpg"
SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])


def test_of_a_photo_smaller_than_a_block_nothing_is_said():
    assert tone.tone_of(np.zeros((3, 90, 3), np.uint8), np.ones((3, 90), bool)) is None


@pytest.fixture(scope="module")
def colours():
    return np.asarray(Image.open(PHOTO).convert("RGB"))


def toned(colours, kind):
    if kind == "sepia":
        made = colours @ SEPIA.T
    else:
        ends = {
            "grey": ((0, 0, 0), (255, 255, 255)),
            "print": ((35, 28, 22), (235, 215, 180)),
            "cyanotype": ((10, 20, 60), (230, 240, 245)),
        }
        dark, light = np.array(ends[kind])
        share = (colours @ [0.299, 0.587, 0.114])[..., None] / 255
        made = dark + share * (light - dark)
    return np.clip(np.round(made), 0, 255).astype(np.uint8)


def as_jpeg(image, quality):
    file = io.BytesIO()
    Image.fromarray(image).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def known(image):
    return np.ones(image.shape[:2], bool)


@pytest.mark.parametrize("kind", ["grey", "sepia", "print", "cyanotype"])
@pytest.mark.parametrize("quality", [None, 90, 75])
def test_toned_photographs_are_found_and_give_their_tone(colours, kind, quality):
    image = toned(colours, kind)
    photo = as_jpeg(image, quality) if quality else image
    own = tone.tone_of(photo, known(photo))
    assert str(own) == ("grey" if kind == "grey" else "toned")
    # What is drawn in colours gets the tone and keeps its lightness.
    given = own.give(colours)
    luma = colours @ [0.299, 0.587, 0.114]
    inner = (luma > 20) & (luma < 220)
    assert np.abs(given @ [0.299, 0.587, 0.114] - luma)[inner].max() < 1.5
    if kind == "grey":
        assert np.ptp(given, axis=-1).max() == 0
        assert (own.give(photo) == photo).all()
    else:
        again = own.give(image).astype(int)
        assert np.abs(again - image)[inner].mean() < 2


def test_photographs_in_colours_are_none(colours):
    assert tone.tone_of(colours, known(colours)) is None
    assert tone.tone_of(as_jpeg(colours, 40), known(colours)) is None
    grey = toned(colours, "grey")
    half = (0.5 * grey + 0.5 * colours).astype(np.uint8)
    assert tone.tone_of(half, known(half)) is None
    for face in synthetic.SyntheticFaces(size=64, count=20, seed=4):
        assert tone.tone_of(face.image, known(face.image)) is None


def test_of_flat_colours_or_few_pixels_nothing_is_said(colours):
    flat = np.full((64, 64, 3), (200, 150, 120), np.uint8)
    assert tone.tone_of(flat, known(flat)) is None
    black_and_white = np.zeros((64, 64, 3), np.uint8)
    black_and_white[:, 30:] = 255
    assert tone.tone_of(black_and_white, known(flat)) is None
    few = np.zeros(colours.shape[:2], bool)
    few[:20, :20] = True
    assert tone.tone_of(toned(colours, "grey"), few) is None


def test_what_is_hidden_says_nothing(colours):
    photo = toned(colours, "grey")
    photo[100:300, 100:300] = (255, 0, 0)
    seen = known(photo)
    assert tone.tone_of(photo, seen) is None
    seen[100:300, 100:300] = False
    assert str(tone.tone_of(photo, seen)) == "grey"
