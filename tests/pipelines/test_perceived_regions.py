"""Regions as a perception model sees them: classes, the way back, what is not seen."""

from types import SimpleNamespace

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import regions, schemes
from gptface_jax.evaluate.perception import overlap
from gptface_jax.pipelines import framing, perceived_regions, upright
from gptface_jax.pipelines.face_view import SeesFaces
from gptface_jax.pipelines.views import View

NAMES = schemes.PARSING["celebamask-hq"]
HAIR, U_LIP, MOUTH, R_EYE = (
    NAMES.index(n) for n in ("hair", "u_lip", "mouth", "r_eye")
)
PHOTO = np.zeros((100, 100, 3), np.uint8)


class Sees(SeesFaces):
    """A model that sees what it is told, whatever the photo."""

    frame = np.array(upright.FRAME)
    digest = "told"

    def __init__(self, parsing, classes=NAMES):
        self.told = np.uint8(parsing), classes

    def parsing(self, photo, view):
        return self.told


def map_of(*painted):
    """int [16,16] with (class, rows, columns) on background."""
    result = np.zeros((16, 16), int)
    for number, rows, columns in painted:
        result[rows, columns] = number
    return result


UPPER = map_of((HAIR, slice(0, 8), slice(None)))
MIDDLE = View.crop((20, 10, 84, 74))


def seen(parsing, region, face=None, classes=NAMES):
    return perceived_regions.seen(Sees(parsing, classes), region, PHOTO, face, MIDDLE)


def test_classes_become_regions():
    mouth = map_of((U_LIP, 4, slice(2, 6)), (MOUTH, 5, slice(2, 6)), (R_EYE, 1, 1))
    found = regions.parsed_region("mouth", mouth, NAMES)
    np.testing.assert_array_equal(np.argwhere(found)[[0, -1]], [[4, 2], [5, 5]])
    assert found.sum() == 8
    assert regions.parsed_region("lips", mouth, NAMES).sum() == 4
    # The subject's left eye is on the right of the picture.
    assert regions.parsed_region("left-eye", mouth, NAMES).sum() == 1
    assert regions.parsed_region("right-eye", mouth, NAMES) is None
    assert regions.parsed_region("cheeks", mouth, NAMES) is None
    # A scheme without the class, and a speck of it.
    assert (
        regions.parsed_region("hat", map_of((7, 0, 0)), schemes.PARSING["lapa"]) is None
    )
    large = np.zeros((64, 64), int)
    large[0, :4] = HAIR
    assert regions.parsed_region("hair", large, NAMES) is None
    large[0, 4] = HAIR
    assert regions.parsed_region("hair", large, NAMES).sum() == 5
    known = {name for scheme in schemes.PARSING.values() for name in scheme}
    assert {c for classes in regions.CLASSES.values() for c in classes} < known


def test_what_is_seen_is_carried_back():
    found, notes = seen(UPPER, "hair")
    wanted = np.zeros((100, 100), bool)
    wanted[10:42, 20:84] = True
    np.testing.assert_array_equal(found["hair"], wanted)
    assert notes == []


def test_of_a_face_that_lies_on_its_side():
    """Turned to the right by 90 degrees, the upper half of it is the right half."""
    places = np.array(upright.FRAME) * 60 + 20  # upright in a square from 20 to 80
    turned = np.stack([100 - places[:, 1], places[:, 0]], 1)
    found, _ = seen(UPPER, "hair", SimpleNamespace(five=turned))
    rows, columns = np.nonzero(found["hair"])
    assert [rows.min(), rows.max(), columns.min(), columns.max()] == [20, 79, 50, 79]
    assert found["hair"].sum() == 60 * 30


def test_what_is_not_seen_lies_where_it_usually_does_or_is_refused():
    found, notes = seen(UPPER, "hair+hat")
    assert [*found] == ["hair"]
    assert notes == ["the perception model sees no hat here: the usual region is taken"]
    with pytest.raises(
        UserError, match="sees no lips here, and the face mesh knows no"
    ):
        seen(UPPER, "lips")
    with pytest.raises(UserError, match="can only be seen, by a perception model"):
        regions.region_mask("lips", 64)
    # What no one knows is told as ever.
    found, notes = seen(UPPER, "hiar")
    with pytest.raises(UserError, match="did you mean 'hair'"):
        framing.frame((100, 100), None, None, "hiar", None, 8, seen=found)


def test_a_frame_joins_what_is_seen_with_the_usual():
    mask, _ = seen(UPPER, "hair")
    usual, both, alone = (
        framing.frame((100, 100), None, None, name, (20, 10, 84, 74), 8, seen=given)
        for name, given in (("neck", {}), ("hair+neck", mask), ("hair", mask))
    )
    np.testing.assert_array_equal(alone.mask, mask["hair"])
    np.testing.assert_array_equal(both.mask, mask["hair"] | usual.mask)
    assert not (usual.mask & mask["hair"]).any() and usual.mask.any()


def test_overlap_by_hand():
    truth, said = np.zeros((2, 4, 4), bool)
    truth[0], said[0, 2:], said[1, :2] = True, True, True
    assert overlap(said, truth) == {"iou": 2 / 6, "covered": 0.5, "beside": 0.5}
    assert overlap(truth, truth) == {"iou": 1, "covered": 1, "beside": 0}
    assert overlap(said & False, truth) == {"iou": 0, "covered": 0, "beside": 0}
