"""Examples of perception tasks: labels by scheme, and pictures varied with them."""

import dataclasses

import numpy as np
import pytest

from gptface_jax.core import perception_tasks
from gptface_jax.core.errors import UserError
from gptface_jax.data import augmentation, schemes
from gptface_jax.data.augmentation import PUBLISHED, Augmentation
from gptface_jax.data.perception_examples import NAMES, PerceptionExample, people_of
from gptface_jax.data.record import Record
from gptface_jax.data.synthetic import SyntheticFaces

FACES = SyntheticFaces(size=64, count=8, seed=3)
RNG = np.random.default_rng


def example(task, record=None, **options):
    queries = perception_tasks.TABLE[task].queries
    made = PerceptionExample(task, queries, 32, **options)
    return made(FACES[0] if record is None else record, RNG(0))


def test_labels_are_the_truth_of_drawn_faces():
    record, factors = FACES[0], FACES.factors(0)
    age = example("age_drawn")
    assert age["label"] == pytest.approx(record.labels["Age"]) and age["weight"] == 1
    number = example("affect_drawn")["label"]
    assert perception_tasks.EXPRESSIONS[number] == factors.expression
    attributes = dict(zip(NAMES["celeba"], example("biattr_drawn")["label"]))
    assert attributes["Male"] == factors.male and attributes["Oval_Face"] == -1
    found = example("parsing_drawn")
    assert found["label"].shape == (32, 32) and found["label"].dtype == np.uint8
    share = (found["label"] > 0).mean()
    assert share == pytest.approx((record.parsing > 0).mean(), abs=0.02)
    points = example("align_drawn")["label"]
    np.testing.assert_allclose(points, (record.landmarks + 0.5) / 64, atol=1e-6)


def test_what_a_record_does_not_say_has_no_weight():
    bare = Record(image=FACES[0].image, expression="contempt")
    for task in ("age_drawn", "affect_drawn", "biattr_drawn", "parsing_drawn",
                 "align_drawn", "recog_drawn"):  # fmt: skip
        assert example(task, bare)["weight"] == 0
    assert np.isnan(example("align_drawn", bare)["label"]).all()
    assert (example("parsing_drawn", bare)["label"] == 255).all()


def test_the_box_of_a_face_goes_with_its_picture():
    """Of a picture of 128 x 64 the middle 64 are shown."""
    wide = Record(
        image=np.zeros((64, 128, 3), np.uint8), boxes=np.array([[48, 16, 80, 64]])
    )
    found = example("align_drawn", wide, boxes=True)["box"]
    assert found.tolist() == [0.25, 0.25, 0.75, 1.0]
    several = dataclasses.replace(wide, boxes=np.zeros((2, 4)))
    for record in (several, FACES[0]):
        assert np.isnan(example("align_drawn", record, boxes=True)["box"]).all()
    assert "box" not in example("align_drawn", wide)


def test_people_are_numbered():
    assert people_of(FACES, 2) == {0: 0, 1: 1}  # four pictures of each
    found = example("recog_drawn", FACES[5], people={0: 0, 1: 1})
    assert found["label"] == 1 and found["weight"] == 1
    assert example("recog_drawn", FACES[5], people={})["weight"] == 0
    with pytest.raises(UserError, match="show 2 people and its task has 1"):
        people_of(FACES, 1)


def test_reading_identities_shows_how_far_it_is(capsys):
    assert people_of([FACES[i] for i in range(8)], 2) == {0: 0, 1: 1}
    assert "reading identities" in capsys.readouterr().err


def test_records_of_other_schemes_are_refused():
    record = dataclasses.replace(FACES[0], landmarks=np.zeros((29, 2), np.float32))
    with pytest.raises(UserError, match="29 landmarks and task 'align_drawn' asks"):
        example("align_drawn", record)
    record = dataclasses.replace(FACES[0], parsing_scheme="lapa")
    with pytest.raises(UserError, match="classes of 'lapa' cannot be told as those"):
        example("parsing_drawn", record)


def test_a_task_of_too_few_queries_is_refused():
    task = PerceptionExample("affect_mine", 3, 32)
    with pytest.raises(UserError, match="has 3 queries; expressions of records are 7"):
        task(FACES[0], RNG(0))
    assert PerceptionExample("affect_mine", 8, 32)(FACES[0], RNG(0))["weight"] == 1
    task = PerceptionExample("parsing_mine", 3, 32)
    parsing = np.full((64, 64), 2, np.uint8)
    parsing[:8] = 255  # does not count
    record = dataclasses.replace(FACES[0], parsing=parsing, parsing_scheme="")
    assert set(task(record, RNG(0))["label"].flat) == {2, 255}
    record.parsing[40:44] = 3
    with pytest.raises(UserError, match="shows class 3 .* 3 queries, for classes 0 to"):
        task(record, RNG(0))


def test_classes_are_told_in_another_scheme():
    many, few = schemes.PARSING["celebamask-hq"], schemes.PARSING["lapa"]
    table = schemes.classes_as("celebamask-hq", "lapa")
    for name in few:
        assert few[table[many.index(name)]] == name
    assert table[many.index("neck")] == 0 and table[many.index("eye_g")] == 255
    drawn = example("parsing_drawn")["label"]
    found = example("parsing_lapa")["label"]
    hair = found == few.index("hair")
    assert hair.any() and (hair == (drawn == many.index("hair"))).all()


def marked(points, size=64):
    """A record whose picture has a bright square of three pixels at each point."""
    image = np.zeros((size, size, 3), np.uint8)
    parsing = np.zeros((size, size), np.uint8)
    for x, y in points.astype(int):
        image[y - 1 : y + 2, x - 1 : x + 2] = 255
        parsing[y - 1 : y + 2, x - 1 : x + 2] = 1
    return Record(image=image, landmarks=points, parsing=parsing)


@pytest.mark.parametrize("seed", range(6))
def test_points_and_maps_go_with_the_picture(seed):
    """However it is turned, scaled and mirrored, a point is where it is seen."""
    points = np.full((68, 2), 32.0, np.float32)
    points[:3] = [(20, 24), (44, 24), (30, 42)]
    options = Augmentation(flip=0.5, rotation=0.5, scale=0.2, zoom=0.9, shift=0.05)
    view = augmentation.shown(marked(points), 64, options, RNG(seed))
    bright = view.image.mean(-1) > 100
    seen = view.parsing == 1
    assert (bright & seen).sum() / (bright | seen).sum() > 0.6
    x, y = np.round(view.landmarks).astype(int).T
    assert bright[y, x].all() and seen[y, x].all()


def test_a_mirror_renames_what_is_left():
    options = Augmentation(flip=1.0)
    view = augmentation.shown(FACES[0], 64, options, RNG(0))
    order = schemes.mirrored_points("ibug68", 68)
    wanted = FACES[0].landmarks[order] * [-1, 1] + [63, 0]
    np.testing.assert_allclose(view.landmarks, wanted, atol=1e-4)
    left, right = (
        schemes.PARSING["celebamask-hq"].index(n) for n in ("l_eye", "r_eye")
    )
    before, after = FACES[0].parsing, view.parsing
    assert (after == left).sum() == (before[:, ::-1] == right).sum()


def test_light_changes_no_label():
    options = Augmentation(
        occlusion=1.0, grey=1.0, colour=0.3, gamma=1.0, blur=1.0, noise=0.5
    )
    plain = example("align_drawn")
    varied = example("align_drawn", augmentation=options)
    assert np.abs(plain["image"] - varied["image"]).mean() > 0.02
    assert -1 <= varied["image"].min() and varied["image"].max() <= 1
    np.testing.assert_allclose(plain["label"], varied["label"], atol=0.01)
    assert example("age_drawn", augmentation=Augmentation())["label"] > 0


def test_options_are_checked():
    assert augmentation.of_family("age", {}) == PUBLISHED["age"]
    assert augmentation.of_family("age", "none") is None
    assert augmentation.of_family("age", {"age": "none"}) is None
    assert augmentation.of_family("age", {"age": {"flip": 0.0}}).flip == 0
    for options, said in (
        ({"ages": {}}, "has 'ages'.*did you mean 'age'"),
        ({"age": {"flp": 1}}, "unknown config key 'data.augmentation.age.flp'"),
        ({"age": {"flip": 2.0}}, "flip is 2.0"),
        (3, "is 3; use 'none'"),
    ):
        with pytest.raises(UserError, match=said):
            augmentation.of_family("age", options)
