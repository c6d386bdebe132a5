"""The page of `gptface serve`: what it does, its JSON API, and what it refuses."""

import dataclasses
import io
import json
import os
import pathlib
import re
import signal
import socket
import tempfile
import types
import zipfile

import numpy as np
import page_models
import pytest
import two_faces
from PIL import Image

import gptface_jax
from gptface_jax.apps import api
from gptface_jax.apps.web import faces, server, work
from gptface_jax.cli import serve
from gptface_jax.core.errors import UserError
from gptface_jax.data import regions, synthetic
from gptface_jax.pipelines import perception_pictures, pictures, provenance
from gptface_jax.pipelines.faces import Face
from gptface_jax.pipelines.faces3d import Head3D
from gptface_jax.systems.gptface.options import DecodeConfig

pytest.importorskip("gradio")
import gradio as gr  # noqa: E402
import gradio_client  # noqa: E402
import httpx  # noqa: E402

from gptface_jax.apps.web import (  # noqa: E402
    face3d_tab,
    page,
    perception_tab,
    service,
)


def quiet(share, what):
    """A `work.Say` that says nothing."""


@pytest.fixture(scope="module")
def model(tiny):
    model = gptface_jax.load(tiny / "model")
    # One compilation for nearly all that follows.
    model.decode = model.decode_config({"k": 64, "guidance": "none"})
    return model


@pytest.fixture(scope="module")
def face():
    return synthetic.SyntheticFaces(size=48, count=1, seed=3)[0].image


def found_at(x, y, side, points=two_faces.FRAME):
    """A face whose five points lie in the frame of a square with this corner."""
    mesh = np.zeros((468, 2), np.float32)
    eyes = (33, 160, 158, 133, 153, 144), (362, 385, 387, 263, 373, 380)
    rows = (*eyes, (4,), (61,), (291,))
    for own, point in zip(rows, points):
        mesh[list(own)] = np.array(point) * side + (x, y)
    box = tuple(float(v) for v in (x, y, x + side, y + side))
    return Face(box, 0.9, 1.0, mesh[:6], mesh, 0.0)


def finds(*found):
    """A model that finds these faces."""
    return types.SimpleNamespace(
        frame=np.array(two_faces.FRAME), faces=lambda photo: [*found]
    )


def encoded(pixels) -> bytes:
    with io.BytesIO() as data:
        Image.fromarray(pixels).save(data, "PNG")
        return data.getvalue()


# Without a server.


def endpoint(built, name):
    (event,) = (f for f in built.fns.values() if f.api_name == name)
    return event.fn


def test_the_page_shows_what_is_seen(face, tmp_path):
    alone = service.Service(page_models.Sees(), 0, 10**7, 1, str(tmp_path))
    look = endpoint(page.build(alone), "perceive")
    parts, table, files = look(encoded(face), 1, True)
    assert [pathlib.Path(name).name for name in files] == ["seen.png", "seen.json"]
    assert table.value["headers"] == ["what", "answer", "confidence"]
    assert table.value["data"] == [
        ["age", "31 \u00b1 7 years", ""],
        ["expression", "happiness", 0.77],
        ["expression", "neutral", 0.2],
        ["smiling", "yes", 0.9],
        ["wearing hat", "no", 0.8],
        ["parts", "skin, hair", 0.75],
        ["landmarks", "1 points", ""],
    ]
    shown, masks = perception_tab.annotated(alone.model.perceive(Image.fromarray(face)))
    assert [name for _, name in masks] == ["skin", "hair"]
    below, above = (mask for mask, _ in masks)
    # The point (24, 30) of 48 pixels is drawn at (256, 320) of 512, and stays free.
    point = np.zeros((512, 512), bool)
    point[317:324, 253:260] = True
    assert tuple(shown[320, 256]) == perception_pictures._POINT
    assert above[:256].all() and not above[256:].any()
    assert (below | point)[256:].all() and not below[:256].any()
    assert not below[320, 256]
    several = look(encoded(face), 0, True)[1].value
    assert several["headers"][0] == "face" and len(several["data"]) == 14


def test_heads_are_made_moved_and_handed_out(face, tmp_path, monkeypatch):
    monkeypatch.setattr(face3d_tab, "_SIDE", 32)
    monkeypatch.setattr(Head3D, "turntable", lambda self: np.zeros((8, 8, 3), np.uint8))
    solid = service.Service(page_models.Solid(), 0, 10**7, 1, str(tmp_path))
    built = page.build(solid)
    files = endpoint(built, "face3d")(None, "happy", None, 0, True)  # a number cleared
    assert [pathlib.Path(f).suffix for f in files] == [".glb", ".png", ".json"]
    with pytest.raises(gr.Error, match="neither a photo nor a sentence"):
        endpoint(built, "face3d")(None, " ", 0, 0, True)
    named = {f.fn.__name__: f.fn for f in built.fns.values()}
    found, picture, mesh, _, *values = named["make"](encoded(face), "", 0, 0, True)
    assert pathlib.Path(mesh).read_bytes()[:4] == b"glTF"
    assert picture.shape == (32, 32, 3)
    names = [*found.groups]
    assert names[:2] == ["jawOpen", "mouthSmile"] and len(names) == len(values) - 6
    # Both sides in one slider; what is not touched stays as it was, to the bit.
    smile = names.index("mouthSmile")
    assert values[smile] == pytest.approx(0.715, abs=0.006)
    assert values[-6:] == [7, 0, 0, 0, 0, 1]
    assert found.at(values) is found.head
    np.testing.assert_array_equal(named["move"](found, *values), picture)
    values[smile], values[-6] = 1, 27
    moved = found.at(values)
    rows = found.groups["mouthSmile"]
    by = 1 - found.start[smile]
    wanted = np.clip(found.head.coeffs["exp_coeffs"][rows] + by, 0, 1)
    np.testing.assert_allclose(moved.coeffs["exp_coeffs"][rows], wanted)
    assert moved.angles["yaw"] == pytest.approx(np.rad2deg(0.1234) + 20, abs=1e-3)
    assert (named["move"](found, *values) != picture).any()
    said = json.loads(pathlib.Path(named["write"](found, *values)[1][-1]).read_text())
    assert said["expressions"]["mouthSmile_L"] == 1
    with pytest.raises(gr.Error, match="there is no head yet"):
        named["move"](None, *values)


def test_a_question_is_answered_with_a_head(face, tmp_path, monkeypatch):
    monkeypatch.setattr(face3d_tab, "_SIDE", 32)
    monkeypatch.setattr(Head3D, "turntable", lambda self: np.zeros((8, 8, 3), np.uint8))

    def built(model):
        return page.build(service.Service(model, 0, 10**7, 1, str(tmp_path)))

    solid, says = built(page_models.Solid()), built(page_models.Says())
    assert "ask_with_head" not in {f.api_name for f in solid.fns.values()}
    ask = endpoint(says, "ask_with_head")
    answer, files = ask(encoded(face), " expression ", 0, True)
    assert answer == "expression: happiness  0.93\nhead: 0.50"
    assert [pathlib.Path(f).suffix for f in files] == [".glb", ".png", ".json"]
    (shown,) = (f.fn for f in says.fns.values() if f.fn.__name__ == "ask")
    answer, found, picture, *_, brightness = shown(encoded(face), None, 0, True)
    assert answer.startswith("description: a face") and brightness == 1
    np.testing.assert_array_equal(found.head.render(32)[0], picture)
    with pytest.raises(gr.Error, match="there is no photo yet"):
        ask(None, "", 0, True)
    with pytest.raises(gr.Error, match="no question 'weather'"):
        ask(encoded(face), "weather", 0, True)


def test_questions_sentences_and_drawn_faces(face, tmp_path):
    talks = page_models.Talks()
    built = page.build(service.Service(talks, 0, 10**7, 1, str(tmp_path)))
    ask = endpoint(built, "ask")
    rows, looked = ask(encoded(face), ["expression", "hair"], 0, True)
    assert rows == [["expression", "happiness", 0.934], ["hair", "none", 0.934]]
    assert looked.size == (8, 8)
    everything, _ = ask(encoded(face), ["everything it knows"], 0, True)
    assert len(everything) == 2
    with pytest.raises(gr.Error, match="no question 'weather'"):
        ask(encoded(face), ["weather"], 0, True)
    with pytest.raises(gr.Error, match="there is no question"):
        ask(encoded(face), [], 0, True)
    named = {f.fn.__name__: f.fn for f in built.fns.values()}
    assert named["caption"](encoded(face), 0, True) == [
        ["a sentence", "a happy person", 0.5]
    ]
    draw = endpoint(built, "synthesize")
    shown, files = draw("a man", "age=30", 3, 0.8, 7, 4)
    assert len(shown) == 3 and [pathlib.Path(f).suffix for f in files] == [
        ".png", ".json"
    ]  # fmt: skip
    options = {"seed": 7, "temperature": 0.8, "candidates": 4}
    assert talks.asked == [("a man", "age=30", 3, options)]
    with pytest.raises(gr.Error, match="nothing to follow"):
        draw("", "", 1, 1, 0, 1)


def test_a_face_is_moved(tmp_path, monkeypatch):
    asked = []

    class Moves(page_models.Sees):
        def inpaint(self):
            """There is a tab for it."""

        def edit(self, photo, text, **options):
            asked.append((text, options))
            raise UserError("told")

    alone = service.Service(Moves(), 0, 10**7, 1, str(tmp_path))
    monkeypatch.setattr(page, "_TABS", {"inpaint": page._TABS["inpaint"]})
    monkeypatch.setattr(page, "_api", lambda service: None)
    built = page.build(alone)
    photo = encoded(np.zeros((8, 8, 3), np.uint8))
    by_name = {f.fn.__name__: f for f in built.fns.values()}
    with pytest.raises(gr.Error, match="told"):
        endpoint(built, "move")(
            photo, {"jawOpen": 0.2}, {"yaw": 9}, None, "moved", 3, 2
        )
    assert asked[0] == (
        "", {"expression": {"jawOpen": 0.2}, "turn": {"yaw": 9}, "paint": "moved",
             "seed": 3, "face": 2, "align": True},
    )  # fmt: skip
    sliders = by_name["moved"].inputs[5:]
    values = np.arange(len(sliders)) / 20
    with pytest.raises(gr.Error, match="told"):
        by_name["moved"].fn(photo, "a smile", "revealed", 0, 0, *values)
    text, options = asked[1]
    told = {**options["expression"], **options["turn"]}
    assert told == dict(zip([s.label for s in sliders], values)) and text == "a smile"
    assert [*options["turn"]] == ["yaw", "pitch", "roll"] and options["face"] is None


def test_edits_take_what_is_seen_where_the_server_has_a_model_for_it(
    model, face, tmp_path, monkeypatch
):
    beside = service.Service(
        api.Model(model.editor, model.digest, model.decode), 0, 10**7, 1, str(tmp_path)
    )
    edit = endpoint(page.build(beside), "edit")
    given = [encoded(face), "a man", None, "hair", 1, None, 64, 0, 1, "", True, 0, True]
    with pytest.raises(gr.Error, match="this server has no model that sees regions"):
        edit(*given)
    seer, asked = page_models.Sees(), []
    beside.model.add_beside(lambda: seer)
    assert beside.perception is seer and beside.sees_regions
    monkeypatch.setattr(work, "files", lambda *_: [])
    monkeypatch.setattr(
        type(beside.model), "edit", lambda self, *_, **options: asked.append(options)
    )
    edit(*given)
    edit(*given[:-1], False)
    assert asked[0]["perception"] is seer and "perception" not in asked[1]


def test_red_joins_the_mask_and_blue_leaves_it(face):
    base, expected = np.zeros((2, 48, 48), bool)
    base[10:20, 5:40] = True
    shown = work.canvas(face, base)["background"]
    np.testing.assert_array_equal(shown[~base], face[~base])
    assert (shown[base] != face[base]).any(-1).all()
    layer = np.zeros((48, 48, 4), np.uint8)
    layer[30:35, :10] = (220, 40, 40, 153)
    layer[15:25, 30:] = (40, 80, 220, 153)
    layer[40:] = (220, 40, 40, 20)  # the soft edge of a brush
    expected[10:20, 5:40] = expected[30:35, :10] = True
    expected[15:25, 30:] = False
    found = work.painted({"layers": [layer]}, base, (48, 48))
    np.testing.assert_array_equal(found, expected)
    alone = work.painted({"layers": [layer]}, None, (48, 48))
    np.testing.assert_array_equal(alone, expected & ~base)
    assert work.canvas(np.zeros((1000, 3000, 3), np.uint8))["background"].shape == (
        341, 1024, 3
    )  # fmt: skip
    larger = work.painted({"layers": [layer]}, None, (96, 144))
    np.testing.assert_array_equal(larger[::2, ::3], alone)
    layer[..., 2] = 255
    for value, mask in (
        (None, None),
        ({"layers": [layer]}, base & (layer[..., 3] > 99)),
    ):
        with pytest.raises(UserError, match="nothing is marked"):
            work.painted(value, mask, (48, 48))


def test_what_is_marked_may_be_nothing():
    assert not work.marked(None, None, (4, 6)).any()
    base = np.eye(4, dtype=bool)
    found = work.marked({"layers": []}, base, (4, 4))
    np.testing.assert_array_equal(found, base)
    assert found is not base


def test_the_largest_face_is_chosen_until_another_one_is_clicked():
    left, right, small = (
        found_at(100, 400, 200), found_at(900, 200, 600), found_at(1000, 300, 100)
    )  # fmt: skip
    photo = Image.new("RGB", (2048, 1024))
    opened = faces.opened(finds(left, right, small), photo)
    assert opened.face is right and opened.number == 2 and opened.several
    # The page shows half of 2,048 pixels.
    for point, face in (
        ((100, 250), left),
        ((0, 0), left),
        ((500, 120), right),
        ((525, 175), small),  # in both boxes, but in the middle of this one
        ((1023, 511), right),
    ):
        assert opened.at(point).face is face
    # The one that was chosen stays so after an edit that moved it a little.
    moved = found_at(104, 396, 204)
    assert faces.opened(finds(moved, right), photo, before=left).face is moved
    assert faces.opened(finds(moved, right), photo, before=small).face is right
    gone = faces.opened(finds(found_at(1500, 0, 10), right), photo, before=left)
    assert gone.face is right
    alone = faces.opened(finds(left), photo)
    assert (alone.face, alone.number, alone.several) == (left, None, False)
    off = faces.opened(finds(left), photo, align=False)
    assert off.faces is None and faces.aim(off) == {"align": False}
    frameless = types.SimpleNamespace(frame=None)
    assert faces.opened(frameless, photo).faces is None


def test_where_there_is_no_face_the_page_says_what_to_do():
    square, wide = (
        faces.opened(finds(), Image.new("RGB", size)) for size in ((50, 50), (90, 50))
    )
    (note,) = faces.notes(square)
    assert note == "no face was found: the middle square is taken for one"
    assert faces.aim(square) == {"align": False}
    (note,) = faces.notes(wide)
    with pytest.raises(UserError, match="untick 'Find faces'") as caught:
        faces.aim(wide)
    assert str(caught.value) == note
    assert faces.aim_at(finds(), wide, np.ones((50, 90), bool)) == {"align": False}
    faint = dataclasses.replace(found_at(0, 0, 40), score=0.4)
    (note,) = faces.notes(faces.opened(finds(faint), Image.new("RGB", (90, 50))))
    assert "faintly (score 0.40)" in note


def test_a_mask_goes_with_the_chosen_face_that_it_lies_on():
    left, right = found_at(10, 40, 60), found_at(120, 20, 100)
    model = finds(left, right)
    opened = faces.opened(model, Image.new("RGB", (300, 160)))
    chosen = opened.at((40, 70))
    assert opened.face is right and chosen.face is left

    def masked(x0, y0, x1, y1):
        mask = np.zeros((160, 300), bool)
        mask[y0:y1, x0:x1] = True
        return mask

    for mask, face in (
        (masked(20, 50, 40, 70), left),
        (masked(150, 50, 160, 60), right),  # though the other one is chosen
        (masked(280, 140, 290, 150), None),
        (masked(60, 50, 130, 60), None),
    ):
        aim = faces.aim_at(model, chosen, mask)
        assert aim == {"align": False} if face is None else aim["face"] is face
    both = found_at(30, 40, 60)  # overlaps with the first
    opened = faces.opened(finds(left, both), Image.new("RGB", (300, 160)))
    mask = masked(40, 50, 60, 70)
    for face in (left, both):
        chosen = dataclasses.replace(opened, face=face)
        assert faces.aim_at(model, chosen, mask)["face"] is face


def test_boxes_and_numbers_are_drawn_on_what_the_page_shows():
    photo = Image.new("RGB", (400, 200))
    two = found_at(20, 80, 100), found_at(250, 60, 120)
    opened = faces.opened(finds(*two), photo)
    shown = faces.outlined(opened)
    assert shown.shape == (200, 400, 3)
    blue, orange = shown[130, 20], shown[120, 250]
    assert (blue == pictures._FACE).all() and (orange == pictures._CHOSEN).all()
    other = faces.outlined(opened.at((50, 100)))
    assert (other[130, 20] == orange).all() and (other[120, 250] == blue).all()
    # Only the chosen one on the canvas, without a number; nothing where it is alone.
    canvas = faces.canvas(opened)["background"]
    assert (canvas[120, 250] == orange).all() and not canvas[:, :240].any()
    assert not canvas[:59].any() and shown[40:59].any()
    assert not faces.outlined(faces.opened(finds(two[0]), photo)).any()
    corner = pictures.outlined(
        np.asarray(photo), [(-30, -9, 20, 30), (390, 9, 430, 60)]
    )
    assert (corner[2, :5] == blue).all() and (corner[12:16, -3] == blue).all()


def test_which_face_a_request_asks_for():
    for text, face in (("", None), (None, None), (" 2 ", 2), ("all", "all")):
        assert faces.number(text) == face
    for wrong in ("0", "-1", "1.5", "both"):
        with pytest.raises(UserError, match=f"face is '{wrong}'; give a number"):
            faces.number(wrong)


def test_tokens_appear_at_the_iteration_that_drew_them():
    committed_at = np.array([[0, 1], [-1, 1]])
    after = np.arange(4 * 4 * 3, dtype=np.uint8).reshape(4, 4, 3)
    shown = [(f == after).all(-1) for f in pictures.steps(after, committed_at)]
    by_hand = ([[0, 0], [1, 0]], [[1, 0], [1, 0]], [[1, 1], [1, 1]])
    assert len(shown) == 3
    for found, cells in zip(shown, by_hand):
        np.testing.assert_array_equal(found, np.kron(cells, np.ones((2, 2))) > 0)


def test_an_edit_knows_when_its_tokens_were_committed(model, face, tmp_path):
    edit = model.edit(face, "a man", region="hair", k=4, samples=2)
    drawn = edit.committed_at >= 0
    assert drawn.shape == (8, 8) and drawn.sum() == edit.details["tokens"]
    counts = np.bincount(edit.committed_at[drawn])
    assert len(counts) == edit.details["iterations"] > 1
    assert (counts[:-1] == 4).all() and 1 <= counts[-1] <= 4
    with Image.open(work.animation(edit, tmp_path, "steps")) as moved:
        assert moved.n_frames == len(counts) + 1 and moved.size == (256, 256)
        assert moved.getexif()[0x010E] == provenance.MARKS[provenance.EDITED]
        assert provenance.read(moved)[0] == provenance.EDITED


def test_a_chain_of_edits_is_in_the_sidecar(model, face, tmp_path):
    mask = regions.region_mask("mouth", 48)
    photo, seeds = face, []
    for text in ("a man", "a woman", "a smiling man"):
        edits = work.variants(model, photo, text, mask, 2, 5, quiet, samples=1)
        seeds.append([e.details["seed"] for e in edits])
        photo = edits[1]
    assert seeds == [[5, 6]] * 3
    path = work.files(edits[1], tmp_path, "third")[2]
    chain = json.loads(pathlib.Path(path).read_text())["chain"]
    assert [step["text"] for step in chain] == ["a man", "a woman"]
    assert all(step["seed"] == 6 and "chain" not in step for step in chain)
    np.testing.assert_array_equal(work.pixels(photo), np.asarray(edits[1].image))


@pytest.mark.slow
def test_curves_end_with_the_finished_picture(model, face):
    mask = regions.region_mask("mouth", 48)
    guided = {"samples": 1, "guidance": "ascent_norm", "k": 8}
    edits = work.variants(model, face, "a man", mask, 2, 0, quiet, **guided)
    columns = work.curves(edits)
    length = edits[0].details["iterations"] + 1
    assert columns["iteration"] == [*range(length)] * 2
    assert columns["variant"] == ["seed 0"] * length + ["seed 1"] * length
    assert columns["log p(q=1)"][length - 1] == edits[0].final_log_prob
    unguided = dataclasses.replace(edits[0], itm_log_prob=())
    assert work.curves([unguided])["iteration"] == []


def test_strength_0_is_without_the_gradient_and_still_tells_the_match(model, face):
    assert work.strength(model) == 0.0
    steering = work.steering(model, 1, 0.0)
    edit = model.edit(face, "a man", region="mouth", samples=1, **steering)
    assert edit.details["decode"]["guidance"] == "none"
    assert len(edit.itm_log_prob) == edit.details["iterations"] == 1
    guided = work.steering(model, 2, 0.02)
    ascent = {"guidance": "ascent_norm", "step_size": 0.02}
    assert guided == {"cfg": 2.0, "cfg_end": None, **ascent}
    literal = api.Model(model.editor, "", DecodeConfig(guidance="literal"))
    assert work.strength(literal) == literal.decode.step_size
    assert work.steering(literal, 1, 0.02)["guidance"] == "literal"
    # Sixteen passes: a candidate costs one, two to weigh, four with the gradient's.
    assert model.default_candidates(model.decode) == 16
    assert model.default_candidates(DecodeConfig(guidance="none", cfg=2.0)) == 8
    assert model.default_candidates(literal.decode) == 4
    # Of those that are given up soon there may be more, and at most 32.
    early = DecodeConfig(guidance="none", cfg=2.0, prune_at=(0.25, 0.5))
    count = model.default_candidates(early)
    assert early.passes(count) <= 8.5 < early.passes(count + 1) and count > 20
    early = dataclasses.replace(early, prune_at=(0.01,))
    assert model.default_candidates(early) == 32


def test_one_bad_file_never_stops_the_rest(model, face, tmp_path):
    names = ("a.png", "words.png", "a.jpg", "b.png")
    for name in names:
        (tmp_path / name).write_bytes(encoded(face))
    (tmp_path / "words.png").write_text("no picture")

    def edit(data):
        calls.append(data)
        if len(calls) == 3:
            raise ZeroDivisionError("secret")
        return model.edit(data, "a man", region="hair", samples=1)

    calls = []
    sources = [tmp_path / name for name in names]
    path, report = work.edit_all(sources, edit, tmp_path, quiet)
    assert [name for name, _ in report] == list(names)
    assert "not a picture" in report[1][1] and "secret" not in report[2][1]
    with zipfile.ZipFile(path) as archive:
        assert set(archive.namelist()) == {
            *(f"{n}.{end}" for n in ("001-a", "004-b")
              for end in ("png", "strip.png", "json")),
            "report.json",
        }  # fmt: skip
        with Image.open(archive.open("001-a.png")) as picture:
            assert picture.text["Comment"] == provenance.MARKS[provenance.EDITED]
        assert json.loads(archive.read("004-b.json"))["text"] == "a man"
        assert json.loads(archive.read("report.json"))[1]["file"] == "words.png"


def test_results_of_many_photos_are_safe_from_the_sweeper(face, tmp_path):
    drawn = api.Edit(
        Image.fromarray(face), Image.fromarray(face), np.ones((48, 48), bool),
        np.zeros((2, 2), int), "", (), 0.0,
        {"edited": True, "software": "x", "seed": 0},
    )  # fmt: skip

    def edit(data):  # takes 40 minutes
        for path in tmp_path.iterdir():
            os.utime(path, (path.stat().st_mtime - 2400,) * 2)
        return drawn

    sources = [tmp_path / f"{name}.png" for name in "abcd"]
    for source in sources[:3]:
        source.write_bytes(encoded(face))
    path, report = work.edit_all(
        sources, edit, tmp_path, lambda *said: server.sweep(tmp_path, 3600)
    )
    assert [result for _, result in report[:3]] == ["seed 0"] * 3
    assert "not edited: there is no such upload" in report[3][1]  # swept before
    with zipfile.ZipFile(path) as archive:
        assert "001-a.png" in archive.namelist() and len(archive.namelist()) == 10
    assert {p.name for p in tmp_path.iterdir()} <= {"edited.zip", "b.png", "c.png"}


# With one.


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def address(model):
    with pytest.MonkeyPatch.context() as patched:
        for name in (*server.OFFLINE, "GRADIO_TEMP_DIR"):
            patched.setenv(name, "")  # is put back
        with server.serving(model, port=free_port(), max_mb=0.1) as address:
            yield address


@pytest.fixture(scope="module")
def client(address, tmp_path_factory):
    return gradio_client.Client(
        address, verbose=False, download_files=tmp_path_factory.mktemp("downloads"),
        analytics_enabled=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def photo(face, tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "me.png"
    path.write_bytes(encoded(face))
    return gradio_client.handle_file(path)


def opened(files):
    """Picture and sidecar of what an endpoint handed out."""
    picture, strip, sidecar = map(pathlib.Path, files)
    assert strip.name.endswith(".strip.png")
    with Image.open(picture) as image:
        assert image.text["Comment"] == provenance.MARKS[provenance.EDITED]
        return np.asarray(image), json.loads(sidecar.read_text())


def test_the_api_is_these_verbs(client):
    named = client.view_api(return_format="dict")
    assert set(named["named_endpoints"]) == {
        "/edit", "/inpaint", "/move", "/propose", "/restore", "/stitch", "/tag"
    }  # fmt: skip
    assert not named["unnamed_endpoints"]


def test_edits_of_the_api_are_those_of_python(client, model, face, photo):
    proposed = client.predict(photo, "a hat", area=0.3, api_name="/propose")
    mask = np.asarray(Image.open(proposed))[..., 0] == 255
    np.testing.assert_array_equal(mask, model.propose(face, "a hat", area=0.3))
    options = {"k": 32, "seed": 7, "samples": 1}
    marked = gradio_client.handle_file(proposed)
    files = client.predict(photo, "a hat", marked, "", **options, api_name="/edit")
    pixels, sidecar = opened(files)
    same = model.edit(face, "a hat", mask, **options, trace=True)
    np.testing.assert_array_equal(pixels, np.asarray(same.image))
    expected = json.loads(json.dumps({"file": "edited.png", **same.details}))
    assert sidecar | {"date": ""} == expected | {"date": ""}
    plain = {"k": 64, "samples": 1, "api_name": "/edit"}
    files = client.predict(photo, "a hat", None, "hair", **plain)
    assert opened(files)[1]["mask"]["region"] == "hair"
    filled = client.predict(photo, None, "hair", k=64, api_name="/inpaint")
    pixels, _ = opened(filled)
    same = model.inpaint(face, region="hair", k=64)
    np.testing.assert_array_equal(pixels, np.asarray(same.image))
    # What an uploaded photo says of itself goes on.
    again = gradio_client.handle_file(files[0])
    files = client.predict(again, "a man", None, "mouth", **plain)
    assert [step["text"] for step in opened(files)[1]["chain"]] == ["a hat"]


def test_the_api_turns_attributes_up_and_down(client, model, face, photo):
    turned = {"Smiling": 4, "Wearing_Hat": -2}
    rest = {"k": 64, "seed": 3, "align": False, "api_name": "/edit"}
    files = client.predict(photo, "", None, "", strength=turned, **rest)
    pixels, sidecar = opened(files)
    same = model.edit(face, strength=turned, k=64, seed=3, align=False)
    np.testing.assert_array_equal(pixels, np.asarray(same.image))
    assert (sidecar["strength"], sidecar["mask"]["region"]) == (turned, "mouth+hat")
    for wrong, said in (
        ({"Smiling": 5}, "use -4 to 4"),
        ({"Grin": 1}, "no strength of 'Grin'"),
        ("2", "strength is '2'; give"),
        (1.5, "a number from 0 to 1"),
    ):
        with pytest.raises(Exception, match=said):
            client.predict(photo, "", None, "", strength=wrong, **rest)


def test_a_strength_may_be_that_of_the_guidance():
    """As in requests of before there were strengths of attributes."""
    assert work.strengths(0.02) == (None, 0.02) and work.strengths(0) == (None, 0.0)
    assert work.strengths(None) == work.strengths({}) == (None, None)
    assert work.strengths({"Male": 1}) == ({"Male": 1}, None)
    for wrong in (True, -0.1, [1]):
        with pytest.raises(UserError, match="strength is"):
            work.strengths(wrong)


@pytest.mark.slow
def test_the_api_edits_the_face_that_is_asked_for(client, model, tmp_path, monkeypatch):
    monkeypatch.setattr(model, "frame", np.array(two_faces.FRAME))
    two_faces.photo().save(tmp_path / "couple.jpg", quality=95)
    photo = gradio_client.handle_file(tmp_path / "couple.jpg")
    rest = {"k": 64, "samples": 1, "api_name": "/edit"}

    def edited(**which):
        files = client.predict(photo, "a man", None, "mouth", **rest, **which)
        return opened(files)[1]

    squares = edited(face="all")["squares"]
    assert [s["crop"][0] < 125 for s in squares] == [True, False]
    for which, square in (({}, 1), ({"face": "2"}, 1), ({"face": "1"}, 0)):
        found = edited(**which)
        assert found["squares"] == squares[square : square + 1], which
    assert "upright" not in edited(align=False)
    left = client.predict(photo, "a hat", area=0.3, face=1, api_name="/propose")
    assert not np.asarray(Image.open(left))[:, 225:].any()
    first, second, plain = (
        client.predict(photo, 3, 0, *which, api_name="/tag")["data"]
        for which in ((1,), (2,), (0, False))
    )
    assert first != second and plain not in (first, second)
    for which, said in (({"face": "3"}, "2 were found"), ({"face": "x"}, "number")):
        with pytest.raises(Exception, match=said):
            edited(**which)


def test_what_a_request_leaves_out_is_as_the_page_begins(address, face):
    """Requests of before there were arguments of faces are understood."""
    files = {"files": ("x.png", encoded(face))}
    (path,) = httpx.post(f"{address}gradio_api/upload", files=files).json()
    photo = {"path": path, "meta": {"_type": "gradio.FileData"}}
    said = posted(address, photo)
    assert "event: complete" in said and "edited.strip.png" in said


def test_restoring_stitching_and_tagging(client, model, face, photo, tmp_path):
    damage = np.zeros((48, 48), np.uint8)
    damage[20:22] = 255
    (tmp_path / "damage.png").write_bytes(encoded(damage))
    marked = gradio_client.handle_file(tmp_path / "damage.png")
    _, files = client.predict(photo, marked, "both", "damage", 0, api_name="/restore")
    pixels, _ = opened(files)
    np.testing.assert_array_equal(pixels[damage == 0], face[damage == 0])
    _, files = client.predict(
        photo, photo, "horizontal", 0.5, 2, "", 3, api_name="/stitch"
    )
    assert opened(files)[1]["mask"]["seam"] == "horizontal"
    table = client.predict(photo, 3, 0, api_name="/tag")
    assert table["headers"] == ["word", "score", "probability", "match"]
    assert [row[0] for row in table["data"]] == [t.word for t in model.tag(face, 3)]


def test_errors_are_one_line(client, photo, tmp_path, capfd):
    (tmp_path / "words.png").write_text("no picture")
    words = gradio_client.handle_file(tmp_path / "words.png")
    large = tmp_path / "large.png"
    Image.new("1", (9000, 9000)).save(large)
    rest = (None, "mouth", 1, 0, 64, 0, 1)
    for given, text, said in (
        (words, "a man", "not a picture that can be read"),
        (gradio_client.handle_file(large), "a man", "pixels"),
        (photo, " ", "the text is empty"),
        (None, "a man", "there is no photo yet"),
    ):
        with pytest.raises(Exception, match=said) as caught:
            client.predict(given, text, *rest, api_name="/edit")
        assert "Traceback" not in str(caught.value) and "/" not in str(caught.value)
    for place, value, said in (
        (0, ["a woman", "blond"], r"text is \['a woman', 'blond'\]; give a text"),
        (0, None, "the text is empty; say what to see"),
        (2, 3, "region is 3; give a text"),
        (3, "x", "weight is 'x'; give a number"),
        (5, 2.5, "k is 2.5; give a whole number"),
        (7, True, "samples is True; give a whole number"),
    ):
        given = ["a man", *rest]
        given[place] = value
        with pytest.raises(Exception, match=said) as caught:
            client.predict(photo, *given, api_name="/edit")
        assert "Traceback" not in str(caught.value)
    # What is not given is what the page begins with.
    files = client.predict(
        photo, "a man", None, "mouth", None, None, None, None, 1, api_name="/edit"
    )
    details = opened(files)[1]
    assert (details["seed"], details["decode"]["k"]) == (0, 64)


def posted(address, photo) -> str:
    """What the API says to an edit of a photo of these file data."""
    body = {"data": [photo, "a man", None, "mouth", 1, 0, 64, 0, 1]}
    where = f"{address}gradio_api/call/edit"
    event = httpx.post(where, json=body).json()["event_id"]
    return httpx.get(f"{where}/{event}", timeout=60).text


def test_no_path_of_a_request_is_opened(address, root):
    marked = {"meta": {"_type": "gradio.FileData"}}
    for path in ("/etc/passwd", "pyproject.toml", str(root / "pyproject.toml")):
        content = pathlib.Path(path).read_text()[:20]
        for data in (
            {"path": path, **marked},
            {"path": path, "is_stream": True, **marked},
            {"path": path},
            path,
        ):
            said = posted(address, data)
            assert "event: error" in said and "not a picture" not in said
            assert content not in said and '"error": null' not in said
        answer = httpx.get(f"{address}gradio_api/file={path}")
        assert answer.status_code in (403, 404) and content not in answer.text


def test_nothing_is_fetched_for_a_request(address, monkeypatch):
    from gradio import processing_utils

    def fetch(*args, **kwargs):
        raise AssertionError("fetched")

    for name in ("async_ssrf_protected_download", "async_ssrf_protected_get"):
        monkeypatch.setattr(processing_utils, name, fetch)
    link = "https://example.com/face.png"
    data = {"path": link, "url": link, "meta": {"_type": "gradio.FileData"}}
    assert "a link is no upload" in posted(address, data)
    for name in ("file", "proxy"):
        answer = httpx.get(f"{address}gradio_api/{name}={link}")
        assert answer.status_code == 403


def test_an_unexpected_failure_is_told_without_its_words(
    address, photo, model, monkeypatch
):
    def edit(*given, **options):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(model, "edit", edit)
    with open(photo["path"], "rb") as data:
        (path,) = httpx.post(
            f"{address}gradio_api/upload", files={"files": ("a.png", data)}
        ).json()
    said = posted(address, {"path": path, "meta": {"_type": "gradio.FileData"}})
    assert "an unexpected failure" in said and "secret" not in said
    pathlib.Path(path).unlink()
    said = posted(address, {"path": path, "meta": {"_type": "gradio.FileData"}})
    assert "there is no such upload" in said


def test_uploads_have_a_limit(address):
    for size, status in ((1000, 200), (200_000, 413)):
        files = {"files": ("x.png", bytes(size))}
        answer = httpx.post(f"{address}gradio_api/upload", files=files)
        assert answer.status_code == status
    where = f"{address}gradio_api/call/edit"
    assert httpx.post(where, json={"data": ["x" * 200_000]}).status_code == 413
    parts = (b"x" for _ in range(3))  # of no stated length
    assert httpx.post(where, content=parts).status_code == 413


def test_nothing_passes_the_queue_or_the_limit_by(address):
    url = f"{address}gradio_api/run/edit"
    assert httpx.post(url, json={"data": []}).status_code >= 400
    for path in ("run/upload", "call/upload"):
        answer = httpx.post(f"{address}gradio_api/{path}", content=bytes(200_000))
        assert answer.status_code == 413


def test_files_go_after_an_hour(tmp_path):
    names = ("old/deep/a.png", "old/new.png", "new/a.png", "empty/")
    for name in names:
        path = tmp_path / name
        (path if name.endswith("/") else path.parent).mkdir(parents=True, exist_ok=True)
        if not name.endswith("/"):
            path.touch()
    for name in ("old/deep/a.png", "old/deep", "old", "empty"):
        os.utime(tmp_path / name, (0, 0))
    server.sweep(tmp_path, 3600)
    left = {str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*")}
    assert left == {"old", "old/deep", "old/new.png", "new", "new/a.png"}
    server.sweep(tmp_path, -1)  # all that is there, and then the folders
    server.sweep(tmp_path, -1)
    assert not list(tmp_path.iterdir())


def test_the_command_listens_here_and_leaves_nothing(
    tiny, gptface_command, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setattr(signal, "signal", lambda *given: None)
    for name in (*server.OFFLINE, "GRADIO_TEMP_DIR"):
        monkeypatch.setenv(name, "")
    seen = []

    def wait():
        (address,) = re.findall(r"http://127\.0\.0\.1:\d+/", capsys.readouterr().out)
        files = {"files": ("x.png", b"precious")}
        httpx.post(f"{address}gradio_api/upload", files=files)
        seen.extend(tmp_path.rglob("x.png"))
        assert os.environ["HF_HUB_OFFLINE"] == "1"
        assert os.environ["GRADIO_ANALYTICS_ENABLED"] == "False"
        page = httpx.get(address).text
        assert "Faces are personal" in page and "stylesheet" in page
        taken = address.rsplit(":", 1)[1].rstrip("/")
        assert run("--port", taken) == 2
        assert f"port {taken} of 127.0.0.1" in capsys.readouterr().err
        raise KeyboardInterrupt

    def run(*arguments):
        return gptface_command("serve", "--model", tiny / "model", *arguments)

    monkeypatch.setattr(serve, "wait", wait)
    assert run("--port", free_port()) == 130
    assert len(seen) == 1 and not list(tmp_path.iterdir())
    # What the process had it has again.
    assert os.environ["HF_HUB_OFFLINE"] == os.environ["GRADIO_TEMP_DIR"] == ""
    for wrong in ("--max-mb", "--concurrency", "--port"):
        assert run(wrong, 0) == 2
        assert "is 0" in capsys.readouterr().err
