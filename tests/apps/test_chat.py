"""Answers that end in heads: appended where missing, as files, from a directory."""

import json

import numpy as np
import pytest
import tiny_face3d

import gptface_jax
from gptface_jax.apps.face3d_api import Chat
from gptface_jax.cli.main import main
from gptface_jax.core.config import to_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.core.version import __version__
from gptface_jax.data import label_sets
from gptface_jax.data.facemodel import opening
from gptface_jax.data.task_examples import TaskOptions
from gptface_jax.experiments import talk2face
from gptface_jax.experiments.facegpt import FACE_MODEL
from gptface_jax.interop import directory
from gptface_jax.systems.facegpt import spoken
from gptface_jax.systems.facegpt.coefficients import ENTRIES

PHOTO = np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)


@pytest.fixture(scope="module")
def model():
    return tiny_face3d.saying(tiny_face3d.chat(Chat), 1.0)


def test_an_answer_and_the_head_that_it_ends_in(model, tmp_path):
    found = model.ask_with_head(PHOTO, "is she happy? expression", align=False)
    assert found.answer.question == "rendered expression"
    assert 0 < found.answer.confidence <= 1 and 0 < found.head_confidence <= 1
    path, *_, said = found.save(tmp_path / "face.glb")
    said = json.loads(said.read_text())
    assert path.is_file() and said["answer"] == found.answer.text
    assert said["face_tokens_missing"] == found.missing
    assert said["confidence"] == found.answer.confidence
    assert {*said["coefficients"]} == {*ENTRIES.values()}
    assert all(0 < value < 10 for value in said["uncertainty"].values())
    sentence = model.ask_with_head(PHOTO, align=False)
    assert sentence.answer.question == "description"
    assert sentence.answer.text and sentence.answer.value == sentence.answer.text


def test_heads_follow_the_pictures_and_not_their_batch_mates(model):
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 8, (8, np.prod(model.sequences.grid)))
    found, alone = (model.answers_about(some) for some in (codes, codes[3:4]))
    assert len(np.unique(found.head_confidence.round(6))) > 4
    np.testing.assert_allclose(found.head_confidence[3], alone.head_confidence[0], 1e-5)
    pose = found.coeffs["pose"]
    np.testing.assert_allclose(pose[3], alone.coeffs["pose"][0], atol=1e-5)
    # The mean of several heads that differ.
    assert all((value > 0).any() for value in found.deviations.values())
    assert found.answers[3].text == alone.answers[0].text


@pytest.mark.parametrize("question", ["", "expression"])
def test_a_missing_head_is_appended_and_counted(model, question):
    """Weights that never say face tokens, those that always do, and those that end."""
    for begin, end, missing in ((-100, 0, True), (100, 0, False), (-100, 100, True)):
        other = tiny_face3d.saying(model, begin, end)
        found = other.ask_with_head(PHOTO, question, align=False)
        assert found.missing == missing
        assert ("was appended" in str(found)) == missing
        assert found.head.details["face_tokens_missing"] == missing
        assert np.isfinite(found.head.vertices).all()
        if begin > 0 or end > 0:
            assert found.answer.text == ""  # nothing but the head


def test_heads_are_what_their_codes_mean(model):
    rng = np.random.default_rng(1)
    sizes = {"id_coeffs": (40,), "exp_coeffs": (53,), "albedo_coeffs": (24,),
             "sh_light": (9, 3), "pose": (6,)}  # fmt: skip
    coeffs = {n: np.float32(rng.normal(size=(2, *s))) for n, s in sizes.items()}
    params = model.network.params
    tokens = np.array(spoken.tokens_of(model.module, params, coeffs))
    bounds = np.array(spoken.ranges(model.network.config))
    assert ((tokens >= bounds[:, 0]) & (tokens < bounds[:, 1])).all()
    assert tokens.shape == (2, 11)
    heads = spoken.coefficients_of(model.module, params, tokens)
    again = np.asarray(spoken.tokens_of(model.module, params, heads))
    assert {n: v.shape[1:] for n, v in heads.items()} == sizes
    assert (again[:, 0] == model.network.config.vocab.size).all()
    # Another first code of identity is another person, with the rest as it was.
    tokens[:, 1] = bounds[1, 0] + (tokens[:, 1] - bounds[1, 0] + 1) % 8
    other = spoken.coefficients_of(model.module, params, tokens)
    assert not np.allclose(other["id_coeffs"], heads["id_coeffs"])
    for name in sizes.keys() - {"id_coeffs"}:
        np.testing.assert_array_equal(other[name], heads[name])


def test_bad_input(model, tmp_path, capsys):
    with pytest.raises(UserError, match="not trained to answer 'shoes'"):
        model.ask_with_head(PHOTO, "shoes", align=False)
    with pytest.raises(UserError, match="tokens, and with its answer there is room"):
        model.ask_with_head(PHOTO, "hair and " * 60 + "eyes:", align=False)
    with pytest.raises(UserError, match="give one of system chat"):
        tiny_face3d.other().ask_with_head(PHOTO)
    head = ["ask", "--head", str(tmp_path / "face.glb")]
    for arguments, said in (
        ([*head, "--all"], "--head goes with one --question or none, not with --all"),
        ([*head, "--question", "a", "--question", "b"], "not with several questions"),
        (["ask", "--head", "face.stl", "--image", "x.jpg"], "use .glb or .obj"),
        (head, "--image is missing"),
    ):
        assert main(arguments) == 2
        assert said in capsys.readouterr().err


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    """A model directory, as `gptface export` writes it."""
    out = tmp_path_factory.mktemp("chat") / "model"
    networks = {"vqgan": model.vqgan.network, "chat": model.network}
    table = {"rendered": label_sets.TABLE["rendered"]}
    directory.write(
        out,
        {"library_version": __version__,
         **{name: to_mapping(n.config) for name, n in networks.items()}},
        {name: n.params for name, n in networks.items()},
        {
            "vocab.txt": model.tokenizer.vocab_text().encode(),
            FACE_MODEL: opening.packed(model.face_model, opening.PROCEDURAL, 300),
            talk2face.LABEL_SETS: talk2face.learnt_labels(
                table, TaskOptions(name_data_sets=False)
            ),
        },
        "float32",
    )  # fmt: skip
    return out


@pytest.mark.slow
def test_a_model_directory_is_all_that_it_was_trained_as(model, folder, tmp_path):
    opened = gptface_jax.load(folder)
    assert isinstance(opened, Chat) and opened.learnt == model.learnt
    one, two = (m.ask_with_head(PHOTO, "hair", align=False) for m in (model, opened))
    assert one.answer == two.answer and one.missing == two.missing
    np.testing.assert_array_equal(one.head.coeffs["pose"], two.head.coeffs["pose"])
    # A Talk2Face, a FaceGPT and a GPTFace of the same weights.
    assert opened.ask(PHOTO, "hair", align=False).value in ("black", "blond", "brown",
                                                            "gray", "red")  # fmt: skip
    assert opened.face3d(PHOTO, align=False).coeffs["pose"].shape == (6,)
    for name, method in (("facegpt", "face3d"), ("talk2face", "ask")):
        assert hasattr(type(gptface_jax.load(folder, system=name)), method)
    (folder / talk2face.LABEL_SETS).rename(tmp_path / "labels")
    with pytest.raises(UserError, match="export the model again"):
        gptface_jax.load(folder)
    (tmp_path / "labels").rename(folder / talk2face.LABEL_SETS)


def test_the_command_writes_head_and_answer(folder, tmp_path, capsys):
    from PIL import Image

    Image.fromarray(PHOTO).save(tmp_path / "photo.png")
    arguments = ["--model", folder, "--image", tmp_path / "photo.png", "--no-align"]
    more = ["--question", "hair", "--head", tmp_path / "face.obj", "--json",
            tmp_path / "found.json"]  # fmt: skip
    assert main(["ask", *map(str, [*arguments, *more])]) == 0
    said = capsys.readouterr().out
    assert "rendered hair:" in said and "head: 0." in said and "face.obj" in said
    found = json.loads((tmp_path / "found.json").read_text())["found"][0]
    assert found["question"] == "rendered hair" and "coefficients" in found
    assert found == json.loads((tmp_path / "face.json").read_text())
