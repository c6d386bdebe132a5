"""The StableHLO program: the edits of the library, without its code."""

import importlib.util
import json
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import gptface_jax
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.pipelines import provenance
from gptface_jax.pipelines.editor import Request

# Runs edit.py's Editor where this package cannot be imported.
ALONE = """
import sys
sys.modules["gptface_jax"] = None
folder, given, out = sys.argv[1:]
sys.path.insert(0, folder)
import edit, numpy as np
x = np.load(given)
found = edit.Editor()(x["images"], x["masks"], list(x["texts"]), x["seeds"])
np.savez(out, **found)
assert not any(name.startswith("gptface_jax.") for name in sys.modules)
"""


@pytest.fixture(scope="module")
def folder(tiny, tmp_path_factory, gptface_command):
    out = tmp_path_factory.mktemp("program") / "out"
    options = ("--batch-size", 2, "--samples", 2, "--decode", "k=24", "--out", out)
    model = ("--model", tiny / "model")
    assert gptface_command("export", "--format", "stablehlo", *model, *options) == 0
    return out


@pytest.mark.slow
def test_it_edits_as_the_library_does(folder, tmp_path):
    import jax

    model = gptface_jax.load(folder)  # still a model directory
    size = model.editor.size
    faces = SyntheticFaces(size=size, count=2, seed=3)
    images = np.stack([faces[i].image for i in range(2)])
    masks = np.zeros((2, size, size), bool)
    masks[0, 4:11, 3:20], masks[1, 14:30, 9:13] = True, True
    texts = ["a man smiling", "a [MASK] woman"]
    given = {"images": images, "masks": masks, "texts": texts, "seeds": [3, 4]}
    np.savez(tmp_path / "given.npz", **given)
    command = [sys.executable, "-c", ALONE, str(folder), str(tmp_path / "given.npz"),
               str(tmp_path / "out.npz")]  # fmt: skip
    subprocess.run(command, check=True, env={**os.environ, "PYTHONPATH": ""})
    found = np.load(tmp_path / "out.npz")
    config = model.decode_config({"k": 24})
    answers = model.editor.answer(
        [
            Request(images[i], masks[i], texts[i], config, jax.random.key(3 + i), 2)
            for i in range(2)
        ]
    )
    for i, answer in enumerate(answers):
        levels = answer.images.astype(int) - found["images"][i]
        assert np.abs(levels).max() <= 1  # rounded from other last digits
        np.testing.assert_allclose(
            answer.final_log_prob, found["final_log_prob"][i], rtol=1e-4
        )
        np.testing.assert_allclose(
            answer.itm_log_prob, found["itm_log_prob"][i], rtol=1e-4
        )


@pytest.mark.slow
def test_its_script_edits_a_photo(folder, tmp_path):
    face = SyntheticFaces(size=64, count=1, seed=4)[0].image
    photo = np.concatenate([face, face[:, :20]], 1)
    mask = np.zeros(photo.shape[:2], np.uint8)
    mask[40:56, 30:60] = 255
    Image.fromarray(photo).save(tmp_path / "a.png")
    Image.fromarray(mask).save(tmp_path / "m.png")
    out = tmp_path / "new" / "folder" / "b.png"
    command = ["--image", "a.png", "--mask", "m.png", "--text", "a man", "--out", out]
    command = [sys.executable, folder / "edit.py", *command]
    subprocess.run(command, check=True, cwd=tmp_path)
    assert {p.name for p in out.parent.iterdir()} == {"b.png", "b.json"}
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert again.returncode == 2 and "b.png exists" in again.stderr
    edited = Image.open(out)
    assert "generative" in edited.text["Comment"]
    details = json.loads(out.with_suffix(".json").read_text())
    assert details == json.loads(edited.text["gptface_jax"])
    assert details["model"] == gptface_jax.load(folder).digest
    assert details["decode"]["k"] == 24 and details["samples"] == 2
    assert details["text"] == "a man" and details["mask"] == {"file": "m.png"}
    assert provenance.read_sidecar(out) == details
    assert provenance.read(edited)[0] == provenance.EDITED
    changed = (np.asarray(edited) != photo).any(-1)
    assert changed.any() and not changed[mask == 0].any()


@pytest.fixture
def script(folder, monkeypatch):
    """edit.py as a module; its program is not loaded."""
    spec = importlib.util.spec_from_file_location("edit", folder / "edit.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "Editor", lambda: pytest.fail("loaded too early"))
    return module


def test_its_script_refuses_what_is_no_mask_before_it_loads_the_program(
    script, tmp_path, monkeypatch, capsys
):
    face = SyntheticFaces(size=64, count=1, seed=4)[0].image
    Image.fromarray(face).save(tmp_path / "a.png")
    holed = np.dstack([face, np.full((64, 64), 255, np.uint8)])
    holed[20:30, 20:30, 3] = 0
    masks = {"tones": face, "hole": holed, "ones": np.eye(64, dtype=np.uint8)}
    for name, mask in masks.items():
        Image.fromarray(mask).save(tmp_path / f"{name}.png")
    (tmp_path / "file.png").write_text("")
    monkeypatch.chdir(tmp_path)
    for image, mask, out, said in (
        ("a.png", "tones.png", "b.png", "tones.png is transparent or of many tones"),
        ("a.png", "hole.png", "b.png", "hole.png is transparent or of many tones"),
        ("a.png", "ones.png", "b.png", "ones.png marks nothing"),
        ("a.png", "none.png", "b.png", "No such file"),
        ("file.png", "ones.png", "b.png", "cannot identify"),
        ("a.png", "ones.png", "b.jpg", "must end in .png"),
    ):
        command = ["edit.py", "--image", image, "--mask", mask, "--out", f"new/{out}"]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit):
            script.main()
        assert said in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_its_script_writes_both_files_or_none(script, tmp_path, monkeypatch):
    picture, out = Image.new("RGB", (4, 4)), tmp_path / "b.png"
    sidecar = tmp_path / "b.json"

    def full(*_, **__):
        raise OSError("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", full)
        with pytest.raises(OSError, match="No space"):
            script.save_together(out, sidecar, picture, None, {"a": 1})
    assert not list(tmp_path.iterdir())
    script.save_together(out, sidecar, picture, None, {"a": 1})
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b.json", "b.png"]
    assert json.loads(sidecar.read_text()) == {"a": 1}


def test_options_that_make_no_sense(tiny, tmp_path, gptface_command, capsys):
    command = ("export", "--format", "stablehlo", "--out", tmp_path / "x")
    for wrong, said in (
        ((), "--model is missing"),
        (("--model", "demoo"), "did you mean 'demo'"),
        (("--model", "demo", "--platforms", "cpu,gpu"), "platform 'gpu' is none of"),
        (("--model", "demo", "--samples", 0), "samples 0; use 1"),
        (("--model", "demo", "--dtype", "float32"), "--dtype does not go"),
        (("--model", "demo", "--decode", "kk=2"), "did you mean 'k'"),
    ):
        assert gptface_command(*command, *wrong) == 2
        assert said in capsys.readouterr().err
    assert not (tmp_path / "x").exists()
