"""Perception judged on drawn faces: figures by family, and what is refused."""

import dataclasses
import weakref

import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import regions as data_regions
from gptface_jax.data import schemes
from gptface_jax.data.perception_examples import NAMES
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.nn.perception import PerceptionConfig, TaskConfig
from gptface_jax.pipelines import upright
from gptface_jax.pipelines.face_view import SeesFaces
from gptface_jax.protocols import editors, perception, regions

RECORDS = [SyntheticFaces(size=32, count=16, seed=3)[i] for i in range(16)]
FAMILIES = ("age", "affect", "biattr", "parsing", "align")


class Model:
    """A model that is asked through `perception._read`, which the test answers."""

    variables = tokenise = None

    def __init__(self):
        tasks = (*(f"{f}_drawn" for f in FAMILIES), TaskConfig("recog_drawn"))
        self.config = dataclasses.replace(
            PerceptionConfig(tasks=tasks), attribute_resolution=32, dense_resolution=32
        )

    def chosen(self, tasks):
        return tuple(tasks)


def answered(monkeypatch, truth):
    """Figures of a task whose answers `truth` makes of the labels."""

    def figures(task, records=RECORDS, attributes=()):
        def answers(model, name, examples, given, progress, named):
            made = [examples(r, np.random.default_rng(0)) for r in given]
            kept = [e for e in made if e["weight"] > 0]
            for start in range(0, len(kept), 10):
                some = kept[start : start + 10]
                yield some, truth(np.stack([e["label"] for e in some]))

        monkeypatch.setattr(perception, "_answers", answers)
        return perception.evaluate(Model(), task, records, False, attributes)

    return figures


def test_who_says_the_truth_gets_full_marks(monkeypatch):
    one_hot = lambda labels, n: np.eye(n)[np.int64(labels)] * 60 - 30  # noqa: E731
    found = answered(monkeypatch, lambda y: one_hot(y, 101))("age_drawn")
    assert found["mae"] < 1 and found["within_5"] == 1 and found["count"] == 16
    assert 0 <= found["intervals"]["mae"]["low"] <= found["mae"]
    found = answered(monkeypatch, lambda y: one_hot(y, 7))("affect_drawn")
    assert found["accuracy"] == found["balanced"] == 1
    assert all(a == b for a, b in (x.split("/") for x in found["right"].values()))
    found = answered(monkeypatch, lambda y: 2 * y - 1)("biattr_drawn")
    assert found["accuracy"] == found["balanced"] == 1
    found = answered(monkeypatch, lambda y: y)("parsing_drawn")
    assert found["mean"] == 1 and found["f1"]["hair"] == 1
    found = answered(monkeypatch, lambda y: y)("align_drawn")
    assert found["nme"]["inter_ocular"] == 0 and found["failures"] == 0
    # A hundredth of the side to the right of it, in the measure of the eyes.
    found = answered(monkeypatch, lambda y: y + [0.01, 0.0])("align_drawn")
    eyes = [r.landmarks[45] - r.landmarks[36] for r in RECORDS]
    wanted = np.mean(0.32 / np.linalg.norm(eyes, axis=-1))
    assert found["nme"]["inter_ocular"] == pytest.approx(wanted, rel=1e-4)


def test_maps_of_parsing_are_not_kept(monkeypatch):
    """A batch is counted and forgotten, its pictures and records too."""
    held = []

    def read(model, task, variables, images):
        assert sum(one() is not None for one in held) <= 3 * perception._TOGETHER
        return jnp.zeros(images.shape[:3], jnp.uint8)

    class Example:
        def __call__(self, record, rng):
            label = np.zeros((32, 32), np.uint8)
            held.append(weakref.ref(label))
            image = np.zeros((32, 32, 3), np.float32)
            return {"image": image, "label": label, "weight": 1.0}

    monkeypatch.setattr(perception, "_read", read)
    monkeypatch.setattr(perception, "PerceptionExample", lambda *_, **__: Example())
    monkeypatch.setattr(perception.jax, "jit", lambda function: function)
    monkeypatch.setattr(perception, "_TOGETHER", 2)
    found = perception.evaluate(Model(), "parsing_drawn", RECORDS, False)
    assert found["count"] == len(held) == 16


def test_points_that_are_not_known_do_not_count(monkeypatch):
    """Four faces by hand: whole, without a corner of an eye, without another point,
    and without any."""
    points = np.full((68, 2), (8, 1), np.float32)
    points[36:42], points[42:48] = (4, 16), (24, 16)  # 20 apart, in a box of 20 x 15
    record = dataclasses.replace(RECORDS[0], landmarks=points)
    given = [dataclasses.replace(record, landmarks=points.copy()) for _ in range(4)]
    given[1].landmarks[36] = given[2].landmarks[0] = given[3].landmarks[:] = np.nan
    given[1] = dataclasses.replace(given[1], boxes=np.array([[4, 4, 20, 16]]))
    away = np.zeros((4, 1, 2))
    away[:, 0, 0] = np.array([1, 2, 3, 1]) / 32  # pixels to the right
    found = answered(monkeypatch, lambda y: np.nan_to_num(y) + away)(
        "align_drawn", given
    )
    assert found["count"] == 4 and found["boxes"] == 1
    assert found["judged"] == {
        "inter_ocular": 2, "inter_pupil": 2, "box": 3, "diagonal": 3
    }  # fmt: skip
    root, own = 300**0.5, 192**0.5  # of 20 x 15 and of 16 x 12
    by_hand = {
        "inter_ocular": (1 / 20 + 3 / 20) / 2,
        "inter_pupil": (1 / 20 + 3 / 20) / 2,
        "box": (1 / root + 2 / own + 3 / root) / 3,
        "diagonal": (1 / 25 + 2 / 20 + 3 / 25) / 3,
    }
    assert found["nme"] == pytest.approx(by_hand, rel=1e-5)
    assert found["median"] == pytest.approx(0.1) and found["failures"] == 0.5
    assert found["auc"] == pytest.approx(0.25, abs=1e-3)  # 1 of 2 from 0.05 to 0.1
    assert found["box_failures"] == pytest.approx(2 / 3)
    assert found["box_auc"] == pytest.approx((1 - 1 / root / 0.07) / 3, abs=1e-3)
    none = answered(monkeypatch, lambda y: np.nan_to_num(y))("align_drawn", given[3:])
    assert none["count"] == 1 and none["judged"]["box"] == 0
    assert none["nme"]["box"] is none["auc"] is none["median"] is None


def test_attributes_that_are_named(monkeypatch):
    """Men are told rightly, smiles the wrong way round."""
    names = list(NAMES["celeba"])
    smiling = names.index("Smiling")

    def said(labels):
        logits = 2 * labels - 1
        logits[:, smiling] *= -1
        return logits

    figures = answered(monkeypatch, said)
    records = [
        dataclasses.replace(r, labels={"Smiling": i % 2, "Male": i % 2, "Bald": 0})
        for i, r in enumerate(RECORDS)
    ]
    every = figures("biattr_drawn", records)
    assert every["balanced"] == every["accuracy"] == 0.5
    assert every["balanced_by_attribute"] == {"Male": 1, "Smiling": 0}
    assert len(every["too_few"]) == 38
    one = figures("biattr_drawn", records, ["Male"])
    assert one["balanced"] == one["accuracy"] == 1 and one["too_few"] == []
    assert one["balanced_by_attribute"] == {"Male": 1}
    rare = figures("biattr_drawn", records, ["Bald"])
    assert rare["balanced"] is None and rare["too_few"] == ["Bald"]
    with pytest.raises(UserError, match="no task asks for 'Smilin' .* 'Smiling'"):
        figures("biattr_drawn", records, ["Smilin"])


def test_pictures_without_what_is_asked_are_refused(monkeypatch):
    bare = [dataclasses.replace(r, expression="") for r in RECORDS]
    with pytest.raises(UserError, match="none of the 16 pictures says"):
        answered(monkeypatch, lambda y: y)("affect_drawn", bare)
    photos = [dataclasses.replace(r, source="people") for r in RECORDS]
    with pytest.raises(UserError, match="on drawn faces only"):
        perception.verification(Model(), "recog_drawn", photos)


@pytest.mark.parametrize("knows,low,high", [(True, 1.0, 1.0), (False, 0.4, 0.6)])
def test_who_knows_people_verifies_them(monkeypatch, knows, low, high):
    """By a direction for each person all pairs are told, by chance about half."""

    class Example:
        def __call__(self, record, rng):
            told = np.eye(4)[record.identity] if knows else rng.normal(size=4)
            return {"image": np.broadcast_to(np.float32(told), (2, 2, 4))}

    monkeypatch.setattr(perception, "PerceptionExample", lambda *_: Example())
    monkeypatch.setattr(perception, "_read", lambda model, task, v, x: x[:, 0, 0])
    found = perception.verification(Model(), "recog_drawn", RECORDS)
    assert low <= found["accuracy"] <= high and found["pairs"] == 500


def test_intervals_are_over_people():
    """Of one person all or none is right: the interval knows of two, not of twenty."""
    right = np.array([1] * 10 + [0] * 10)
    together = perception._interval(right, ["a"] * 10 + ["b"] * 10)
    assert together == {"low": 0, "high": 1}
    alone = perception._interval(right, [None] * 20)
    assert 0.2 < alone["low"] < 0.5 < alone["high"] < 0.8
    # Columns are means of their own, and what is not known does not count.
    columns = np.array([[1, np.nan], [1, 0], [np.nan, np.nan]])
    assert perception._interval(columns, "aab") == {"low": 0.5, "high": 0.5}


def test_regions_by_mesh_and_as_they_are_seen(monkeypatch):
    """Who sees the truth has all of it; the usual regions are boxes without a face."""

    class Sees(SeesFaces):
        frame, digest = np.array(upright.FRAME), "truth"

        def parsing(self, photo, view):
            (record,) = (r for r in RECORDS if r.image is photo)
            assert view.box == (0, 0, 32, 32)
            return np.where(record.parsing == HAIR, 0, record.parsing), CLASSES

    CLASSES = schemes.PARSING["celebamask-hq"]
    HAIR = CLASSES.index("hair")
    monkeypatch.setattr(regions.faces, "find", lambda photo: [])
    monkeypatch.setattr(regions.image_io, "decode", lambda image: image)
    found = regions.evaluate(Sees(), RECORDS, progress=False)
    assert (found["count"], found["faces_found"]) == (16, 0)
    row = found["regions"]["nose"]
    assert row["perceived"] == {"iou": 1, "covered": 1, "beside": 0}
    assert (row["count"], row["unseen"]) == (16, 0)
    usual = data_regions.region_mask("nose", 32)
    truths = [r.parsing == CLASSES.index("nose") for r in RECORDS]
    by_hand = np.mean([(usual & t).sum() / (usual | t).sum() for t in truths])
    assert row["mesh"]["iou"] == pytest.approx(by_hand) and 0 < by_hand < 1
    # Of what it does not see both are the usual region.
    hair = found["regions"]["hair"]
    assert hair["unseen"] == hair["count"] and hair["mesh"] == hair["perceived"]
    lines = regions.table(found).splitlines()
    assert len({line.count("|") for line in lines}) == 1
    assert f"| nose | 16 | 0 | {by_hand:.2f} | 1.00 |" in regions.table(found)
    # Edits are judged with the same: the regions of each photograph, else the usual.
    monkeypatch.setattr(
        editors, "pictures_of", lambda rows, size: [r.image for r in rows]
    )
    mouth, _, black, _ = editors.tasks(
        RECORDS, ("Smiling", "Black_Hair"), 32, perception=Sees()
    )
    usual = {name: data_regions.region_mask(name, 32) for name in ("mouth", "hair")}
    for record, region in zip(RECORDS, mouth.regions):
        seen = data_regions.parsed_region("mouth", record.parsing, CLASSES)
        np.testing.assert_array_equal(region, usual["mouth"] if seen is None else seen)
    assert (mouth.regions != usual["mouth"]).any()
    assert (black.regions == usual["hair"]).all() and len(black.regions) == 16
    bare = [dataclasses.replace(r, parsing=None) for r in RECORDS]
    with pytest.raises(UserError, match="none of the 16 pictures has a parsing map"):
        regions.evaluate(Sees(), bare)
