"""Edits of photos in which the face has to be found first."""

import json
import types

import jax
import numpy as np
import pytest
from PIL import Image

import gptface_jax
from gptface_jax.apps import api, batch
from gptface_jax.cli.main import main
from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.data.geometry import Similarity
from gptface_jax.pipelines import edit as editing
from gptface_jax.pipelines import (
    editor,
    faces,
    results,
    upright,
    views,
    watermark_detection,
)
from gptface_jax.pipelines.editing_model import Selection

GREY = np.full((120, 120, 3), 128, np.uint8)
STEADY = {"samples": 1, "guidance": "none", "cfg": 1.0, "k": 64}


@pytest.fixture(scope="module")
def framed(model):
    """The tiny model as one that was trained on upright faces."""
    return api.Model(model.editor, model.digest, model.decode, frame=upright.FRAME)


@pytest.fixture(scope="module")
def two(astronaut):
    """Two faces, the one on the right the larger."""
    small = np.asarray(Image.fromarray(astronaut).resize((384, 384)))
    photo = np.full((512, 900, 3), 90, np.uint8)
    photo[60:444, :384] = small
    photo[:, 388:] = astronaut
    return photo


def test_a_region_lies_on_the_face(framed, astronaut):
    edit = framed.edit(astronaut, "a woman", region="mouth", **STEADY)
    rows, columns = np.nonzero(edit.mask)
    assert 200 < columns.mean() < 245 and 130 < rows.mean() < 165
    after = np.asarray(edit.image)
    np.testing.assert_array_equal(after[~edit.mask], astronaut[~edit.mask])
    assert (after != astronaut).any()
    view = views.view_of(edit.details)
    (face,) = framed.faces(astronaut)
    wanted = view.side * np.asarray(framed.frame)
    np.testing.assert_allclose(view.way.points(face.five), wanted, atol=8)
    json.dumps(edit.details)


def test_without_alignment_or_with_a_crop_no_face_is_looked_for(
    framed, model, astronaut, monkeypatch
):
    monkeypatch.setattr(faces, "find", None)
    middle = model.edit(astronaut, "a woman", region="mouth", align=False, **STEADY)
    for given in ({"align": False}, {"crop": (0, 0, 512, 512)}):
        same = framed.edit(astronaut, "a woman", region="mouth", **STEADY, **given)
        np.testing.assert_array_equal(same.image, middle.image)
        assert same.details["crop"] == middle.details["crop"] == [0, 0, 512, 512]
        with pytest.raises(UserError, match="face 1 does not go with"):
            framed.edit(astronaut, "a woman", region="mouth", face=1, **given)
    with pytest.raises(UserError, match="does not go with a model without a frame"):
        model.edit(astronaut, "a woman", region="mouth", face=1)


@pytest.mark.slow
def test_a_model_without_a_frame_sees_the_square_as_it_is_and_the_face_in_it(
    framed, model, astronaut, two
):
    mouth = Selection(region="mouth")
    where, _ = framed.select(astronaut, mouth)
    found, _ = model.select(astronaut, mouth)
    np.testing.assert_array_equal(found.mask, where.mask)
    assert not found.view.face and found.view.box == (0, 0, 512, 512)
    # Of the middle square of two faces the middle of one lies in it.
    found, _ = model.select(two, mouth)
    x0, _, x1, _ = found.view.box
    columns = np.nonzero(found.mask)[1]
    assert 388 < columns.min() and x0 <= columns.min() and columns.max() < x1
    grey, _ = model.select(GREY, mouth)  # no face: where one would be
    still, _ = model.select(GREY, Selection(region="mouth", align=False))
    np.testing.assert_array_equal(grey.mask, still.mask)


def test_of_several_faces_one_or_all(framed, two):
    edit = framed.edit(two, "a woman", region="mouth", **STEADY)
    assert np.nonzero(edit.mask)[1].min() > 388
    assert "2 faces were found" in edit.details["notes"][0]
    first = framed.edit(two, "a woman", region="mouth", face=1, **STEADY)
    assert np.nonzero(first.mask)[1].max() < 384 and not first.details["notes"]
    both = framed.edit(two, "a woman", region="mouth", face="all", **STEADY)
    np.testing.assert_array_equal(both.mask, first.mask | edit.mask)
    assert len(both.details["squares"]) == 2
    np.testing.assert_array_equal(
        np.asarray(both.image)[first.mask], np.asarray(first.image)[first.mask]
    )
    with pytest.raises(UserError, match="face 3 is asked for, but 2 were found"):
        framed.edit(two, "a woman", region="mouth", face=3)
    with pytest.raises(UserError, match="face 'all' edits a region of every face"):
        framed.edit(two, "a woman", box=(0, 0, 9, 9), face="all")
    with pytest.raises(UserError, match="face all does not go with align=False"):
        framed.edit(two, "a woman", region="mouth", face="all", align=False)


def test_a_face_that_cannot_be_edited_is_passed_over():
    def work(photo, one):
        if one.face in beyond:
            raise UserError(f"the hat of {one.face} lies beyond the photo")
        yield one.face
        after = photo.copy()
        after[:, place[one.face]] = 255
        details = {"mask": {"region": "hat"}, "tokens": 3, "squares": [one.face]}
        details["notes"] = ["of all", f"of {one.face}"]
        return results.Edit(
            Image.fromarray(after), Image.fromarray(photo), after.any(-1),
            np.zeros((1, 1), int), "", (), 0.0, details,
        )  # fmt: skip

    def run():
        steps = editing._each_face(several, GREY * 0, selection, work)
        return editing.run_immediately(asked, steps)

    place = {"left": 3, "middle": 60, "right": 110}
    several = types.SimpleNamespace(found_faces=lambda *where: [*place])
    asked = types.SimpleNamespace(has_answered=True, answer=lambda requests: [None])
    selection = Selection(region="hat", face="all")
    beyond = ("middle",)
    both = run()
    assert both.details["squares"] == ["left", "right"] and both.details["tokens"] == 6
    assert both.mask[0].nonzero()[0].tolist() == [3, 110]
    said = "face 2 was passed over: the hat of middle lies beyond the photo"
    assert both.details["notes"] == ["of all", "of left", "of right", said]
    beyond = tuple(place)
    with pytest.raises(UserError, match="hat of left"):
        run()


def test_a_mask_on_a_face_is_seen_in_its_frame(framed, two):
    (small, large) = framed.faces(two)
    x, y = small.five[3:].mean(0).astype(int)
    on_face = framed.inpaint(two, box=(x - 15, y - 8, x + 15, y + 8), k=64)
    view = views.view_of(on_face.details)
    assert view.face and view.box[0] < x < view.box[2] < large.five[:, 0].min()
    assert not on_face.details["notes"]
    beside = framed.inpaint(two, box=(10, 450, 60, 500), k=64)
    assert "upright" not in beside.details
    named = framed.inpaint(two, box=(10, 450, 60, 500), face=2, k=64)
    assert "does not lie on that face" in named.details["notes"][0]


def test_tokens_hidden_by_chance_lie_in_the_frame(framed, astronaut):
    edit = framed.inpaint(astronaut, region="random:0.3", k=64)
    assert edit.details["tokens"] == round(0.3 * edit.committed_at.size)
    shares = [row.count("1") for row in edit.details["squares"][0]["open"]]
    assert sum(shares) == edit.details["tokens"]


def test_a_proposal_lies_on_the_face(framed, astronaut):
    mask = framed.propose(astronaut, "wearing eyeglasses")
    (face,) = framed.faces(astronaut)
    view = framed.view_of(face, astronaut)
    whole = view.mask_back(np.ones((view.side,) * 2, bool), mask.shape)
    assert mask.any() and not (mask & ~whole).any()
    edit = framed.edit(astronaut, "wearing eyeglasses", **STEADY)
    np.testing.assert_array_equal(edit.mask, mask)


def test_photos_without_a_face(framed, monkeypatch):
    monkeypatch.setattr(faces, "find", lambda photo: [])
    edit = framed.edit(GREY, "a woman", region="mouth", **STEADY)
    assert "no face was found: the middle square" in edit.details["notes"][0]
    wide = np.pad(GREY, ((0, 0), (0, 200), (0, 0)))
    with pytest.raises(UserError, match="--crop.*--no-align"):
        framed.edit(wide, "a woman", region="mouth")
    with pytest.raises(UserError, match="no face was found"):
        framed.tag(wide)
    assert framed.inpaint(wide, box=(40, 40, 80, 80), k=64).details["notes"] == []
    with pytest.warns(UserWarning, match="no face was found"):
        framed.match(GREY, ["a woman"])


def test_descriptions_see_the_face(framed, astronaut, monkeypatch):
    seen = []
    encode = framed.editor.image_ids
    monkeypatch.setattr(
        framed.editor, "image_ids", lambda x: seen.append(x[0]) or encode(x)
    )
    framed.match(astronaut, ["a woman"])
    turned = np.asarray(Image.fromarray(astronaut).rotate(37, Image.BICUBIC))
    framed.match(turned, ["a woman"])
    assert np.abs(seen[0].astype(int) - seen[1]).mean() < 12  # the same, upright


def test_a_raw_decode_stays_within_the_square(framed, astronaut):
    edit = framed.edit(astronaut, "a woman", region="hat", composite=False, **STEADY)
    view = views.view_of(edit.details)
    whole = view.mask_back(np.ones((view.side,) * 2, bool), astronaut.shape[:2])
    after = np.asarray(edit.image)
    np.testing.assert_array_equal(after[~whole], astronaut[~whole])
    assert (after[whole] != astronaut[whole]).mean() > 0.9


def test_the_mark_is_found_again_in_a_turned_face(framed, astronaut):
    turned = np.asarray(Image.fromarray(astronaut).rotate(25, Image.BICUBIC))
    edit = framed.edit(turned, "a woman", region="face", **STEADY)
    (view, opened), *_ = watermark_detection._squares(
        edit.details, turned.shape[:2], edit.committed_at.shape
    )
    assert view == views.view_of(edit.details)
    np.testing.assert_array_equal(opened, edit.committed_at >= 0)
    half = watermark_detection._squares(
        edit.details, (256, 256), edit.committed_at.shape
    )
    assert half[0][0].side == round(view.side / 2)


@pytest.mark.slow
def test_jobs_may_say_which_face(framed, two, tmp_path):
    Image.fromarray(two).save(tmp_path / "two.png")
    lines = [{"id": str(n), "image": "two.png", "face": n} for n in (1, 2, "all", 4)]
    jobs = tmp_path / "jobs.jsonl"
    jobs.write_text("".join(json.dumps(line) + "\n" for line in lines))
    defaults = {"text": "a woman", "region": "mouth", **STEADY}
    found = batch.read_jobs(jobs, "edit", defaults)
    counts = batch.run(framed, found, tmp_path / "out", progress=False)
    assert counts == {"done": 4, "failed": 1, "skipped": 0}
    rows = (tmp_path / "out" / "results.jsonl").read_text().splitlines()
    assert "face 4 is asked for, but 2 were found" in json.loads(rows[3])["error"]


@pytest.mark.parametrize("frame", [[[0.5, 0.5]] * 4, "upright", [[9, 9]] * 5])
def test_a_frame_that_is_none(model, frame):
    with pytest.raises(UserError, match="give five points"):
        api.Model(model.editor, "", model.decode, frame=frame)


def test_the_bundled_model_has_its_frame():
    demo = gptface_jax.load("demo")
    np.testing.assert_allclose(demo.frame, upright.FRAME, atol=1e-6)


def test_twelve_megapixels_rolled_by_37_degrees_keep_their_bits(astronaut):
    demo = gptface_jax.load("demo")
    turn = np.radians(37)
    way = Similarity(4 * np.cos(turn), 4 * np.sin(turn), 1900, -200)
    photo = way.image(astronaut, (3000, 4000))
    edit = demo.edit(photo, "a smiling woman", region="mouth", samples=1)
    after = np.asarray(edit.image)
    changed = (after != photo).any(-1)
    assert not (changed & ~edit.mask).any() and changed.sum() > 1000
    x, y = way.points([223, 139])  # the mouth
    rows, columns = np.nonzero(edit.mask)
    np.testing.assert_allclose([columns.mean(), rows.mean()], [x, y], atol=60)


def test_the_command_draws_and_writes_faces(two, tmp_path, capsys):
    Image.fromarray(two).save(tmp_path / "two.jpg")
    photo = str(tmp_path / "two.jpg")
    assert main(["faces", "--image", photo, "--out", str(tmp_path / "f.png")]) == 0
    told = json.loads((tmp_path / "f.json").read_text())
    assert told["size"] == [900, 512] and len(told["faces"]) == 2
    assert len(told["faces"][0]["mesh"]) == 468
    assert told["faces"][0]["box"][0] < told["faces"][1]["box"][0]
    drawn = np.asarray(Image.open(tmp_path / "f.png"))
    assert drawn.shape == two.shape and (drawn != two).any()
    assert "1: " in capsys.readouterr().out
    assert main(["faces", "--image", photo, "--out", photo]) == 2
    assert main(["faces", "--out", "x.png"]) == 2


def test_the_command_measures_a_frame(two, tmp_path):
    Image.fromarray(two[:, 388:]).save(tmp_path / "a.png")
    out = tmp_path / "frame.json"
    options = ["--measure", "--images", str(tmp_path), "--out", str(out), "--quiet"]
    assert main(["faces", *options]) == 0
    assert np.shape(json.loads(out.read_text())["frame"]) == (5, 2)


def test_a_face_moves_and_the_rest_keeps_its_bits(framed, two, tmp_path):
    edit = framed.edit(two, expression={"mouthSmile": -0.8}, face=2, **STEADY)
    after = np.asarray(edit.image)
    np.testing.assert_array_equal(after[~edit.mask], two[~edit.mask])
    assert (after[:, 388:] != two[:, 388:]).any() and not edit.mask[:, :384].any()
    said = edit.details
    assert said["expression"] == {"mouthSmile": -0.8} and said["paint"] == "revealed"
    assert said["mask"] == {"face": "moved", "pixels": int(edit.mask.sum())}
    assert said["tokens"] == 0 and said["text"] == ""
    edit.save(tmp_path / "moved.png")
    # Both, one after the other; a mouth that opens is drawn by the model.
    both = framed.edit(two, expression={"jawOpen": 0.8}, face="all", **STEADY)
    assert both.mask[:, :384].any() and both.mask[:, 388:].any()
    assert 0 < both.details["tokens"] < 20


def test_what_moves_may_be_drawn_near_to_the_bent_photo(framed, astronaut):
    hints, answer = [], framed.editor.answer

    def answered(requests, *rest):
        hints.extend(request.hint for request in requests)
        return answer(requests, *rest)

    framed.editor.answer = answered
    try:
        edit = framed.edit(astronaut, turn={"yaw": 10}, paint="moved", **STEADY)
    finally:
        del framed.editor.answer
    assert edit.details["tokens"] > 10
    (hint,) = hints
    square = views.view_of(edit.details).picture(astronaut)
    apart = np.abs(hint - images.resize(square, hint.shape[:2]).astype(float))
    assert apart.mean() > 3  # it is not the photo


def test_a_strong_hint_is_followed_to_the_code(framed, astronaut, monkeypatch):
    monkeypatch.setattr(editor, "HINT", 1e6)
    side = framed.size
    hint = images.resize(astronaut, (side, side))[None]
    grey, whole = np.full_like(hint, 128), np.ones((1, side, side), bool)
    config = framed.unsteered_config({"k": 64})
    key = jax.random.split(jax.random.key(0), 1)
    found = framed.editor.edit(grey, whole, [""], config, key, hint=hint)
    codes = framed.editor.image_ids(hint)
    wanted = images.from_unit_range(framed.editor.vqgan.decode(codes))
    np.testing.assert_array_equal(found.images, wanted)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"turn": {"yaw": 5}, "region": "mouth"}, "leave out strength, mask, box and"),
        ({"turn": {"yaw": 5}, "strength": {"Smiling": 1}}, "leave out strength, mask"),
        ({"turn": {"yaw": 50}}, "the turn 'yaw' is 50; use -20 to 20"),
        (
            {"turn": {"yaw": 5}, "paint": "all"},
            "paint 'all' is none of revealed, moved",
        ),
        ({"turn": {"yaw": 0}}, "the text is empty"),
    ],
)
def test_moves_that_are_refused(framed, astronaut, given, said):
    with pytest.raises(UserError, match=said):
        framed.edit(astronaut, **given)


def test_without_a_face_nothing_moves(framed, monkeypatch):
    monkeypatch.setattr(faces, "find", lambda photo: [])
    with pytest.raises(UserError, match="expression and turn move the head of one"):
        framed.edit(GREY, turn={"yaw": 5})
