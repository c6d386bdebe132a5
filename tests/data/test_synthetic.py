"""The drawn faces: exact truth, exact edits, the same pixels every time."""

from __future__ import annotations

import dataclasses
import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface_jax.core.errors import UserError
from gptface_jax.data import captions
from gptface_jax.data.synthetic import (
    ATTRIBUTES,
    EXPRESSIONS,
    Factors,
    SyntheticEdits,
    SyntheticFaces,
    counterfactual,
    edit_mask,
    labels,
    render,
    sample_factors,
    set_attribute,
)

COLOURS = {"Black_Hair", "Blond_Hair", "Brown_Hair", "Gray_Hair"}
TEXTURES = {"Wavy_Hair", "Straight_Hair"}
HAIR = COLOURS | TEXTURES | {"Bangs", "Bald"}
BEARD = {"No_Beard", "Goatee", "Mustache"}
# What may change along with an attribute.
FORCED = {
    **{name: HAIR for name in HAIR},
    "Male": BEARD,
    "No_Beard": {"Goatee"},
    "Goatee": {"No_Beard"},
    "Wearing_Necktie": {"Wearing_Necklace"},
    "Wearing_Necklace": {"Wearing_Necktie"},
    "Wearing_Hat": {"Bangs", "Bald"} | TEXTURES,
}
BARE = {"occluder": "none", "eyewear": "none", "hat": "none", "bangs": False}


def bare(index: int, **changes: object) -> Factors:
    """A sampled face with nothing in front of it."""
    return counterfactual(sample_factors(3, index), **(BARE | changes))


def test_equal_arguments_give_equal_pixels():
    for index in (0, 5, 77):
        one, two = (render(sample_factors(1, index), 64) for _ in range(2))
        for name in ("image", "landmarks", "parsing"):
            np.testing.assert_array_equal(getattr(one, name), getattr(two, name))
    other_seed = render(sample_factors(2, 5), 64).image
    assert (other_seed != render(sample_factors(1, 5), 64).image).mean() > 0.5


@pytest.mark.parametrize("size", [32, 64, 100, 128, 256, 512])
def test_every_size(size):
    face = render(sample_factors(0, 9), size)
    assert face.image.shape == (size, size, 3) and face.image.dtype == np.uint8
    assert face.landmarks.shape == (68, 2) and face.landmarks.dtype == np.float32
    assert face.parsing.shape == (size, size) and face.parsing.dtype == np.uint8
    assert 20 < face.image.mean() < 235 and face.image.std() > 15
    assert (0 <= face.landmarks).all() and (face.landmarks < size).all()


@pytest.mark.parametrize("size", [0, 31, 513])
def test_sizes_out_of_range_are_refused(size):
    with pytest.raises(UserError, match=f"size {size} "):
        render(Factors(), size)


def test_sizes_show_the_same_face():
    factors = sample_factors(0, 12)
    small, large = render(factors, 64), render(factors, 256)
    scaled = (small.landmarks + 0.5) * 4 - 0.5
    np.testing.assert_allclose(scaled, large.landmarks, atol=1e-2)
    means = large.image.reshape(64, 4, 64, 4, 3).mean((1, 3))
    assert np.abs(means - small.image).mean() < 6
    assert (large.parsing[2::4, 2::4] == small.parsing).mean() > 0.93


def test_prevalences_are_reasonable():
    table = [labels(sample_factors(0, index)) for index in range(600)]
    for name in ATTRIBUTES:
        share = np.mean([row[name] == 1.0 for row in table])
        assert 0.1 < share < 0.65, (name, share)
        assert np.mean([row[name] == 0.5 for row in table]) < 0.45, name
    ages = np.array([row["Age"] for row in table])
    assert ages.min() >= 18 and ages.max() <= 78 and ages.std() > 12
    seen = {sample_factors(0, index).expression for index in range(200)}
    assert seen == set(EXPRESSIONS)


def test_combinations_are_plausible():
    people = [sample_factors(0, index) for index in range(600)]
    assert all(person.male for person in people if person.beard != "none")
    lips = [person.male for person in people if person.lipstick]
    assert np.mean(lips) < 0.1


def test_one_identity_keeps_its_person():
    fixed = ("male", "skin", "face_width", "jaw", "eye_colour", "big_nose", "chubby")
    groups = [[sample_factors(4, 4 * k + i) for i in range(4)] for k in range(20)]
    for group in groups:
        for name in ("identity", *fixed):
            assert len({getattr(member, name) for member in group}) == 1, name
        assert len({member.noise_seed for member in group}) == 4
    assert len({group[0].identity for group in groups}) == 20
    assert len({group[0].face_width for group in groups}) == 20


def test_labels_follow_the_factors():
    face = labels(Factors(expression="happiness", hair_colour="blond", age=61.5))
    assert (face["Smiling"], face["Blond_Hair"], face["Black_Hair"]) == (1.0, 1.0, 0.0)
    assert (face["Young"], face["Age"], face["No_Beard"]) == (0.0, 61.5, 1.0)
    assert set(face) == {*ATTRIBUTES, "Age"}
    bald = labels(Factors(hair_style="bald", hair_colour="blond", bangs=True))
    assert (bald["Bald"], bald["Blond_Hair"], bald["Bangs"]) == (1.0, 0.0, 0.0)


@pytest.mark.parametrize(
    ("changes", "unseen"),
    [
        ({"occluder": "surgical_mask"}, {"Smiling", "No_Beard", "Big_Lips"}),
        ({"occluder": "hand"}, {"Eyeglasses", "Narrow_Eyes"}),
        ({"occluder": "sunglasses"}, {"Narrow_Eyes"}),
        ({"hat": "cap", "hair_style": "bald"}, {"Bald", "Bangs"}),
    ],
)
def test_hidden_attributes_are_not_confident(changes, unseen):
    face = labels(Factors(**changes))
    assert all(face[name] == 0.5 for name in unseen)
    assert face["Male"] == 0.0
    shown = labels(set_attribute(Factors(**changes), min(unseen), True))
    assert shown[min(unseen)] == 1.0


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_set_attribute_changes_it_and_little_else(name):
    for index in (1, 6, 11, 16):
        face = bare(index)
        pair = [set_attribute(face, name, present) for present in (False, True)]
        for present, changed in enumerate(pair):
            after, before = labels(changed), labels(face)
            assert after[name] == present
            others = {key for key in before if after[key] != before[key]} - {name}
            if name == "Young":
                others -= {"Age"}
            assert others <= FORCED.get(name, set())
            assert set_attribute(changed, name, bool(present)) is changed
        area = edit_mask(*pair, 64).mean()
        assert 0.002 < area < 0.75, (name, area)


@settings(max_examples=40, deadline=None)
@given(
    index=st.integers(0, 10_000),
    name=st.sampled_from(ATTRIBUTES),
    present=st.booleans(),
)
def test_set_attribute_always_shows_what_was_asked(index, name, present):
    changed = set_attribute(sample_factors(8, index), name, present)
    assert labels(changed)[name] == float(present)
    assert dataclasses.replace(changed) == changed


@pytest.mark.parametrize(
    ("name", "rows"),
    [
        ("Eyeglasses", (0.25, 0.70)),
        ("Wearing_Lipstick", (0.55, 0.85)),
        ("Mustache", (0.55, 0.80)),
        ("Goatee", (0.60, 0.97)),
        ("Narrow_Eyes", (0.30, 0.60)),
        ("Bushy_Eyebrows", (0.25, 0.55)),
        ("Wearing_Hat", (0.0, 0.55)),
        ("Wearing_Necktie", (0.75, 1.0)),
        ("Big_Nose", (0.35, 0.75)),
    ],
)
def test_edits_stay_where_they_belong(name, rows):
    for index in (2, 7, 13):
        still = {"clothing": "suit", "necklace": False, "rotation": 0.0}
        face = bare(index, beard="none", **still)
        mask = edit_mask(
            set_attribute(face, name, False), set_attribute(face, name, True), 64
        )
        where = np.flatnonzero(mask.any(axis=1)) / 64
        assert rows[0] <= where.min() and where.max() < rows[1], (
            where.min(),
            where.max(),
        )


def test_edit_mask_of_equal_faces_is_empty():
    face = sample_factors(0, 1)
    assert not edit_mask(face, face, 48).any()
    assert edit_mask(face, counterfactual(face, noise_seed=1), 48).mean() > 0.5


def test_counterfactual_names_the_nearest_field():
    assert counterfactual(Factors(), male=True).male
    with pytest.raises(UserError, match="did you mean 'hair_colour'"):
        counterfactual(Factors(), hair_color="black")
    with pytest.raises(UserError, match="did you mean 'happiness'"):
        counterfactual(Factors(), expression="happines")
    with pytest.raises(UserError, match="did you mean 'Smiling'"):
        set_attribute(Factors(), "Smilin", True)


@pytest.mark.parametrize("index", range(0, 60, 5))
def test_landmarks_lie_in_the_parsing_regions(index):
    factors = bare(index, hair_style="short", double_chin=False, narrow_eyes=False)
    face = render(factors, 256)
    points = face.landmarks

    def number(point: np.ndarray) -> int:
        x, y = np.rint(point).astype(int)
        return int(face.parsing[y, x])

    assert number(points[36:42].mean(0)) == 4 and number(points[42:48].mean(0)) == 5
    assert [number(points[k]) for k in (18, 19, 20)] == [2, 2, 2]
    assert [number(points[k]) for k in (23, 24, 25)] == [3, 3, 3]
    assert [number(points[k]) for k in (28, 29, 30, 33)] == [10] * 4
    assert number((points[51] + points[62]) / 2) == 12
    assert number((points[57] + points[66]) / 2) == 13
    middle = points[27:31].mean(0)
    inward = [points[k] + 0.04 * (middle - points[k]) for k in range(2, 15)]
    assert {number(point) for point in inward} == {1}
    outward = points[8] + 0.04 * (points[8] - middle)
    assert number(outward) != 1
    if factors.mouth_open:
        assert number((points[62] + points[66]) / 2) == 11
    # The picture's left comes first, as in iBUG.
    assert points[36, 0] < points[39, 0] < points[42, 0] < points[45, 0]
    assert points[48, 0] < points[54, 0] and points[:, 1].argmax() in range(6, 11)


def test_all_parsing_classes_occur():
    seen = set()
    for index in range(60):
        seen |= set(np.unique(render(sample_factors(0, index), 64).parsing).tolist())
    assert seen == set(range(19))


def test_records_are_complete_and_repeatable():
    faces = SyntheticFaces(size=48, count=12, seed=5, offset=8)
    copy = pickle.loads(pickle.dumps(faces))
    assert len(copy) == 12
    record, again = faces[3], copy[3]
    np.testing.assert_array_equal(record.image, again.image)
    assert record.text == again.text and record.text
    factors = sample_factors(5, 11)
    np.testing.assert_array_equal(record.image, render(factors, 48).image)
    assert record.labels == labels(factors)
    assert record.expression == factors.expression
    assert (record.identity, record.source) == (2, "synthetic")
    assert record.landmarks.shape == (68, 2) and record.parsing.shape == (48, 48)
    np.testing.assert_array_equal(faces[-1].image, faces[11].image)
    for index in (12, -13):
        with pytest.raises(IndexError):
            faces[index]
    assert sum(1 for _ in faces) == 12


def test_bad_counts_are_refused():
    with pytest.raises(UserError, match="offset -1"):
        SyntheticFaces(offset=-1)
    with pytest.raises(UserError, match="index -1"):
        sample_factors(0, -1)


def test_pairs_differ_in_the_attribute_that_the_sentence_says():
    pairs, changed = SyntheticEdits(size=32, count=60, seed=3), set()
    for number in range(len(pairs) // 2):
        before, after, name, present = pairs.change(number)
        first, second = pairs[2 * number], pairs[2 * number + 1]
        assert (first.labels[name], second.labels[name]) == (1 - present, present)
        assert first.identity == second.identity
        np.testing.assert_array_equal(second.image, render(after, 32).image)
        assert present or name not in COLOURS | TEXTURES
        if name not in ("Male", "Young"):  # "a man": no words of a region
            assert name in captions.named(second.text), second.text
            assert not first.text or name in captions.named(first.text), first.text
        # Of black hair the contrary is one of many: there is no way back.
        assert name not in COLOURS | TEXTURES or not first.text
        changed.add(name)
    assert len(changed) > 10
    with pytest.raises(UserError, match="count 3 .* is odd"):
        SyntheticEdits(count=3)
