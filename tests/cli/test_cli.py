"""The command line: help without JAX, every verb, one clear line for bad input."""

import functools
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
import tqdm
from PIL import Image

import gptface_jax
from gptface_jax.cli import _photo, plot, serve
from gptface_jax.cli.evaluate import _shared
from gptface_jax.cli.main import VERBS, main
from gptface_jax.core.errors import UserError
from gptface_jax.systems.gptface import options


def run(*arguments):
    return main([str(a) for a in arguments])


def fresh(code: str) -> str:
    """Runs code in a new interpreter."""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return done.stdout


def test_guidance_rules_are_all_offered():
    assert _photo.GUIDANCE == options.GUIDANCE


def test_import_and_help_load_nothing_heavy():
    heavy = "{'jax', 'transformers', 'tensorflow_datasets', 'flax', 'numpy'}"
    show = f"import sys; print(sorted({heavy} & set(sys.modules)))"
    assert fresh(f"import gptface_jax; {show}").strip() == "[]"
    code = (
        "from gptface_jax.cli.main import main\n"
        "try: main(['--help'])\nexcept SystemExit as e: assert not e.code\n" + show
    )
    printed = fresh(code)
    assert printed.strip().endswith("[]")
    assert all(verb in printed for verb in VERBS)


def failing(capsys, *arguments) -> str:
    """Runs a verb that must fail, in one line; returns it."""
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and "Traceback" not in error
    assert error.startswith(f"gptface {arguments[0]}: ")
    return error


def test_wrong_config_keys(tmp_path, capsys):
    config = ("train", "--workdir", tmp_path / "run", "--config")
    tiny = "configs/vqgan/faces64.py:tiny"
    said = failing(capsys, *config, tiny, "--config.optim.peek_lr=1")
    assert "did you mean 'peak_lr'" in said
    said = failing(capsys, *config, tiny, "--config.total_stepz=1")
    assert "did you mean 'total_steps'" in said
    said = failing(capsys, *config, tiny, "--config.batch_size=many")
    assert "'many'" in said
    said = failing(capsys, *config, "configs/none.py")
    assert "does not exist" in said
    said = failing(capsys, *config, "configs/vqgan/faces64.py:huge")
    assert "'huge'" in said
    said = failing(capsys, *config, tiny, "--config.model.embed_dim=x")
    assert "embed_dim" in said
    assert not (tmp_path / "run" / "checkpoints").exists()
    with pytest.raises(SystemExit):
        run("train", "--workdir", tmp_path, "--config", tiny, "--nonsense")


def test_describe(capsys):
    exact = "--config.model.vocab.multiple_of=1"  # no rows without an id
    config = "configs/gptface/pretrain_base.py"
    assert run("describe", "--config", config, exact) == 0
    printed = capsys.readouterr().out
    # SPEC A.8: body 113.4 M; 143.6 M tied, 144.2 M with the transform head.
    assert "body (layers and final norm) 113.40 M" in printed
    assert "144.16 M" in printed
    assert run("describe", "--config", f"{config}:ff2048", exact) == 0
    printed = capsys.readouterr().out
    assert "85.07 M" in printed and "115.83 M" in printed
    assert run("describe", "--config", "configs/vqgan/taming_f16.py") == 0
    assert "73,976,707" in capsys.readouterr().out  # SPEC A.2.1: 74.0 M
    assert "either" in failing(capsys, "describe")
    said = failing(capsys, "describe", "--model", "demo", "--depth", -1)
    assert "--depth is -1" in said


@pytest.fixture(scope="module")
def photo(tmp_path_factory):
    """A photo file of odd size."""
    path = tmp_path_factory.mktemp("photo") / "photo.jpg"
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
    small.resize((120, 91)).save(path)
    return path


def test_edit_writes_three_files_and_keeps_the_rest(tiny, photo, tmp_path, capsys):
    out = tmp_path / "new.png"
    arguments = (
        "edit", "--model", tiny / "model", "--image", photo, "--region", "mouth",
        "--text", "a person smiling", "--out", out, "--seed", 3, "--samples", 2,
        "--decode", "trace=True",
    )  # fmt: skip
    assert run(*arguments) == 0
    assert "wrote" in capsys.readouterr().out
    before = np.asarray(Image.open(photo).convert("RGB"))
    picture = Image.open(out)
    after = np.asarray(picture)
    assert after.shape == before.shape
    assert "changed by a generative model" in picture.text["Comment"]
    details = json.loads((tmp_path / "new.json").read_text())
    assert details["edited"] and details["seed"] == 3
    assert details["text"] == "a person smiling"
    assert len(details["itm_log_prob"]) == details["iterations"]
    x0, y0, x1, y1 = details["crop"]
    assert (x1 - x0, y1 - y0) == (91, 91)
    from gptface_jax.data.regions import region_mask

    mask = np.zeros(before.shape[:2], bool)
    mask[y0:y1, x0:x1] = region_mask("mouth", 91)
    np.testing.assert_array_equal(after[~mask], before[~mask])
    assert (after[mask] != before[mask]).any()
    assert Image.open(tmp_path / "new.strip.png").width > 3 * 256
    assert run(*arguments) == 0  # the same seed, the same picture
    np.testing.assert_array_equal(np.asarray(Image.open(out)), after)


def test_inpaint_with_box_and_mask_file(tiny, photo, tmp_path):
    mask = np.zeros((91, 120), np.uint8)
    mask[40:60, 50:70] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    base = ("inpaint", "--model", tiny / "model", "--image", photo)
    a, b = tmp_path / "a.png", tmp_path / "b.png"
    assert run(*base, "--mask", tmp_path / "mask.png", "--out", a) == 0
    assert run(*base, "--box", "50,40,70,60", "--out", b) == 0
    np.testing.assert_array_equal(np.asarray(Image.open(a)), np.asarray(Image.open(b)))


def test_a_proposal_is_a_mask_to_go_on_with(tiny, photo, tmp_path, capsys):
    out = tmp_path / "mask.png"
    propose = (
        "edit", "--propose", "--model", tiny / "model", "--image", photo,
        "--text", "a man with glasses", "--out", out,
    )  # fmt: skip
    assert run(*propose, "--area", 0.2) == 0
    mask = np.asarray(Image.open(out).convert("L"))
    assert mask.shape == (91, 120) and set(np.unique(mask)) == {0, 255}
    assert Image.open(tmp_path / "mask.strip.png").width > 2 * 256
    assert not out.with_suffix(".json").exists()
    # It may have been corrected since.
    assert "exists and is not of an earlier edit" in failing(capsys, *propose)
    other = (*propose[:-1], tmp_path / "b.png")
    assert "--region does not go" in failing(capsys, *other, "--region", "mouth")
    model = gptface_jax.load(tiny / "model")
    same = model.propose(str(photo), "a man with glasses", area=0.2)
    np.testing.assert_array_equal(mask == 255, same)


def test_bad_edits(tiny, photo, tmp_path, capsys, monkeypatch):
    # Opened once, not thirty times.
    monkeypatch.setattr(gptface_jax, "load", functools.cache(gptface_jax.load))
    out = tmp_path / "kept.png"  # an earlier edit
    out.write_bytes(b"precious")
    out.with_suffix(".json").write_text('{"edited": true}')
    base = ("edit", "--model", tiny / "model", "--out", out)
    good = (*base, "--image", photo, "--text", "a man")
    mouth = ("--region", "mouth")
    cases = {
        "text is empty": (*base, "--image", photo, *mouth, "--text", "  "),
        "no NAME=NUMBER": (*base, "--image", photo, "--strength", "Smiling"),
        "did you mean 'Male'": (*base, "--image", photo, "--strength", "Mael=1"),
        "no word of the text": (*base, "--image", photo, *mouth, "--text", "🙂"),
        "does not exist": (*base, "--image", "no.jpg", *mouth, "--text", "a"),
        "did you mean 'mouth'": (*good, "--region", "mooth"),
        "give exactly one": (*good, *mouth, "--box", "1,1,9,9"),
        "0 of mask": ("inpaint", *base[1:], "--image", photo),
        "area is 1.5": (*good, "--area", 1.5),
        "does not fit": (*good, "--box", "0,0,500,9"),
        "four whole numbers": (*good, "--box", "1,2,three"),
        "covers the whole": (*good, "--box", "14,0,105,91"),
        "lie outside the square": (
            *good,
            "--box",
            "0,0,40,40",
            "--crop",
            "20,0,110,90",
        ),
        "give a square": (*good, *mouth, "--crop", "0,0,40,50"),
        "k is 0": (*good, *mouth, "--k", 0),
        "not found": ("edit", "--model", "nothing", *good[3:], *mouth),
    }
    for said, arguments in cases.items():
        assert said in failing(capsys, *arguments), said
    wrong = tmp_path / "wrong.png"
    Image.new("L", (5, 5), 255).save(wrong)
    assert "5 x 5 and the photo 120 x 91" in failing(capsys, *good, "--mask", wrong)
    Image.new("L", (120, 91)).save(wrong)
    assert "marks nothing" in failing(capsys, *good, "--mask", wrong)
    assert "--out is" in failing(capsys, *good, *mouth, "--out", photo)
    other = tmp_path / "config.json"
    other.write_text("{}")
    said = failing(capsys, *good, *mouth, "--out", other.with_suffix(".png"))
    assert "not of an earlier edit" in said and other.read_text() == "{}"
    pixel = tmp_path / "pixel.png"
    Image.new("RGB", (1, 1)).save(pixel)
    said = failing(capsys, *base, "--image", pixel, "--text", "a man", *mouth)
    assert "give a larger photo" in said
    assert "seed is -1" in failing(capsys, *good, *mouth, "--seed", -1)
    assert out.read_bytes() == b"precious"
    long = ("edit", "--model", tiny / "model", "--image", photo, *mouth,
            "--guidance", "none", "--k", 64, "--out")  # fmt: skip
    new = tmp_path / "long.png"
    assert run(*long, new, "--text", "a smiling man " * 3000) == 0
    assert "cut to its first" in capsys.readouterr().out
    # A folder that is missing is made.
    made = tmp_path / "no" / "x.png"
    assert run(*long, made, "--text", "a man") == 0 and made.is_file()
    assert "Not a directory" in failing(capsys, *long, photo / "x.png")
    assert "write a .png" in failing(
        capsys, *long, tmp_path / "x.txt", "--text", "a man"
    )


def test_model_directories_that_are_not(tiny, tmp_path, capsys):
    photo = ("--image", "x.jpg", "--region", "mouth", "--out", "y.png")
    arguments = (*photo, "--text", "a man")

    def said(model):
        return failing(capsys, "edit", "--model", model, *arguments)

    (tmp_path / "empty").mkdir()
    assert "no config.json" in said(tmp_path / "empty")
    assert "transformer alone" in said(tiny / "gptface")
    copy = tmp_path / "copy"
    shutil.copytree(tiny / "model", copy)
    config = json.loads((copy / "config.json").read_text())
    config["gptface"]["transformer"]["width"] = 24
    (copy / "config.json").write_text(json.dumps(config))
    assert "belongs to another model" in said(copy)
    config["gptface"]["transformer"]["num_heads"] = 5
    (copy / "config.json").write_text(json.dumps(config))
    assert "makes no sense" in said(copy)
    config["gptface"]["layout"]["grid"] = 7
    (copy / "config.json").write_text(json.dumps(config))
    assert "makes no sense" in said(copy)
    shutil.copy(tiny / "model" / "config.json", copy)
    (copy / "vqgan.safetensors").write_bytes(b"cut")
    assert "damaged" in said(copy)


def test_export_refuses_what_does_not_belong(tiny, tmp_path, capsys):
    base = ("export", "--gptface", tiny / "gptface", "--tokenizer", tiny / "vqgan")
    assert "already exists" in failing(capsys, *base, "--out", tiny / "model")
    wrong = ("export", "--gptface", tiny / "vqgan", "--tokenizer", tiny / "vqgan")
    assert "not of 'gptface'" in failing(capsys, *wrong, "--out", tmp_path / "m")
    wrong = (*base[:3], "--tokenizer", tiny / "model", "--out", tmp_path / "m")
    assert "no training run" in failing(capsys, *wrong)


def test_tokenize_and_reconstruct(tiny, tmp_path, capsys):
    out = tmp_path / "grid.png"
    arguments = ("--quiet", "--images", "synthetic", "--limit", 10)
    where = ("--tokenizer", tiny / "vqgan", "--out")
    assert run("reconstruct", *arguments, *where, out) == 0
    figures = json.loads(capsys.readouterr().out)
    assert set(figures) == {"psnr", "ssim", "codes_used", "perplexity", "num_images"}
    assert figures["num_images"] == 10 and figures["psnr"] > 5
    assert Image.open(out).width > 500
    assert run("tokenize", *arguments, "--mirror", *where, tmp_path / "tokens") == 0
    manifest = json.loads((tmp_path / "tokens" / "manifest.json").read_text())
    assert manifest["num_records"] == 20 and manifest["grid"] == [8, 8]
    assert "already holds" in failing(
        capsys, "tokenize", *arguments, *where, tmp_path / "tokens"
    )


def test_training_goes_on_where_it_stopped(tiny, tmp_path, capsys):
    base = ("train", "--quiet", "--config", "configs/vqgan/faces64.py:tiny")
    workdir = shutil.copytree(tiny / "vqgan", tmp_path / "run")
    where = ("--workdir", workdir)
    lines = (workdir / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line) for line in lines if '"loss"' in line]
    assert [r["step"] for r in losses if "grad_norm" in r] == [1, 2, 3, 4]
    assert run(*base, *where) == 0  # nothing left to do
    said = failing(capsys, *base, *where, "--config.optim.peak_lr=1.0")
    assert "peak_lr" in said


@pytest.mark.parametrize("terminal", [True, False])
def test_seconds_are_shown_on_terminals_only(terminal, monkeypatch):
    class Screen(io.StringIO):
        def isatty(self):
            return terminal

    screen = Screen()
    monkeypatch.setattr(sys, "stderr", screen)
    with pytest.raises(KeyError), _photo.elapsed_time("editing"):
        raise KeyError
    assert ("editing" in screen.getvalue()) == terminal


def test_an_error_begins_a_line_of_its_own(monkeypatch, capsys):
    """The bar that it ends is closed first."""

    def fails(options):
        for _ in tqdm.tqdm(range(2)):
            raise UserError("of no use")

    monkeypatch.setattr(plot, "run", fails)
    assert run("plot", "x") == 2
    assert capsys.readouterr().err.splitlines()[-1] == "gptface plot: of no use"


def test_a_server_ends_though_a_thread_of_it_computes(monkeypatch):
    """Its status is told at once; Python does not wait to abort within XLA."""

    def exits(status):
        raise RuntimeError(status)

    monkeypatch.setattr(os, "_exit", exits)
    monkeypatch.setattr(sys, "argv", ["gptface", "serve"])
    for ended, status in ((SystemExit(0), "0"), (KeyboardInterrupt(), "130")):
        monkeypatch.setattr(serve, "run", functools.partial(_raise, ended))
        with pytest.raises(RuntimeError, match=f"^{status}$"):
            main()


def _raise(error, options):
    raise error


def test_figures_that_are_none_are_named(capsys):
    figures = {"Male": float("nan"), "Smiling": 0.5}
    assert _shared.defined(figures) == {"Smiling": 0.5}
    assert capsys.readouterr().err.startswith("no figure for Male: ")


def test_no_verb_shows_them_and_a_wrong_word_its_nearest(capsys):
    assert main([]) == 2
    assert "quickstart" in capsys.readouterr().err
    for given, said in (
        (["edt"], "unknown verb 'edt' (did you mean 'edit'?)"),
        (
            ["edit", "--out=a.png", "--regoin=hat"],
            "'--regoin=hat' (did you mean '--region'?)",
        ),
    ):
        with pytest.raises(SystemExit) as stop:
            main(given)
        assert stop.value.code == 2 and said in capsys.readouterr().err


def test_edit_asks_for_a_text_or_strengths(capsys):
    assert main(["edit", "--image", "photo.jpg", "--out", "new.png"]) == 2
    assert "attributes by --strength" in capsys.readouterr().err
