"""Edits continue the colours of what is around them."""

import numpy as np

from gptface_jax.data import blending, image


def test_a_shift_of_colour_is_taken_back_inside_the_mask():
    rng = np.random.default_rng(0)
    original = rng.integers(80, 120, (64, 64, 3)).astype(np.uint8)
    mask = np.zeros((64, 64), bool)
    mask[20:40, 24:44] = True
    edited = original + np.array([30, 0, 10], np.uint8)  # of the whole decode
    edited[mask] = np.array([150, 60, 70])
    moved = blending.continue_colours(original, edited, mask).astype(int)
    assert np.abs(moved[mask] - [120, 60, 60]).max() <= 2
    assert np.abs(moved[~mask] - original[~mask]).max() <= 2
    same = blending.continue_colours(original, original, mask)
    np.testing.assert_array_equal(same, original)


def test_colours_are_matched_where_they_count():
    rng = np.random.default_rng(1)
    own = np.clip(rng.normal(90, 10, (40, 40, 3)), 0, 255).astype(np.uint8)
    target = np.clip(rng.normal(140, 15, (30, 30, 3)), 0, 255).astype(np.uint8)
    here, there = np.zeros((40, 40), bool), np.zeros((30, 30), bool)
    here[:, 20:], there[:, :10] = True, True
    moved = blending.match_colours(own, here, target, there)
    np.testing.assert_allclose(moved[here].mean(0), target[there].mean(0), atol=1)
    np.testing.assert_allclose(moved[here].std(0), target[there].std(0), atol=1)
    flat = np.full((4, 4, 3), 7, np.uint8)  # no spread to stretch
    all_of_it = np.ones((4, 4), bool)
    assert np.isfinite(blending.match_colours(flat, all_of_it, own, here)).all()


def test_near_is_a_band_along_the_border():
    mask = np.zeros((10, 20), bool)
    mask[:, 12:] = True
    band = blending.boundary_band(mask, 2)
    assert band[:, 10:14].all() and band.sum() == 40
    assert not blending.boundary_band(np.ones((5, 5), bool), 3).any()


def test_the_largest_part_of_a_shape():
    picture = np.arange(60 * 40 * 3).reshape(60, 40, 3)
    assert image.crop_to(picture, 1.0).shape == (40, 40, 3)
    assert image.crop_to(picture, 2.0).shape == (20, 40, 3)
    np.testing.assert_array_equal(image.crop_to(picture, 0.5)[:, 0], picture[:, 5])


def test_a_region_begins_as_its_surroundings_end():
    """Of another colour altogether: it meets them, and keeps what it shows."""
    original = np.full((128, 128, 3), 90, np.uint8)
    mask = np.zeros((128, 128), bool)
    mask[40:80, 32:104] = True
    edited = np.where(mask[..., None], np.uint8(110), original)
    edited[58:62, 60:70] = 50  # an eye
    moved = blending.blend_border(original, edited, mask).astype(int)
    np.testing.assert_array_equal(moved[~mask], edited[~mask])
    np.testing.assert_allclose(moved[41:79, 34:102][:10], 90, atol=2)
    assert np.abs(moved[60, 65] - 90 + 60).max() <= 2  # as dark beside its skin
    # What is more than `most` was drawn.
    dark = np.where(mask[..., None], np.uint8(230), original)
    kept = blending.blend_border(original, dark, mask, most=30)
    np.testing.assert_allclose(kept[60, 65], 200, atol=1)


def test_borders_that_meet_stay_as_they_are():
    ramp = np.tile(np.arange(64, dtype=np.uint8)[:, None, None], (1, 64, 3))
    mask = np.zeros((64, 64), bool)
    mask[20:40, 20:40] = True
    moved = blending.blend_border(ramp, ramp, mask).astype(int)
    np.testing.assert_allclose(moved, ramp, atol=4)
    for nothing in (np.zeros_like(mask), np.ones_like(mask)):
        assert blending.blend_border(ramp, ramp, nothing) is ramp


def test_an_edge_that_was_on_the_border_stays_there():
    """A chin above a white collar, drawn a little darker, does not turn white."""
    original = np.full((64, 64, 3), 120, np.uint8)
    original[40:] = 250
    mask = np.zeros((64, 64), bool)
    mask[16:40, 16:48] = True
    edited = np.where(mask[..., None], np.uint8(100), original)
    moved = blending.blend_border(original, edited, mask).astype(int)
    np.testing.assert_allclose(moved[mask], 120, atol=2)
    damaged = blending.blend_border(original, edited, mask, damaged=True)
    assert (damaged[38, 30:34] > 125).all()  # told that the chin says nothing
    # What is hidden does not come back where the surroundings are nearer.
    covered = np.where(mask[..., None], np.uint8(20), np.uint8(120))
    covered = np.broadcast_to(covered, original.shape).astype(np.uint8)
    moved = blending.blend_border(covered, edited, mask).astype(int)
    np.testing.assert_allclose(moved[20:36, 20:44], 120, atol=2)
