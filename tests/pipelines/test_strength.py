"""Strengths of attributes as people give them: names, limits, sentences, regions."""

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import regions
from gptface_jax.pipelines import strength


def test_an_attribute_becomes_a_sentence_and_its_opposite():
    found = strength.directions({"Male": -2, "Smiling": 1.5, "Eyeglasses": 0})
    smiling = strength.Direction(
        "a person smiling", "a person with a serious face", 1.5
    )
    assert found == (smiling, strength.Direction("a man", "a woman", -2.0))
    assert found == strength.directions({"Smiling": 1.5, "Male": -2})
    assert strength.directions(None) == strength.directions({"Young": 0.0}) == ()
    for name in strength.ATTRIBUTES:
        sentence, opposite = strength.sentences(name)
        assert sentence and opposite and sentence != opposite


@pytest.mark.parametrize("weight", [4.1, -5, float("nan"), float("inf")])
def test_strengths_have_limits(weight):
    with pytest.raises(UserError, match=f"'Smiling' is {weight}; use -4 to 4"):
        strength.directions({"Smiling": weight})


def test_unknown_attributes_are_refused_with_the_nearest():
    with pytest.raises(UserError, match="'Smilling'.*did you mean 'Smiling'"):
        strength.directions({"Smilling": 1})
    # An attribute of LFW and CelebA without a sentence that rules it out.
    with pytest.raises(UserError, match="no strength of 'Goatee'"):
        strength.directions({"Goatee": 1})


def test_regions_of_attributes_are_joined():
    name = strength.region({"Smiling": 0, "Mouth_Slightly_Open": 1, "Wearing_Hat": -1})
    assert name == "mouth+hat"
    mouth, hat = (regions.region_mask(one, 64) for one in ("mouth", "hat"))
    np.testing.assert_array_equal(regions.region_mask(name, 64), mouth | hat)
    mesh = np.random.default_rng(0).uniform(20, 80, (468, 2)).astype(np.float32)
    both = regions.face_region(name, mesh, (100, 90))
    parts = (regions.face_region(one, mesh, (100, 90)) for one in ("mouth", "hat"))
    np.testing.assert_array_equal(both, np.any(list(parts), axis=0))
    with pytest.raises(UserError, match="unknown region 'mooth'.*'mouth'"):
        regions.region_mask("hat+mooth", 64)
    with pytest.raises(UserError, match="where 'Young' shows; give a region"):
        strength.region({"Young": 2})


def test_what_was_asked_for_in_words():
    turned = {"Smiling": 2.0, "Wearing_Hat": -1}
    found = strength.asked_for("a woman", turned)
    assert found == "a woman, Smiling +2, Wearing Hat -1"
    assert strength.asked_for("", {"Male": 0}) == "Male +0"
    assert strength.asked_for("a man", None) == "a man"


def test_strengths_are_read_from_a_line():
    found = strength.from_text("Smiling=2, Eyeglasses=-3.5")
    assert found == {"Smiling": 2.0, "Eyeglasses": -3.5}
    for text, said in {
        "Smiling": "'Smiling' is no NAME=NUMBER",
        "Smiling=much": "'Smiling=much' is no",
        "Male=1,": "'' is no",
        "Male=1,Male=2": "names 'Male' twice",
    }.items():
        with pytest.raises(UserError, match=said):
            strength.from_text(text)
