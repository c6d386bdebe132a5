"""The map that counts eyes, mouth and brows more, by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.ops.face_map import face_map

ONCE = {"eyes": 1.0, "mouth": 1.0, "brows": 1.0}


def points(left=(1.5, 2.5), right=(5.5, 2.5), mouth=(3.5, 4.5), brows=(9.5, 0.5)):
    """Every part is one point, in pixels of 8 from the outer border on."""
    found = np.full((68, 2), 99.0, np.float32)
    found[17:27], found[36:42], found[42:48], found[48:] = brows, left, right, mouth
    return found / 8


def made(*landmarks, **options):
    options = {**ONCE, "radius": 0.5, **options}
    run = jax.jit(lambda x: face_map(x, (8, 8), **options))
    return np.asarray(run(jnp.stack(landmarks)))


def test_eyes_by_hand():
    """Eyes 4 pixels apart, radius 2: 5 times up to 2 pixels, once from 4 on."""
    (counts,) = made(points(), eyes=5.0)
    row = counts[2] / counts[7, 7]  # the far corner counts once
    # Columns 1 and 5 hold the eyes; column 3 is 2 from both, column 7 is 2 away.
    np.testing.assert_allclose(row, [5, 5, 5, 5, 5, 5, 5, 5], rtol=1e-5)
    # Three rows below: sqrt(9 + d^2), 5 - 4 (distance - 2) / 2 = 9 - 2 distance.
    far = counts[5] / counts[7, 7]
    expected = [max(9 - 2 * np.hypot(3, d), 1) for d in (1, 0, 1, 2, 1, 0, 1, 2)]
    np.testing.assert_allclose(far, expected, rtol=1e-5)
    assert counts.mean() == pytest.approx(1.0)


def test_the_most_counts_where_parts_meet():
    (counts,) = made(points(brows=(1.5, 2.5)), eyes=3.0, brows=4.0)
    ratio = counts / counts[7, 7]
    assert ratio[2, 1] == pytest.approx(4.0) and ratio[2, 5] == pytest.approx(3.0)


def test_the_radius_is_that_of_a_face_that_looks_ahead():
    """In profile the eyes meet, and the distance to the mouth counts instead."""
    profile = points(left=(3.5, 1.5), right=(3.5, 1.5), mouth=(3.5, 5.5))
    (counts,) = made(profile, mouth=3.0)
    column = counts[:, 3] / counts[0, 0]
    # The mouth in row 5; radius half of 4: full in rows 3 to 7, once from row 1 up.
    np.testing.assert_allclose(column, [1, 1, 2, 3, 3, 3, 3, 3], rtol=1e-5)


def test_without_points_all_pixels_count_alike():
    nothing, lacking, jaw = np.full((68, 2), np.nan, np.float32), points(), points()
    lacking[50], jaw[:17] = np.nan, np.nan
    counts = made(nothing, lacking, jaw, points(), eyes=4.0, mouth=4.0)
    np.testing.assert_array_equal(counts[:2], 1.0)
    np.testing.assert_array_equal(counts[2], counts[3])
    assert counts[3].max() > 3 * counts[3].min()
