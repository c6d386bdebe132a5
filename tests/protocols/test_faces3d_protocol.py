"""Heads against the truth: what is equal has no error, and landmarks tell a pose."""

import dataclasses
import json
from types import SimpleNamespace

import numpy as np
import pytest
import tiny_face3d
from PIL import Image

from gptface_jax.cli.evaluate import _shared as shared_options
from gptface_jax.cli.main import main
from gptface_jax.core.errors import UserError
from gptface_jax.data.record import Record
from gptface_jax.data.rendered import RenderedFaces
from gptface_jax.pipelines import landmark_fit
from gptface_jax.pipelines.face_answers import ChatModel
from gptface_jax.pipelines.faces3d import Face3DModel
from gptface_jax.protocols import faces3d, photographed_heads


@pytest.fixture(scope="module")
def records():
    faces = RenderedFaces(size=32, count=6, seed=3, max_vertices=300)
    return [faces[i] for i in range(6)]


@pytest.fixture(scope="module")
def heads():
    return tiny_face3d.opened(Face3DModel).face_model


def test_the_truth_has_no_error(records, heads):
    truth = faces3d.truth_of(records, heads)
    found = faces3d.figures(truth, truth, heads, size=24)
    for name in ("vertex_mm", "aligned_mm", "nme", "pose_degrees"):
        assert found[name] == pytest.approx(0, abs=1e-3), name
    assert found["psnr"] == 100 and found["overlap"] == 1
    assert found["light_cosine"] == pytest.approx(1)
    assert found["id_coeffs_correlation"] == pytest.approx(1)
    each = faces3d.by_expression(truth, truth, heads)
    assert set(each) == set(heads.expression_names)
    moved = np.ptp(truth["exp_coeffs"], axis=0) > 0
    np.testing.assert_allclose([*each.values()], np.where(moved, 1, np.nan))
    mean = faces3d.figures(faces3d.mean_head(heads, 6), truth, heads, size=24)
    assert mean["vertex_mm"] > 1 and mean["pose_degrees"] > 5 and mean["psnr"] < 30


def test_a_fit_to_the_landmarks_finds_pose_and_place(records, heads):
    truth = faces3d.truth_of(records, heads)
    found = landmark_fit.fit(heads, truth["landmarks"])
    fitted = faces3d.figures(found, truth, heads, size=24)
    mean = faces3d.figures(faces3d.mean_head(heads, 6), truth, heads, size=24)
    assert fitted["nme"] < 0.03 and fitted["nme"] < 0.15 * mean["nme"]
    assert fitted["pose_degrees"] < 0.5 * mean["pose_degrees"]
    hidden = truth["landmarks"].copy()
    hidden[:, :5] = np.nan
    assert np.isfinite(landmark_fit.fit(heads, hidden)["pose"]).all()
    # Without a corner of an eye, too, by which the size of a face is known.
    hidden[:, 36] = np.nan
    without = faces3d.figures(landmark_fit.fit(heads, hidden), truth, heads, size=24)
    assert without["nme"] < 0.04


@pytest.mark.slow
def test_heads_that_answers_end_in(records):
    chat = tiny_face3d.chat(ChatModel)
    never, always = (tiny_face3d.saying(chat, begin) for begin in (-100, 100))
    for model, missing in ((never, 1), (always, 0)):
        said = faces3d.of_answers(model, records, progress=False)
        assert said.missing.mean() == missing and len(said.answers) == 6
        assert ((said.head_confidence > 0) & (said.head_confidence < 1)).all()
    truth = faces3d.truth_of(records, chat.face_model)
    found = faces3d.figures(said.coeffs, truth, chat.face_model, size=24)
    assert np.isfinite([*found.values()]).all() and found["vertex_mm"] > 1
    rest = faces3d.answering(never, records, said, progress=False)
    assert rest["sentences_missing"] == 0 and rest["hair_missing"] == 1
    assert {*rest} == {"sentences_missing", "hair_missing", "hair_right",
                       "expression_missing", "expression_right"}  # fmt: skip


def test_a_model_that_knows_nothing_yet(records, monkeypatch):
    model = tiny_face3d.opened(Face3DModel)
    found = faces3d.of_pictures(model, records, progress=False)
    assert found["id_coeffs"].shape == (6, 40)
    given, real = [], model.expected

    def expected(*ids):
        given.append(len(ids[1]))
        return real(*ids)

    monkeypatch.setattr(faces3d, "_BATCH", 6)
    monkeypatch.setattr(model, "expected", expected)
    texts = faces3d.of_texts(model, [*records, *records])
    assert given == [6] * 4  # twelve texts in batches, the words and the situations
    assert 0 <= texts["told_by_situation"] <= 1
    dumb = dataclasses.replace(model.face_model, expression_names=())
    assert faces3d.named_expressions(SimpleNamespace(face_model=dumb)) == {}
    assert 0 <= texts["id_coverage"] <= 1 and texts["by_chance"] == pytest.approx(1 / 6)
    rows = faces3d.table({"model": {"nme": 0.5}, "mean head": {"nme": 1.0}})
    assert rows == [["", "model", "mean head"], ["nme", "0.500", "1.000"]]
    with pytest.raises(UserError, match="give rendered faces"):
        faces3d.truth_of(
            [Record(image=np.zeros((8, 8, 3), np.uint8))], model.face_model
        )


def test_heads_of_photographs(astronaut):
    """A fit lies on the face's points, the mean head less so."""
    model = tiny_face3d.opened(Face3DModel)
    blank = Record(image=np.full((64, 64, 3), 90, np.uint8))
    photo = Record(image=astronaut)
    found = photographed_heads.compare(model, [photo, blank], progress=False)
    assert found.without_face == 1 and len(found.overlays) == 1
    nme = {way: figures["nme"] for way, figures in found.figures.items()}
    assert nme["landmark fit"] < 0.05 and nme["mean head"] > 1.3 * nme["landmark fit"]
    for figures in found.figures.values():
        assert 0 < figures["levels"] < 255
    square, model_s, fitted, mean = found.overlays[0]
    assert square.shape == (model.size, model.size, 3) == fitted.shape
    assert (fitted != square).any() and (fitted != mean).any()
    # The points of a record count more than those of the mesh.
    points = np.zeros((68, 2), np.float32)
    told = Record(image=astronaut, landmarks=points + np.arange(68)[:, None])
    other = photographed_heads.compare(model, [told], progress=False)
    assert other.figures["landmark fit"]["nme"] > 0.5
    with pytest.raises(UserError, match="no face was found in 1 photographs"):
        photographed_heads.compare(model, [blank], progress=False)


def test_the_command_of_photographs(tmp_path, monkeypatch, capsys, astronaut):
    (tmp_path / "photos").mkdir()
    Image.fromarray(astronaut).save(tmp_path / "photos" / "a.png")
    model = tiny_face3d.opened(Face3DModel)
    monkeypatch.setattr(shared_options, "model", lambda *_: model)
    command = ["evaluate", "faces3d", "--model", "any", "--quiet", "--images"]
    photos = [*command, str(tmp_path / "photos")]
    out = tmp_path / "found.json"
    sheet = ["--sheet", str(tmp_path / "heads.png"), "--out", str(out)]
    assert main([*photos, *sheet]) == 0
    assert "landmark fit" in capsys.readouterr().out
    with Image.open(tmp_path / "heads.png") as picture:
        assert picture.width > 3 * picture.height
    assert set(json.loads(out.read_text())["photographs"]) == {
        "model", "landmark fit", "mean head"
    }  # fmt: skip
    assert main([*photos, "--sheet", str(tmp_path / "heads.txt")]) == 2
    assert "write a .png" in capsys.readouterr().err
