"""A FaceGPT from its training run to heads as files; and with networks made here."""

import dataclasses
import io
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import tiny_face3d

import gptface_jax
from gptface_jax.apps.face3d_api import FaceGPT
from gptface_jax.cli.main import main
from gptface_jax.core import trees
from gptface_jax.core.config import load_config
from gptface_jax.core.errors import UserError
from gptface_jax.data.facemodel import open_model, opening
from gptface_jax.experiments import base, facegpt, gptface_run
from gptface_jax.experiments import opening as networks
from gptface_jax.pipelines import faces3d, upright
from gptface_jax.systems.facegpt.coefficients import FacesConfig
from gptface_jax.systems.facegpt.predict import SampleConfig


@pytest.fixture(scope="module")
def model():
    return tiny_face3d.opened(FaceGPT)


PHOTO = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)


def test_a_photo_becomes_a_head(model, tmp_path):
    head = model.face3d(PHOTO, align=False)
    assert head.coeffs["id_coeffs"].shape == (40,) and head.photo is not None
    np.testing.assert_array_equal(
        head.coeffs["pose"], model.face3d(PHOTO, align=False).coeffs["pose"]
    )
    other = model.face3d(PHOTO[::-1].copy(), align=False)
    assert not np.allclose(head.coeffs["id_coeffs"], other.coeffs["id_coeffs"])
    paths = head.save(tmp_path / "face.glb")
    assert [p.suffix for p in paths] == [".glb", ".png", ".png", ".json"]
    said = json.loads(paths[-1].read_text())
    assert said["model"] == model.digest and 0 < said["uncertainty"]["id"]


def test_a_photo_with_a_text_is_a_guess_where_it_was_not_trained(model):
    with pytest.warns(UserWarning, match="not trained on a photo and a text together"):
        model.face3d(PHOTO, text="happy", align=False)
    network = model.network
    trained = FaceGPT(
        network, model.vqgan, model.tokenizer, model.face_model, with_text=0.3
    )
    assert trained.face3d(PHOTO, text="happy", align=False).details["notes"] == []


def test_a_text_becomes_a_head_and_seeds_others(model):
    one = model.face3d(text="happy")
    np.testing.assert_allclose(one.coeffs["pose"][:5], 0)
    assert one.view is None and one.details["text"] == "happy"
    drawn = [model.face3d(text="happy", seed=s).coeffs["id_coeffs"] for s in (1, 1, 2)]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.allclose(drawn[0], drawn[2])
    cold = model.face3d(text="happy", seed=1, temperature=0)
    np.testing.assert_allclose(
        cold.coeffs["id_coeffs"], one.coeffs["id_coeffs"], atol=1e-5
    )


@pytest.mark.parametrize(
    "scheme", ["grouped", pytest.param("discrete", marks=pytest.mark.slow)]
)
def test_parts_of_a_head_stay_and_the_rest_follows_the_text(scheme, tmp_path):
    model = tiny_face3d.opened(FaceGPT, scheme)
    head = model.face3d(PHOTO, align=False)
    rng = np.random.default_rng(1)
    other = head.changed(
        id_coeffs=rng.normal(0, 1, 40), albedo_coeffs=rng.normal(0, 1, 24)
    )
    plain = model.face3d(text="angry")
    kept = model.face3d(text="angry", like=other)
    if scheme == "grouped":  # what is kept is certain
        assert {*plain.details["uncertainty"]} == {"id", "exp", "albedo"}
        assert {*kept.details["uncertainty"]} == {"exp"}
    for name in ("id_coeffs", "albedo_coeffs"):
        np.testing.assert_allclose(kept.coeffs[name], other.coeffs[name], atol=1e-6)
    np.testing.assert_array_equal(kept.coeffs["pose"], plain.coeffs["pose"])
    # Codes of what is kept are seen; a token a group sees none of the others.
    same = np.allclose(kept.coeffs["exp_coeffs"], plain.coeffs["exp_coeffs"])
    assert same == (scheme == "grouped")
    drawn = model.face3d(text="angry", seed=1, like=other, keep=["pose", "expression"])
    for name in ("pose", "exp_coeffs"):
        np.testing.assert_allclose(drawn.coeffs[name], other.coeffs[name], atol=1e-5)
    assert not np.allclose(drawn.coeffs["id_coeffs"], other.coeffs["id_coeffs"])
    path = other.save(tmp_path / "face.glb")[-1]
    again = model.face3d(text="angry", like=path)
    np.testing.assert_allclose(again.coeffs["id_coeffs"], kept.coeffs["id_coeffs"])


def test_heads_that_cannot_be_kept(model, tmp_path):
    head = model.face3d(text="happy")
    with pytest.raises(UserError, match="no part 'identy'.*did you mean 'identity'"):
        model.face3d(text="sad", like=head, keep=["identy"])
    with pytest.raises(UserError, match="like goes with a text alone"):
        model.face3d(PHOTO, like=head)
    small = dataclasses.replace(head, model=open_model(max_vertices=200))
    with pytest.raises(UserError, match="of face model"):
        model.face3d(text="sad", like=small)
    path = head.save(tmp_path / "face.glb")[-1]
    new, old = model.face_model.digests
    path.write_text(path.read_text().replace(new, old))  # as it was written before
    model.face3d(text="sad", like=path)
    (tmp_path / "a.json").write_text('{"coefficients": {}}')
    with pytest.raises(UserError, match="a.json' holds no head"):
        model.face3d(text="sad", like=tmp_path / "a.json")
    with pytest.raises(UserError, match="none.json' cannot be read"):
        model.face3d(text="sad", like="none.json")


def test_bad_input(model):
    with pytest.raises(UserError, match="a photo, a text or both"):
        model.face3d()
    with pytest.raises(UserError, match="seed 3 goes with a text alone"):
        model.face3d(PHOTO, seed=3, align=False)
    with pytest.raises(UserError, match="temperature is -1"):
        model.face3d(text="happy", seed=1, temperature=-1)
    with pytest.raises(UserError, match="image is 3"):
        model.face3d(3)
    with pytest.raises(UserError, match="give one of system facegpt"):
        tiny_face3d.other().face3d(PHOTO)


def test_what_would_do_nothing_is_refused(model):
    for given, said in (
        ({"temperature": 0.5}, "temperature decides .*; give a seed as well"),
        ({"seed": 1, "cfg": 2.0, "num_steps": 3}, "num_steps, cfg is of models whose"),
        ({"face": 7}, "face 7 is of a photo"),
        ({"align": False}, "align=False is of a photo"),
        ({"keep": ["nonsense"]}, r"keep \['nonsense'\] says what stays of the head"),
    ):
        with pytest.raises(UserError, match=said):
            model.face3d(text="happy", **given)
    with pytest.raises(UserError, match="temperature goes with a text alone"):
        model.face3d(PHOTO, align=False, temperature=0.5)
    with pytest.raises(UserError, match="keep goes with a text alone"):
        model.face3d(PHOTO, align=False, keep=["pose"])
    said = model.face3d(text="happy", seed=1).details["options"]
    assert said == {"temperature": 1.0}
    # Guidance away from no text is of models that were trained on none as well.
    config = SimpleNamespace(faces=FacesConfig(scheme="discrete"))
    codes = SimpleNamespace(network=SimpleNamespace(config=config), without_text=0.0)
    with pytest.raises(UserError, match="cfg is 2: .* data.captions.empty_fraction"):
        FaceGPT._used_options(codes, SampleConfig(cfg=2.0), 1)
    codes.without_text = 0.1
    assert "cfg" in FaceGPT._used_options(codes, SampleConfig(cfg=2.0), 1)


def test_edits_have_the_frame_of_their_gptface(monkeypatch):
    """And not that of the face model, in which heads are found."""
    vqgan = SimpleNamespace(codes_digest="abc", config=SimpleNamespace(factor=8))
    monkeypatch.setattr(facegpt, "_vqgan", lambda data: vqgan)
    config = load_config("configs/facegpt/faces64.py:tiny")
    data = dataclasses.replace(
        base.data_config(config),
        image_ids="cache",
        train={"rendered": {"kind": "rendered", "count": 2, "size": 32}},
        eval={},
    )
    layout = SimpleNamespace(grid=(4, 4), max_text_tokens=8)
    sizes = SimpleNamespace(layout=layout, faces=FacesConfig())
    words = SimpleNamespace(vocab_text=lambda: "[PAD]")
    files = facegpt.examples(data, words, sizes).files
    meta = {"extra_files": files}
    frame = gptface_run.learnt_frame(SimpleNamespace(meta=meta))
    np.testing.assert_allclose(frame, upright.FRAME)
    # As runs of before noted it, which so can go on.
    heads = json.loads(files["manifest.json"])["frame"]
    assert np.abs(np.array(heads) - upright.FRAME).max() > 0.01


@pytest.mark.slow
def test_codes_are_drawn_step_by_step():
    model = tiny_face3d.opened(FaceGPT, "discrete")
    one = model.face3d(text="happy")
    assert "uncertainty" not in one.details
    # What training compares with the truth.
    expected = model.module.apply(
        {"params": model.network.params}, None, model.text_ids(["happy"]),
        method="predicted",
    )  # fmt: skip
    np.testing.assert_allclose(
        one.coeffs["id_coeffs"], expected["id_coeffs"][0], atol=1e-5
    )
    drawn = [
        model.face3d(text="happy", seed=s, cfg=2.0, num_steps=3).coeffs["id_coeffs"]
        for s in (1, 1, 2)
    ]
    np.testing.assert_array_equal(drawn[0], drawn[1])
    assert not np.allclose(drawn[0], drawn[2])


def test_face_models_are_kept_and_found_again(tmp_path):
    small = open_model(max_vertices=300, num_identity=10)
    kept = opening.packed(small, opening.PROCEDURAL, 300)
    assert len(kept) < 2000
    assert opening.unpacked(kept, "here").digest == small.digest
    small.save(tmp_path / "mine.npz")
    mine = open_model(tmp_path / "mine.npz")
    whole = opening.packed(mine, str(tmp_path / "mine.npz"))
    (tmp_path / "mine.npz").unlink()
    assert opening.unpacked(whole, "here").digest == mine.digest
    with pytest.raises(UserError, match="cannot be read"):
        opening.unpacked(kept[:100], "here")
    # As files hold it that were written before names and signs counted.
    numbers = {"max_vertices": 300, "num_identity": 10}
    older, other = io.BytesIO(), io.BytesIO()
    np.savez(older, name=opening.PROCEDURAL, digest=small.digests[1], **numbers)
    assert opening.unpacked(older.getvalue(), "here").digest == small.digest
    np.savez(other, name=opening.PROCEDURAL, digest="another", **numbers)
    with pytest.raises(UserError, match="knows face model another"):
        opening.unpacked(other.getvalue(), "here")


def test_what_the_command_refuses(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for arguments, said in (
        (["--text", "happy", "--out", "face.stl"], "use .glb or .obj"),
        (["--out", str(tmp_path / "face.glb")], "--image and --text are missing"),
        (["--text", "a", "--out", str(tmp_path / "file" / "face.glb")],
         f"Not a directory '{tmp_path / 'file'}'"),
        (["--text", "a", "--like", "a/face.json", "--out", "a/face.obj"],
         "'a/face.json' would be written over"),
        (["--image", "./face.overlay.png", "--out", "face.glb"],
         "'./face.overlay.png' would be written over"),
        (["--text", "a", "--keep", "pose", "--out", "face.glb"], "--like, which is"),
    ):  # fmt: skip
        assert main(["face3d", *arguments]) == 2
        assert said in capsys.readouterr().err
    for arguments in (
        ["--image", "face.turntable.png"], ["--image", "a.png", "--json", "face.json"]
    ):  # fmt: skip
        assert main(["ask", "--head", "face.glb", *arguments]) == 2
        assert f"'{arguments[-1]}' would be written over" in capsys.readouterr().err


@pytest.mark.slow
def test_from_a_gptface_to_a_model_directory(tiny, gptface_command, tmp_path):
    """Training goes on from GPTFace's weights, which an exported model still has."""
    tokens = f"{{'kind': 'tokens', 'path': '{tiny}/tokens'}}"
    heads = "{'kind': 'rendered', 'count': 8, 'size': 32, 'max_vertices': 300}"
    steps = (
        ("train", "--quiet", "--config", "configs/facegpt/faces64.py:tiny",
         "--workdir", tmp_path / "run", "--config.total_steps=1",
         "--config.optim.peak_lr=0.0", "--config.optim.start_lr=0.0",
         "--config.optim.end_lr=0.0", "--config.optim.weight_decay=0.0",
         f"--config.init_from={tiny}/gptface", f"--config.data.tokenizer={tiny}/vqgan",
         "--config.data.image_ids=cache",
         f"--config.data.train={{'rendered': {heads}, 'pairs': {tokens}}}",
         f"--config.data.eval={{'rendered': {heads}, 'pairs': {tokens}}}"),
        ("export", "--run", tmp_path / "run", "--tokenizer", tiny / "vqgan",
         "--out", tmp_path / "model"),
        ("face3d", "--model", tmp_path / "model", "--text", "a happy person",
         "--out", tmp_path / "face.glb"),
    )  # fmt: skip
    for arguments in steps:
        assert gptface_command(*arguments) == 0, arguments
    assert (tmp_path / "face.turntable.png").is_file()
    run = gptface_jax.load(tmp_path / "run")
    assert isinstance(run, FaceGPT)
    model = gptface_jax.load(tmp_path / "model")
    assert isinstance(model, FaceGPT)
    for heads in (run, model):
        frame = faces3d.mean_frame(heads.face_model)
        np.testing.assert_allclose(heads.frame, frame, atol=1e-6)
        edits = heads.inpaint.__self__
        np.testing.assert_allclose(edits.frame, upright.FRAME, atol=1e-3)
    assert model.inpaint(PHOTO, region="random:0.4", align=False).image.size == (40, 48)
    # As a GPTFace it is what it was: nothing was learnt at a rate of 0.
    before = networks.open_network(tiny / "gptface", "gptface")
    after = networks.open_network(tmp_path / "run", "gptface")
    old, new = trees.flatten(before.params), trees.flatten(after.params)
    for name, value in old.items():
        tables = ("tokens/", "word_bag/")  # rows of new words are others
        if not name.startswith(tables):
            # But for what averaging does to the last bit.
            np.testing.assert_allclose(new[name], value, rtol=1e-6, atol=1e-9)
    known = before.config.vocab
    codes = slice(known.text_size, known.size)
    start = after.config.vocab.text_size
    moved = slice(start, start + known.codebook_size)
    np.testing.assert_allclose(
        new["tokens/embedding"][moved], old["tokens/embedding"][codes], rtol=1e-6
    )
    assert jax.tree.leaves(after.params)
