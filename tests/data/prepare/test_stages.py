"""A sample's way to its record: crops, filters, faces, and the split."""

import collections
import tracemalloc

import hostile_files as hostile
import numpy as np
import pytest

from gptface_jax.core.config import load_config
from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io
from gptface_jax.data.prepare import finish, sample, settings, stages, tars, texts
from gptface_jax.data.prepare.opt_out import OptOut
from gptface_jax.data.prepare.sample import Faces, Sample
from gptface_jax.data.record import Record

FIVE = np.array([[40, 45], [60, 45], [50, 55], [42, 65], [58, 65]], np.float32)
BOX = np.array([30, 30, 70, 70], np.float32)


def stages_of(find=None, opt_out=None, **sections):
    values = {
        "sources": ({"kind": "synthetic"},),
        "crop": {"size": 40, "enlarged": 9.0, "encoding": "png"},
        "filters": {"min_side": 8, "min_face": 8.0},
    }
    for name, section in sections.items():
        values[name] = {**values.get(name, {}), **section}
    config = settings.read(values)

    def upright(points, size):
        raise AssertionError

    return stages.Stages(
        config, texts.texts(config.texts), find, upright, opt_out or OptOut()
    )


def sample_of(faces=None, size=(100, 100), text="a man", **fields):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (*size, 3), np.uint8)
    record = Record(image=hostile.encoded(image, "png"), text=text, source="s")
    return Sample("k", record, faces=faces, **fields), image


def faces_of(*boxes, points=FIVE, score=0.9):
    count = len(boxes)
    return Faces(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.broadcast_to(points, (count, 5, 2)).astype(np.float32),
        np.full(count, score, np.float32),
    )


def one(found):
    (outcome,) = found
    return outcome if isinstance(outcome, tuple) else outcome.reason


def test_context_is_a_square_around_the_face():
    item, image = sample_of(faces_of(BOX))
    (kept,) = one(stages_of(crop={"context": 1.0})([item]))
    np.testing.assert_array_equal(
        image_io.decode(kept.record.image), image[30:70, 30:70]
    )
    np.testing.assert_allclose(kept.record.boxes, [[0, 0, 40, 40]], atol=1e-4)
    # `Record` counts points from the middle of the first pixel.
    np.testing.assert_allclose(kept.record.landmarks, FIVE - 30.5, atol=1e-4)
    assert kept.record.landmark_scheme == "five"


@pytest.mark.parametrize(
    "box, context, low, side, beyond",
    [
        ((30, 30, 70, 70), 2.0, (10, 10), 80, 0),
        ((0, 0, 20, 20), 2.0, (0, 0), 40, 0),  # moved into the picture
        ((80, 40, 100, 60), 3.0, (40, 20), 60, 0),
        ((30, 30, 70, 70), 5.0, (0, 0), 100, 0),  # no more than the picture
        ((-20, 30, 20, 70), 1.0, (0, 30), 40, 0),
        ((-60, -10, 60, 110), 1.0, (-60, -10), 120, 1 - 60 * 100 / 120**2),
    ],
)
def test_around(box, context, low, side, beyond):
    way, found, outside = stages.around(np.array(box, float), (100, 100), context)
    if outside == 0:
        np.testing.assert_allclose(way.inverse.points([0, 0]), low, atol=1e-6)
    assert found == pytest.approx(side)
    assert outside == pytest.approx(beyond, abs=1e-6)


CASES = {
    sample.NO_FACE: (dict(faces=faces_of()), {}),
    sample.SMALL_FACE: (dict(faces=faces_of((1, 1, 5, 5))), {}),
    sample.TOO_SMALL: (dict(faces=faces_of(BOX), size=(20, 7)), {}),
    sample.NO_TEXT: (dict(faces=faces_of(BOX), text=""), {}),
    sample.LONG_TEXT: (dict(faces=faces_of(BOX), text_fault=sample.LONG_TEXT, text=""),
                       {}),
    "score: punsafe too high": (
        dict(faces=faces_of(BOX), row={"punsafe": 0.9}),
        {"filters": {"max_scores": {"punsafe": 0.5}}},
    ),
    sample.TURNED: (
        dict(faces=faces_of(BOX, points=FIVE + np.eye(5)[2][:, None] * [25, 0])),
        {"filters": {"max_yaw": 45.0}},
    ),
    sample.BLURRED: (dict(faces=faces_of(BOX)), {"filters": {"min_sharpness": 50.0}}),
    sample.CUT_OFF: (
        dict(faces=faces_of((-60, -60, 100, 100))), {"crop": {"context": 1.0}}
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", CASES)
def test_reasons(reason):
    given, sections = CASES[reason]
    item, _ = sample_of(**given)
    assert one(stages_of(**sections)([item])) == reason


def test_faces_of_another_picture_or_too_unsure_are_none():
    for faces in (faces_of((500, 500, 600, 600)), faces_of(BOX, score=0.1)):
        assert one(stages_of()([sample_of(faces)[0]])) == sample.NO_FACE


def test_every_face_is_a_record_of_its_own_in_one_split():
    boxes = (5, 5, 35, 35), (40, 40, 90, 90), (1, 1, 4, 4)
    item, _ = sample_of(faces_of(*boxes))
    (largest,) = one(stages_of()([item]))
    kept = one(stages_of(faces={"every": True})([item]))
    assert len(kept) == 2 and kept[0].digest == largest.digest
    assert len({k.digest for k in kept}) == 2 and len({k.lot for k in kept}) == 1


def test_known_faces_are_not_searched_and_others_are():
    searched = []

    def find(images):
        searched.append(len(images))
        return [faces_of(BOX) for _ in images]

    known, _ = sample_of(faces_of(BOX))
    unknown, _ = sample_of()
    outcomes = list(stages_of(find)([known, unknown, known, unknown]))
    assert searched == [2] and all(isinstance(o, tuple) for o in outcomes)
    list(stages_of(find, faces={"known": False})([known, unknown]))
    assert searched == [2, 2]
    with pytest.raises(UserError, match="no face finder"):
        list(stages_of()([unknown]))


def test_large_pictures_are_not_held_together(monkeypatch):
    searched = []

    def find(images):
        searched.append(len(images))
        return [faces_of(BOX) for _ in images]

    monkeypatch.setattr(stages, "_PIXELS", 25_000)
    item, _ = sample_of()  # 10,000 pixels
    small, _ = sample_of(size=(60, 60))
    outcomes = list(stages_of(find)([item] * 4 + [small] * 10))
    assert len(outcomes) == 14 and searched == [3, 6, 5]


def test_faces_without_points_cannot_be_brought_upright_and_are_searched():
    searched = []

    def find(images):
        searched.append(len(images))
        return [faces_of() for _ in images]

    item, _ = sample_of(faces_of(BOX, points=np.full((5, 2), np.nan)))
    assert one(stages_of(find, crop={"mode": "upright"})([item])) == sample.NO_FACE
    assert searched == [1]
    assert isinstance(one(stages_of(find)([item])), tuple) and searched == [1]


def test_what_nobody_thought_of_is_counted():
    def upright(points, size):
        raise ZeroDivisionError

    stage = stages_of(crop={"mode": "upright"})
    stage.upright = upright
    good, _ = sample_of(faces_of(BOX))
    outcomes = list(stage([good, good]))
    assert [o.reason for o in outcomes] == ["error: ZeroDivisionError"] * 2


def test_a_picture_that_breaks_the_finder_is_rejected_alone():
    calls = []

    def find(images):
        calls.append(len(images))
        if any(len(image) == 99 for image in images):
            raise ZeroDivisionError
        return [faces_of(BOX) for _ in images]

    good, odd = sample_of()[0], sample_of(size=(99, 90))[0]
    outcomes = list(stages_of(find)([good, odd, good]))
    assert [getattr(o, "reason", "") for o in outcomes] == [
        "", "error: ZeroDivisionError", ""
    ]  # fmt: skip
    assert calls == [3, 1, 1, 1]


def test_a_text_that_breaks_a_stage_is_rejected_alone():
    stage = stages_of()
    stage.texts = lambda texts: 1 / (texts != ("odd",)) and texts
    good, odd = (sample_of(faces_of(BOX), text=text)[0] for text in ("good", "odd"))
    first, second = stage([good, odd])
    assert isinstance(first, tuple) and second.reason == "error: ZeroDivisionError"


@pytest.mark.parametrize(
    "cell, kept",
    [
        (0.5, True), ("0.5", True), (None, True), ("", True), (float("nan"), True),
        (0.9, False), ("0.9", False), (float("inf"), False), ("high", False),
        ([0.1], False), (10**400, False),
    ],
)  # fmt: skip
def test_scores(cell, kept):
    stage = stages_of(filters={"max_scores": {"punsafe": 0.5}})
    outcome = one(stage([sample_of(faces_of(BOX), row={"punsafe": cell})[0]]))
    assert outcome == "score: punsafe too high" or (kept and len(outcome) == 1)
    assert isinstance(outcome, tuple) == kept


def test_words_that_are_allowed():
    stage = stages_of(filters={"allowed": {"NSFW": ["UNLIKELY"]}})
    words = ("UNLIKELY", None, "UNSURE", "NSFW", 1.0, ["UNLIKELY"])
    items = [sample_of(faces_of(BOX), row={"NSFW": word})[0] for word in words]
    reasons = [getattr(outcome, "reason", "") for outcome in stage(items)]
    assert reasons == ["", "", *["score: NSFW not among those allowed"] * 4]


def test_texts_may_be_wanting():
    item, _ = sample_of(faces_of(BOX), text="<br>")
    (kept,) = one(stages_of(texts={"required": False})([item]))
    assert kept.record.text == "" and kept.record.texts == ()


def test_opted_out_before_anything_else():
    item, _ = sample_of(faces_of(BOX), url="https://img.example.org/1.jpg")
    listed = OptOut(domains=frozenset({"example.org"}))
    assert one(stages_of(opt_out=listed)([item])) == sample.OPTED_OUT


@pytest.mark.parametrize(
    "exact, near, together",
    [(True, -1, False), (False, 0, False), (False, -1, True)],
)
def test_copies_that_are_kept_are_in_one_split(exact, near, together):
    filters = {"exact_duplicates": exact, "near_duplicates": near}
    items = [sample_of(faces_of(BOX), url=url)[0] for url in ("u", "v")]
    (one_,), (other,) = stages_of(filters=filters)(items)
    assert (one_.lot == other.lot) == together


def test_splits_follow_the_address_alone():
    options = settings.SplitOptions(validation=0.1, test=0.2)
    lots = [stages.lot_of(f"http://x.org/{i}", "") for i in range(4000)]
    shares = collections.Counter(finish.split_of(lot, options) for lot in lots)
    assert shares["validation"] == pytest.approx(400, abs=80)
    assert shares["test"] == pytest.approx(800, abs=110)
    assert (
        lots[7]
        == stages.lot_of("http://x.org/7", "")
        != stages.lot_of("http://x.org/7", "other")
    )
    # Another picture at the same address, with another text, goes the same way.
    a, _ = sample_of(faces_of(BOX), url="u")
    b, _ = sample_of(faces_of(BOX), url="u", text="quite another", size=(90, 99))
    (first,), (second,) = stages_of()([a, b])
    assert first.lot == second.lot and first.digest != second.digest


@pytest.mark.parametrize(
    "values, message",
    [
        ({"crop": {"mode": "uprigth"}}, "crop.mode is 'uprigth'.*'upright'"),
        ({"crop": {"sise": 4}}, "crop.sise.*size"),
        ({"sources": ()}, "no sources"),
        ({"split": {"validation": 0.6, "test": 0.4}}, "leave nothing"),
        ({"filters": {"near_duplicates": 20}}, "0 to 8"),
        ({"unit_size": 0}, "unit_size"),
        ({"filters": {"max_scores": {"punsafe": "low"}}}, "punsafe is 'low'.*number"),
        ({"filters": {"allowed": {"NSFW": "UNLIKELY"}}}, "NSFW is 'UNLIKELY'.*list"),
    ],
)
def test_configs_that_make_no_sense(values, message):
    with pytest.raises(UserError, match=message):
        settings.read({"sources": ({"kind": "synthetic"},), **values})


def test_the_config_of_laion_face():
    config = settings.read(load_config("configs/data/laion_face.py").to_dict())
    assert config.crop.size == 336 and config.crop.mode == "context"


def test_memory_of_a_unit_does_not_grow_with_its_samples(tmp_path):
    """Four times the pictures of a tar, as many of them in memory."""
    data = sample_of(faces_of(BOX), size=(200, 200))[0].record.image
    about = hostile.about(caption="a man", boxes=[BOX.tolist()])
    peaks = []
    for count in (48, 192):
        samples = [(f"{i}", {"png": data, "json": about}) for i in range(count)]
        path = hostile.tar_of(tmp_path / f"{count}.tar", samples)
        stage = stages_of()
        tracemalloc.start()
        kept = sum(1 for _ in stage(tars.samples(path, stage.config)))
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert kept == count
    assert peaks[1] < 1.2 * peaks[0]
