"""Photos that are bent as a head moves, against renderings of the moved head."""

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import rendering
from gptface_jax.data.faces import palette
from gptface_jax.pipelines import head_warp
from gptface_jax.pipelines.faces3d import Head3D

SIDE = 160


@pytest.fixture(scope="module")
def head():
    model = head_warp.face_model()
    rng = np.random.default_rng(0)
    light = rendering.ambient(0.7)
    light[2] = 0.2
    coeffs = {
        "id_coeffs": 0.5 * rng.normal(size=len(model.identity)),
        "albedo_coeffs": 0.5 * rng.normal(size=len(model.albedo)),
        "exp_coeffs": np.zeros(len(model.expression)),
        "sh_light": light,
        "pose": np.array([0, 0.1, 0, 0, 0, 0.05]),
    }
    coeffs = {name: np.float32(value) for name, value in coeffs.items()}
    return Head3D(coeffs, model)


def face_of(head):
    """Where the middle of the face is seen, bool [SIDE,SIDE]."""
    places = rendering.projected(head.vertices, head.coeffs["pose"], SIDE)
    found = rendering.rasterise(*places, head.model.triangles, SIDE)
    of = head.model.regions[np.maximum(found.triangle, 0)]
    parts = (palette.NOSE, palette.U_LIP, palette.L_LIP, palette.L_BROW, palette.R_BROW)
    return (found.triangle >= 0) & np.isin(of, parts)


@pytest.mark.parametrize(
    ("expression", "turn"),
    [
        ({"mouthSmile": 0.8}, {}),
        ({"browInnerUp": 1.0, "mouthFrown_L": 0.7}, {}),
        ({}, {"yaw": 12.0}),
        ({}, {"pitch": -10.0, "roll": 8.0}),
    ],
)
def test_a_rendering_becomes_that_of_the_moved_head(head, expression, turn):
    after = head_warp.changed(head, expression, turn)
    square, wanted = head.render(SIDE)[0], after.render(SIDE)[0]
    found = head_warp.bend(square, head, after)
    where = face_of(after)
    apart, before = (
        np.abs(x[where].astype(float) - wanted[where]).mean()
        for x in (found.picture, square)
    )
    assert apart < 0.5 * before
    np.testing.assert_array_equal(found.picture[0], square[0])
    np.testing.assert_array_equal(found.picture[:, -1], square[:, -1])
    assert not found.revealed.any() and 0.01 < found.moved.mean() < 0.9


def test_a_head_that_stays_leaves_every_pixel(head):
    square = head.render(SIDE)[0]
    found = head_warp.bend(square, head, head_warp.changed(head, {}, {}))
    np.testing.assert_array_equal(found.picture, square)
    assert not (found.moved.any() or found.revealed.any())


def test_the_inside_of_a_mouth_that_opens_is_revealed(head):
    after = head_warp.changed(head, {"jawOpen": 0.6}, {})
    square, wanted = head.render(SIDE)[0], after.render(SIDE)[0]
    found = head_warp.bend(square, head, after)
    rows, columns = np.nonzero(found.revealed)
    points = rendering.projected(
        after.vertices[after.model.landmarks], after.coeffs["pose"], SIDE
    )[0]
    low, high = points[60:].min(0), points[60:].max(0)
    assert len(rows) > 40
    assert low[0] - 3 < columns.min() and columns.max() < high[0] + 3
    assert low[1] - 3 < rows.min() and rows.max() < high[1] + 3
    assert (found.moved >= found.revealed).all()
    there = found.revealed
    apart = np.abs(found.picture[there].astype(float) - wanted[there]).mean()
    assert apart < 12  # its colours are the head's own
    # A mouth that is open already shows its inside.
    wider = head_warp.changed(after, {"jawOpen": 0.2}, {})
    again = head_warp.bend(wanted, after, wider)
    assert again.revealed.sum() < 0.5 * there.sum()


def test_skin_that_an_ear_hid_is_revealed(head):
    before = head.posed(-50, 18, 0)
    after = head_warp.changed(before, {}, {"yaw": -20.0, "pitch": -20.0})
    found = head_warp.bend(before.render(SIDE)[0], before, after)
    there = found.revealed
    assert 40 < there.sum() < 0.02 * there.size and (found.moved >= there).all()
    wanted = after.render(SIDE)[0]
    np.testing.assert_array_equal(found.picture[there], wanted[there])
    # Of a head twice as large in the picture as many of its own.
    near = {"pose": before.coeffs["pose"] + [0, 0, 0, 0.9, 0, np.log(2)]}
    before, after = (
        before.changed(**near),
        after.changed(pose=after.coeffs["pose"] + [0, 0, 0, 0.9, 0, np.log(2)]),
    )
    again = head_warp.bend(before.render(SIDE)[0], before, after)
    assert again.revealed.sum() > 2 * there.sum()


def test_what_moves_is_checked():
    names = head_warp.expressions(head_warp.face_model())
    assert len(names["mouthSmile"]) == 2
    assert sorted(names["mouthSmile_L"] + names["mouthSmile_R"]) == names["mouthSmile"]
    assert head_warp.checked({"jawOpen": 0, "mouthSmile": -0.5}, None) == (
        {"mouthSmile": -0.5}, {}
    )  # fmt: skip
    for expression, turn, said in (
        (
            {"mouthSmil": 1.0},
            None,
            "no expression .mouthSmil. .did you mean .mouthSmile",
        ),
        ({"mouthSmile": 1.5}, None, "the expression 'mouthSmile' is 1.5; use -1 to 1"),
        (None, {"yaw": float("nan")}, "the turn 'yaw' is nan; use -20 to 20"),
        (None, {"tilt": 3}, "no turn 'tilt'.*known are yaw, pitch, roll"),
    ):
        with pytest.raises(UserError, match=said):
            head_warp.checked(expression, turn)
