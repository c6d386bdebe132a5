"""Holes of every kind, and pictures in another light."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from gptface_jax.ops import holes

KEY = jax.random.key(0)
NOTHING = {"brightness": 0.0, "contrast": 0.0, "colour": 0.0, "sharpness": 0.0}


def face(count: int) -> jax.Array:
    """68 points as shares of the side: eyes .4 apart, a mouth .3 below."""
    points = np.zeros((68, 2), np.float32) + [0.5, 0.4]
    points[17:27] = [0.5, 0.2]
    points[36:42], points[42:48] = [0.3, 0.4], [0.7, 0.4]
    points[48:68] = [0.5, 0.7]
    return jnp.tile(points, (count, 1, 1))


@pytest.fixture(scope="module")
def drawn():
    """(holes bool [300,16,16], the same without points)."""
    draw = jax.jit(holes.random_holes, static_argnums=(1, 2))
    points = face(300)
    return [np.asarray(draw(KEY, (4, 4), 4, p, 0.2)) for p in (points, points * np.nan)]


def test_all_shares_are_hidden_and_everything_in_a_fifth(drawn):
    for masks in drawn:
        assert masks.shape == (300, 16, 16) and masks.dtype == bool
        share = masks.mean((1, 2))
        assert share.min() < 0.06 and ((share > 0.7) & (share < 1)).any()
        assert share.min() > 0  # there is something to learn of each
        # A span of all 16 tokens is everything as well: a 64th of the others.
        assert np.mean(share == 1) == pytest.approx(0.2, abs=0.07)


def test_only_a_face_is_hidden_by_its_parts(drawn):
    with_points, without = drawn
    same = (with_points == without).all((1, 2))
    # A quarter of the four fifths; the rest has the same random numbers.
    assert 1 - same.mean() == pytest.approx(0.8 / 4, abs=0.07)


def test_a_span_is_connected_and_made_of_tokens():
    masks = np.asarray(holes.spans(KEY, 20, (4, 4), 3))
    for mask in masks:
        tokens = mask.reshape(4, 3, 4, 3)
        np.testing.assert_array_equal(tokens.any((1, 3)), tokens.all((1, 3)))
        assert ndimage.label(mask)[1] == 1


def test_a_box_is_a_box():
    for mask in np.asarray(holes.boxes(KEY, 20, (20, 30))):
        rows, columns = mask.any(1), mask.any(0)
        np.testing.assert_array_equal(mask, rows[:, None] & columns)
        assert rows.sum() >= 2 and columns.sum() >= 3  # a tenth
        assert ndimage.label(rows)[1] == ndimage.label(columns)[1] == 1


def test_a_stroke_is_as_wide_as_it_says():
    """Straight parts meet: one connected form, nowhere thinner than 4 %."""
    for mask in np.asarray(holes.strokes(KEY, 20, (50, 50))):
        assert ndimage.label(mask, np.ones((3, 3)))[1] == 1
        inside = ndimage.distance_transform_edt(np.pad(mask, 1))
        assert 1 <= inside.max() <= 0.3 * 50


def test_parts_of_a_face_by_hand():
    """At the middle of one part, and of no other, something is hidden."""
    masks = np.asarray(holes.face_parts(KEY, face(60), (10, 10)))
    at = {"brows": (2, 5), "nose": (4, 5), "eyes": (4, 3), "mouth": (7, 5)}
    seen = {name: masks[:, y, x] for name, (y, x) in at.items()}
    whole = seen["brows"] & seen["eyes"] & seen["mouth"]
    assert 0.05 < whole.mean() < 0.4
    for name in ("brows", "eyes", "mouth"):
        alone = seen[name] & ~whole
        assert alone.any()
        np.testing.assert_array_equal(seen["eyes"] & ~whole, masks[:, 4, 6] & ~whole)
    # Eyes .4 apart: the reach is .08 to .2, so a corner of the picture is never hidden.
    assert not masks[:, 0, 0].any()
    assert not np.asarray(holes.face_parts(KEY, face(9) * jnp.nan, (10, 10))).any()


def test_another_light_by_hand():
    image = jax.random.uniform(KEY, (5, 8, 8, 3), minval=-0.5, maxval=0.5)

    def shift(x, **most):
        return holes.shifted(x, KEY, **{**NOTHING, **most})

    np.testing.assert_allclose(shift(image), image, atol=1e-6)
    brighter = np.asarray(shift(image, brightness=0.3) - image)
    np.testing.assert_allclose(
        brighter, brighter[:, :1, :1, :1] + 0 * brighter, atol=1e-6
    )
    assert len(np.unique(brighter[:, 0, 0, 0])) == 5 and np.abs(brighter).max() <= 0.3
    tinted = np.asarray(shift(image, colour=0.3) - image)
    np.testing.assert_allclose(tinted, tinted[:, :1, :1] + 0 * tinted, atol=1e-6)
    assert np.ptp(tinted, axis=-1).min() > 1e-3
    # About the picture's mean, which stays; and detail is all that sharpness changes.
    for most in ({"contrast": 0.5}, {"sharpness": 1.0}):
        other = shift(image, **most)
        means = [np.asarray(x).mean((1, 2, 3)) for x in (other, image)]
        np.testing.assert_allclose(*means, atol=0.03)
        assert np.abs(np.asarray(other - image)).max() > 0.01
    flat = jnp.full((5, 8, 8, 3), 0.25)
    np.testing.assert_allclose(
        shift(flat, sharpness=1.0, contrast=0.5), flat, atol=1e-6
    )
    assert np.abs(np.asarray(shift(2 * image, brightness=0.9))).max() <= 1
