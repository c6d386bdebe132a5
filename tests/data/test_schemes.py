"""Left and right of named points and classes."""

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import schemes
from gptface_jax.pipelines.faces import LANDMARKS_68, five_points


def test_a_mirror_of_a_mirror_is_nothing():
    for name, order in schemes.LANDMARKS.items():
        np.testing.assert_array_equal(order[order], np.arange(len(order)), name)
        assert schemes.of_points(len(order)) == name
    assert schemes.of_points(67) == ""
    for name in schemes.PARSING:
        table = schemes.mirrored_classes(name)
        np.testing.assert_array_equal(table[table], np.arange(256))


def test_points_by_hand():
    """The corners of eyes and mouth of each scheme, and points of the middle line."""
    pairs = {
        "ibug68": [(0, 16), (36, 45), (39, 42), (48, 54), (60, 64), (8, 8), (30, 30)],
        "wflw98": [(0, 32), (60, 72), (64, 68), (76, 82), (96, 97), (16, 16), (54, 54)],
        "cofw29": [(8, 9), (16, 17), (22, 23), (28, 28), (20, 20)],
        "aflw19": [(6, 11), (8, 9), (15, 17), (18, 18), (13, 13)],
        "mesh468": [(33, 263), (133, 362), (61, 291), (234, 454), (1, 1), (152, 152)],
    }
    for name, places in pairs.items():
        for one, other in places:
            assert schemes.LANDMARKS[name][one] == other, (name, one)


def test_schemes_agree_where_one_is_a_part_of_another():
    small, mesh = schemes.LANDMARKS["ibug68"], schemes.LANDMARKS["mesh468"]
    np.testing.assert_array_equal(mesh[LANDMARKS_68], LANDMARKS_68[small])
    points = np.random.default_rng(0).random((68, 2))
    five = schemes.LANDMARKS["five"]
    np.testing.assert_allclose(five_points(points[small]), five_points(points)[five])


def test_classes_by_hand():
    drawn = schemes.mirrored_classes("celebamask-hq")
    assert len(schemes.PARSING["celebamask-hq"]) == 19
    np.testing.assert_array_equal(drawn[:10], [0, 1, 3, 2, 5, 4, 6, 8, 7, 9])
    np.testing.assert_array_equal(drawn[10:], np.arange(10, 256))
    lapa = schemes.mirrored_classes("lapa")
    np.testing.assert_array_equal(lapa[:11], [0, 1, 3, 2, 5, 4, 6, 7, 8, 9, 10])


def test_what_is_no_scheme_is_said():
    with pytest.raises(UserError, match="'ibug86' is unknown.*'ibug68'.*known: five"):
        schemes.mirrored_points("ibug86", 68)
    with pytest.raises(UserError, match="5 landmarks .* 'ibug68', which has 68"):
        schemes.mirrored_points("ibug68", 5)
    with pytest.raises(UserError, match="'' is unknown.*known: celebamask-hq, lapa"):
        schemes.mirrored_classes("")
