"""Named regions of a face by its mesh."""

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import regions


@pytest.fixture(scope="module")
def mesh():
    """Rows that regions use, of a face in the middle of 200 pixels."""
    grid = np.full((468, 2), 100.0)
    angles = np.linspace(0, 2 * np.pi, 36, endpoint=False)
    # The oval clockwise from the top of the forehead, 80 wide and 100 high.
    oval = np.stack([100 + 40 * np.sin(angles), 100 - 50 * np.cos(angles)], -1)
    grid[list(OVAL)] = oval
    rng = np.random.default_rng(0)
    around = {
        (82, 85): (*regions._RIGHT_EYE,),
        (118, 85): (*regions._LEFT_EYE,),
        (82, 76): (*regions._RIGHT_BROW, 68, 108),
        (118, 76): (*regions._LEFT_BROW, 298, 337),
        (100, 128): (61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91, 186, 410),
        (100, 105): (168, 49, 64, 98, 2, 327, 294, 279, 164),
        (75, 110): (116, 118, 142, 206, 216, 192, 147, 123),
        (125, 110): (345, 347, 371, 426, 436, 416, 376, 352),
    }
    for centre, rows in around.items():
        grid[list(rows)] = centre + rng.uniform(-4, 4, (len(rows), 2))
    return grid


# The rim of the face mesh, clockwise from the top.
OVAL = (
    10, 338, 297, 332, 284, 251, 389, 356, 454, 323, 361, 288, 397, 365, 379, 378, 400,
    377, 152, 148, 176, 149, 150, 136, 172, 58, 132, 93, 234, 127, 162, 21, 54, 103,
    67, 109,
)  # fmt: skip


def middle(mask):
    rows, columns = np.nonzero(mask)
    return columns.mean(), rows.mean()


def test_every_name_has_both_forms(mesh):
    assert set(regions._HULLS) | set(regions._POLYGONS) | {"ears"} == set(
        regions.REGIONS
    )
    for name in regions.REGIONS:
        assert regions.face_region(name, mesh, (200, 200)).any(), name
        assert regions.region_mask(name, 64).any(), name


def test_where_they_lie(mesh):
    found = {n: regions.face_region(n, mesh, (200, 200)) for n in regions.REGIONS}
    # The subject's left eye is on the right of the picture, "left" the picture's half.
    assert middle(found["left-eye"])[0] > 110 and middle(found["right-eye"])[0] < 90
    assert middle(found["left"])[0] < 60 < 140 < middle(found["right"])[0]
    np.testing.assert_array_equal(found["eyes"], found["left-eye"] | found["right-eye"])
    downwards = ("hat", "forehead", "eyes", "nose", "mouth", "neck", "clothes")
    below = [middle(found[name])[1] for name in downwards]
    assert below == sorted(below)
    assert not (found["hair"] & found["mouth"]).any()
    assert (found["neck"] & found["face"]).sum() < 0.1 * found["neck"].sum()
    assert (found["eyes"] & found["glasses"]).sum() > 0.9 * found["eyes"].sum()


def test_a_region_turns_with_the_face(mesh):
    """A quarter turn clockwise about the middle."""
    turned = np.stack([200 - mesh[:, 1], mesh[:, 0]], -1)
    for name in ("hat", "ears", "mouth", "hair"):
        upright = regions.face_region(name, mesh, (200, 200))
        found = regions.face_region(name, turned, (200, 200))
        assert (found != np.rot90(upright, -1)).mean() < 0.01, name


def test_a_larger_face_has_larger_regions(mesh):
    small = regions.face_region("mouth", mesh, (200, 200)).sum()
    large = regions.face_region("mouth", 3 * mesh, (600, 600)).sum()
    assert large == pytest.approx(9 * small, rel=0.1)


def test_what_is_beyond_the_face_goes_with_the_head(mesh):
    """Of a head turned to the side the eyes move, and closer together; ears do not."""
    turned = mesh.copy()
    inner = np.setdiff1d(np.arange(468), OVAL)
    turned[inner, 0] += 18
    turned[list(regions._LEFT_EYE), 0] -= 6
    for name in ("hat", "hair", "neck", "clothes"):
        front, aside = (
            regions.face_region(name, m, (200, 200)) for m in (mesh, turned)
        )
        assert abs(middle(aside)[0] - middle(front)[0]) < 3, name
        assert aside.sum() > 0.85 * front.sum(), name
    # One ear is behind the cheek; of the other nothing is lost.
    assert middle(regions.face_region("ears", turned, (200, 200)))[0] < 100
    assert abs(middle(regions.face_region("ears", mesh, (200, 200)))[0] - 100) < 2


def test_an_unknown_name_is_refused_with_the_nearest(mesh):
    with pytest.raises(UserError, match="unknown region 'mout'.*did you mean 'mouth'"):
        regions.face_region("mout", mesh, (8, 8))
