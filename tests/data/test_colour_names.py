"""Colours get the names of the CSS chart."""

import numpy as np
import pytest
from PIL import ImageColor

from gptface_jax.core.errors import UserError
from gptface_jax.data import colour_names


def test_the_example_of_the_paper():
    assert colour_names.nearest_name("188,143,142") == "rosy brown"
    assert colour_names.nearest_name((188, 143, 142), "lab") == "rosy brown"
    assert colour_names.value("rosy brown") == (188, 143, 143)


def test_the_chart_is_all_of_css():
    """The spellings with "grey", and rebeccapurple, came later."""
    ours = {name.replace(" ", "") for name in colour_names.NAMES}
    theirs = {n for n in ImageColor.colormap if "grey" not in n} - {"rebeccapurple"}
    assert ours == theirs and len(colour_names.NAMES) == 140
    assert list(colour_names.NAMES) == sorted(colour_names.NAMES, key=_together)


def _together(name):
    return name.replace(" ", "")


@pytest.mark.parametrize("space", colour_names.SPACES)
def test_every_name_is_nearest_to_itself(space):
    twins = {"cyan": "aqua", "magenta": "fuchsia"}
    for name in colour_names.NAMES:
        found = colour_names.nearest_name(colour_names.value(name), space)
        assert found == twins.get(name, name)


def test_the_spaces_differ_as_they_should():
    """(0,60,0) is 40 from dark green (0,100,0) and 60 from black."""
    assert colour_names.nearest_name((0, 60, 0)) == "dark green"
    assert colour_names.nearest_name((0, 60, 0), "lab") == "dark green"
    assert colour_names.nearest_name((60, 60, 80)) == "dark slate gray"
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (200, 3))
    pairs = [[colour_names.nearest_name(c, s) for s in ("rgb", "lab")] for c in colours]
    assert 0.3 < np.mean([a == b for a, b in pairs]) < 0.9


def test_lab_is_that_of_scikit_image():
    color = pytest.importorskip("skimage.color")
    rgb = np.random.default_rng(0).integers(0, 256, (50, 3)).astype(float)
    np.testing.assert_allclose(
        colour_names._lab(rgb), color.rgb2lab(rgb / 255), atol=0.01
    )


@pytest.mark.parametrize("wrong", ["188,143", "a,b,c", (0, 0, 256), (0, -1, 0), ""])
def test_what_is_no_colour(wrong):
    with pytest.raises(UserError, match="is no colour; give three numbers"):
        colour_names.nearest_name(wrong)


def test_errors_name_what_is_near():
    with pytest.raises(UserError, match="no colour 'rosy brwn'.*'rosy brown'"):
        colour_names.value("rosy brwn")
    with pytest.raises(UserError, match="colour space 'hsv'; use rgb or lab"):
        colour_names.nearest_name((0, 0, 0), "hsv")
