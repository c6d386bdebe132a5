"""What edits change beside their region, and whether their borders give them away."""

import jax
import numpy as np
import pytest

from gptface_jax.data import damage
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.evaluate.landmarks import moved_outside
from gptface_jax.ops.face_map import LEFT_EYE, MOUTH, RIGHT_EYE
from gptface_jax.protocols import repairs, seams
from gptface_jax.protocols.edits import Measures, kind_of, kinds_table
from gptface_jax.protocols.feature_space import FeatureSpace
from gptface_jax.protocols.side_effects import SideEffects


def means(pictures):
    """A feature space of three values: the mean colour."""
    return np.asarray(pictures).mean((1, 2))


def apart(pictures, others, weight=None):
    squares = np.square(np.asarray(pictures) - others).mean(-1)
    return (squares * weight).sum((1, 2)) / weight.sum((1, 2))


SPACE = FeatureSpace(means, apart)


@pytest.fixture(autouse=True)
def short(monkeypatch):
    monkeypatch.setattr(seams, "STEPS", 50)


@pytest.fixture(scope="module")
def photos():
    return np.stack([face.image for face in SyntheticFaces(size=32, count=40)])


def middle(count, size=32):
    regions = np.zeros((count, size, size), bool)
    regions[:, 8:24, 8:24] = True
    return regions


def test_points_that_move_by_hand():
    before = np.zeros((3, 68, 2))
    before[:, LEFT_EYE], before[:, RIGHT_EYE] = (4, 4), (14, 4)  # 10 pixels apart
    before[:, MOUTH] = (9, 12)
    before[1] = np.nan
    after = before.copy()
    after[0, MOUTH, 1] += 5  # in the region
    after[0, LEFT_EYE, 0] -= 2
    after[2] = np.nan
    regions = np.zeros((3, 20, 20), bool)
    regions[:, 10:16] = True
    moved = moved_outside(before, after, regions)
    # Of the points outside the six of an eye moved by 2 of 10 pixels.
    outside = 68 - (MOUTH.stop - MOUTH.start)
    assert moved[0] == pytest.approx(6 * 0.2 / outside)
    assert np.isnan(moved[1:]).all()
    before[0] += 100  # beyond the picture is outside the region
    assert moved_outside(before, before, regions)[0] == 0
    whole = np.ones_like(regions)
    assert np.isnan(moved_outside(after[:1], after[:1], whole[:1])[0])


def test_untouched_photographs_have_no_side_effects(photos):
    def points(pictures):
        return np.tile(np.arange(136.0).reshape(68, 2) % 32, (len(pictures), 1, 1))

    aside = SideEffects(SPACE, points, detect=True)
    aside.add("hair", photos, photos, middle(40))
    everywhere, kinds = aside.figures()
    assert kinds == {"hair": everywhere}
    assert everywhere == {
        "kept_distance": 0, "kid": pytest.approx(0, abs=1e-9), "points_moved": 0,
        "faces_lost": 0, "seam_auc": 0.5,
    }  # fmt: skip


def test_each_kind_has_figures_of_its_own(photos):
    regions = middle(40)
    inside = np.where(regions[..., None], 255 - photos, photos)
    outside = np.where(regions[..., None], photos, np.uint8(0))

    def points(pictures):
        found = np.ones((len(pictures), 68, 2))
        found[:, LEFT_EYE] = 30
        found[pictures[:, 0, 0].sum(-1) == 0] = np.nan  # what is black has no face
        return found

    aside = SideEffects(SPACE, points, detect=True)
    aside.add("hair", photos, inside, regions)
    aside.add("clothing", photos, outside, regions)
    everywhere, kinds = aside.figures()
    hair, clothing = kinds["hair"], kinds["clothing"]
    assert hair["kept_distance"] == 0 and clothing["kept_distance"] > 0.01
    assert hair["faces_lost"] == hair["points_moved"] == 0
    assert clothing["faces_lost"] == 1 and "points_moved" not in clothing
    assert everywhere["faces_lost"] == 0.5 and hair["kid"] > 0
    assert min(hair["seam_auc"], clothing["seam_auc"]) > 0.9
    np.testing.assert_equal(aside.features()[0][0], SPACE.of_photos(inside))


def test_a_detector_tells_steps_at_a_border_and_nothing_else(photos):
    regions = middle(40)
    shifted = np.where(
        regions[..., None], np.clip(photos.astype(int) + 40, 0, 255), photos
    ).astype(np.uint8)
    clean, edited = (seams.bordered(x, regions) for x in (photos, shifted))
    score = seams.detector(edited[:20], clean[:20])
    assert (score(edited[20:]).mean() - score(clean[20:]).mean()) > 1
    # Of what lies further than 5 pixels from the border it sees nothing.
    other = photos.copy()
    other[:, :2] = 0
    np.testing.assert_array_equal(
        score(seams.bordered(other, regions)[20:]), score(clean[20:])
    )


def test_bands_of_regions_that_differ(photos):
    regions = middle(2)
    regions[1] = False
    found = seams.bordered(photos[:2], regions)
    assert found.bands[0].any() and not found.bands[1].any()
    assert np.isfinite(
        seams.SeamDetector().init_with_output(jax.random.key(0), found.channels())[0]
    ).all()
    seen = found.channels()
    assert seen.shape == (2, 32, 32, 5) and not seen[1].any()
    np.testing.assert_array_equal(seen[0, ..., 3], regions[0] & found.bands[0])


def test_kinds_of_edits():
    kinds = {name: kind_of(name) for name in ("Bangs", "Smiling", "Wearing_Mask")}
    assert kinds == {
        "Bangs": "hair", "Smiling": "expression", "Wearing_Mask": "face mask"
    }  # fmt: skip
    assert kind_of("Male") == kind_of("Goatee") == "attribute"


def test_repairs_are_made_as_users_make_them(photos):
    photos = photos[:38]  # of which 36 are used, so that no pair is in both halves

    class Restores:
        """Restores nothing, and joins by a plain cut."""

        def restore(self, photo, damage, seed):
            return Result(photo)

        def stitch(self, first, second, seed):
            size = len(first)
            return Result(
                np.concatenate([first[:, : size // 2], second[:, size // 2 :]], 1)
            )

    class Result:
        def __init__(self, image):
            self.image = image

    kinds = repairs.judge_repairs(
        Restores(), photos, Measures(features=SPACE, seams=True), 3, False
    )
    rng = np.random.default_rng(3)
    lines, found = damage.scratched(photos[0], rng, 1)
    assert 0 < found.mean() < 0.3 and (lines[~found] == photos[0][~found]).all()
    scratches, stitching = kinds["scratches"], kinds["stitching"]
    assert 3 < scratches["inside_psnr"] < 20 and scratches["kept_distance"] == 0
    assert scratches["seam_auc"] > 0.65  # nearly black and white lines
    assert "kept_distance" not in stitching and stitching["seam_auc"] > 0.6
    table = kinds_table([{"method": "repairs", "kinds": kinds}]).split("\n")
    assert [line.split(" | ")[0] for line in table[2:]] == [
        "| scratches", "| stitching"
    ]  # fmt: skip
