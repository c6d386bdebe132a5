"""`gptface import` and `gptface export`: taming checkpoints there and back."""

import dataclasses
import json

import jax
import numpy as np
import pytest
import yaml

import gptface_jax
from gptface_jax.cli.main import main, verb_module
from gptface_jax.experiments import opening
from gptface_jax.interop import state_dict, taming
from gptface_jax.nn.vqgan import VQGANConfig

CONFIG = VQGANConfig(
    resolution=16, channels=32, channel_multipliers=(1, 1), num_res_blocks=1,
    attn_resolutions=(8,), z_channels=8, embed_dim=8, codebook_size=32,
)  # fmt: skip


def run(*arguments):
    return main([str(a) for a in arguments])


def failing(capsys, *arguments) -> str:
    assert run(*arguments) == 2
    error = capsys.readouterr().err.strip()
    assert "\n" not in error and "Traceback" not in error
    return error


@pytest.fixture(scope="module", params=["nearest", "gumbel"])
def checkpoint(request, tmp_path_factory):
    """(FILE.ckpt, its config); FILE.yaml is beside it."""
    config = dataclasses.replace(CONFIG, quantizer=request.param)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: rng.normal(0, 0.1, leaf.shape).astype(np.float32),
        opening.expected_shapes("vqgan", config),
    )
    path = tmp_path_factory.mktemp(request.param) / "last.ckpt"
    taming.save(path, config, params)
    return path, config


@pytest.fixture(scope="module")
def imported(checkpoint):
    """The model directory."""
    path, _ = checkpoint
    out, config = path.parent / "model", path.with_suffix(".yaml")
    assert run("import", "--format", "taming", path, "--config", config, "-o", out) == 0
    return out


def test_import_tells_what_it_found(checkpoint, tmp_path, capsys):
    path, config = checkpoint
    values = yaml.safe_load(path.with_suffix(".yaml").read_text())
    values["model"]["params"]["ddconfig"]["attn_resolutions"] = [8, 4]
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(values))
    state = state_dict.read(path)
    more = {**state, "loss.discriminator.main.0.bias": np.ones(4, np.float32)}
    state_dict.write(tmp_path / "x.safetensors", more)
    assert run(
        "import", "--format", "taming", tmp_path / "x.safetensors",
        "--config", tmp_path / "x.yaml", "--out", tmp_path / "model",
    ) == 0  # fmt: skip
    printed = capsys.readouterr().out
    assert f"matched: {len(state)} weights, 0." in printed
    assert "left aside: 1 of the discriminator" in printed
    assert "attn_resolutions 4: never met at resolution 16, as in taming" in printed
    assert f"quantizer={config.quantizer}" in printed and "codebook_size=32" in printed


@pytest.mark.slow
def test_every_verb_takes_the_directory_as_tokenizer(imported, tmp_path, capsys):
    photos = ("--quiet", "--images", "synthetic", "--limit", 3, "--tokenizer", imported)
    assert run("reconstruct", *photos, "--out", tmp_path / "grid.png") == 0
    assert json.loads(capsys.readouterr().out.splitlines()[0])["num_images"] == 3
    assert (tmp_path / "grid.png").is_file()
    assert run("tokenize", *photos, "--out", tmp_path / "tokens") == 0
    manifest = json.loads((tmp_path / "tokens" / "manifest.json").read_text())
    assert manifest["num_records"] == 3 and manifest["grid"] == [8, 8]
    digest = opening.open_network(imported, "vqgan").codes_digest
    assert manifest["tokenizer_digest"] == digest
    card = (imported / "README.md").read_text()
    assert "Imported from `last.ckpt` of taming-transformers." in card
    assert "8x8 tokens" in card


def test_there_and_back_is_the_same_file(checkpoint, imported, tmp_path, capsys):
    path, _ = checkpoint
    base = ("export", "--format", "taming", "--tokenizer", imported, "--out")
    assert run(*base, tmp_path / "back.ckpt") == 0
    assert (tmp_path / "back.ckpt").read_bytes() == path.read_bytes()
    yaml_files = tmp_path / "back.yaml", path.with_suffix(".yaml")
    assert yaml_files[0].read_text() == yaml_files[1].read_text()
    said = failing(capsys, *base, tmp_path / "back.ckpt")
    assert "already exists; choose another name" in said


def test_a_tokenizer_alone_as_a_directory(imported, tiny, tmp_path, capsys):
    base = ("export", "--tokenizer")
    again, trained = tmp_path / "again", tmp_path / "trained"
    assert run(*base, imported, "--out", again, "--dtype", "float32") == 0
    before, after = (opening.open_network(p, "vqgan") for p in (imported, again))
    assert before.digest == after.digest and after.meta["imported"]
    card = tmp_path / "card.md"
    card.write_text("mine {as it is}")
    assert run(*base, tiny / "vqgan", "--out", trained, "--card", card) == 0
    assert (trained / "README.md").read_text() == "mine {as it is}"
    assert (trained / "training_log.jsonl").read_text().startswith('{"run": "vqgan"')
    assert opening.open_network(trained, "vqgan").meta["training"]["vqgan"]["data"]
    capsys.readouterr()
    assert "holds no network 'gptface'" in failing(
        capsys, "edit", "--model", trained, "--image", "x.png", "--region", "mouth",
        "--text", "a man", "--out", tmp_path / "y.png",
    )  # fmt: skip


def test_what_taming_cannot_express_is_refused(tiny, tmp_path, capsys):
    base = ("export", "--format", "taming", "--tokenizer")
    out = ("--out", tmp_path / "x.ckpt")
    said = failing(capsys, *base, tiny / "vqgan", *out)
    assert "taming's GroupNorm has 32 groups, this VQGAN's 8" in said
    assert "not found; bundled: demo" in failing(capsys, *base, tmp_path / "none", *out)
    for option in ("--card", "--description", "--gptface", "--decode"):
        said = failing(capsys, *base, tiny / "vqgan", *out, option, "x=1")
        assert f"{option} does not go with --format taming" in said
    said = failing(
        capsys, "export", "--tokenizer", tiny / "vqgan", "--decode", "k=2",
        "--out", tmp_path / "y",
    )  # fmt: skip
    assert "give --gptface" in said
    assert not list(tmp_path.iterdir())


def test_bad_imports(checkpoint, imported, tmp_path, capsys):
    path, _ = checkpoint
    config = ("--config", path.with_suffix(".yaml"))
    base, out = ("import", "--format", "taming"), ("-o", tmp_path / "model")
    assert "does not exist" in failing(capsys, *base, tmp_path / "no", *config, *out)
    said = failing(capsys, *base, path, "--config", tmp_path / "no.yaml", *out)
    assert "no.yaml' does not exist; give the model's YAML" in said
    said = failing(capsys, *base, path, *config, "-o", imported)
    assert "already exists; choose a new folder" in said
    with pytest.raises(SystemExit):  # --config names a file; nothing can be overridden
        run(*base, path, *config, *out, "--config.ch=64")
    with pytest.raises(SystemExit):
        run("import", path, *config, *out)
    assert not list(tmp_path.iterdir())


def test_the_verb_that_python_has_as_a_word():
    assert verb_module("import").__name__ == "gptface_jax.cli.import_"
    assert verb_module("export").__name__ == "gptface_jax.cli.export"


def test_a_model_directory_gets_another_decoder(tiny, gptface_command, tmp_path):
    """The transformer and its vocabulary stay what they were, byte for byte."""
    out = tmp_path / "again"
    arguments = ("--gptface", tiny / "model", "--tokenizer", tiny / "vqgan")
    assert gptface_command("export", *arguments, "--out", out) == 0
    for name in ("gptface.safetensors", "vqgan.safetensors", "vocab.txt"):
        assert (out / name).read_bytes() == (tiny / "model" / name).read_bytes()
    before, after = (
        json.loads((folder / "config.json").read_text())
        for folder in (tiny / "model", out)
    )
    assert after["digests"] == before["digests"]
    assert after["decode"] == before["decode"]
    log = (out / "training_log.jsonl").read_text()
    assert log == (tiny / "model" / "training_log.jsonl").read_text()


def test_licence_and_sliders_of_a_model(tiny, gptface_command, tmp_path, capsys):
    """Who loads it is told once; they stay when the decoder is exchanged."""
    first, again = tmp_path / "first", tmp_path / "again"
    more = ("--license", "research only", "--attributes", "Smiling,Male")
    command = ("export", "--tokenizer", tiny / "vqgan", "--gptface")
    assert gptface_command(*command, tiny / "model", "--out", first, *more) == 0
    assert gptface_command(*command, first, "--out", again) == 0
    capsys.readouterr()
    for folder in (first, again):
        assert gptface_jax.load(folder).attributes == ("Smiling", "Male")
        gptface_jax.load(folder)
        said = capsys.readouterr().err
        assert said.count(f"{folder}: licence of the weights: research only") == 1
    bad = ("--attributes", "Smilling", "--out", tmp_path / "bad")
    assert gptface_command(*command, first, *bad) == 2
    assert "Smilling" in capsys.readouterr().err
    assert gptface_command("export", "--tokenizer", tiny / "vqgan", *bad) == 2
    assert "--attributes is for a transformer" in capsys.readouterr().err
