"""The bundled model: complete, small, documented, and able to edit."""

import dataclasses
import gc
import json
import socket

import jax
import numpy as np
import pytest
from PIL import Image

import gptface_jax
from gptface_jax.cli.main import main
from gptface_jax.core import trees
from gptface_jax.data import synthetic
from gptface_jax.experiments import opening
from gptface_jax.pipelines import networks
from gptface_jax.pipelines.editor import Editor


@pytest.fixture(scope="module")
def demo():
    return gptface_jax.load("demo64")


def test_it_is_small_and_documented(demo):
    folder = networks.BUNDLED / "demo64"
    sizes = [f.stat().st_size for f in folder.glob("*.safetensors")]
    assert sum(sizes) <= 24 * 2**20
    count = trees.count(demo.editor.gptface.params)
    count += trees.count(demo.editor.vqgan.network.params)
    assert count <= 12_000_000
    for said in ("research only", "Limits", "bias", "Trained on", "LFW"):
        assert said in demo.card, said
    log = (folder / "training_log.jsonl").read_text().splitlines()
    assert {json.loads(line)["run"] for line in log} == {"vqgan", "decoder", "gptface"}
    # Of this version, so that it opens without tracing what its weights should be.
    config = json.loads((folder / "config.json").read_text())
    assert config["library_version"] == gptface_jax.__version__
    again = opening.open_network("demo64", "vqgan")  # by name, as `tokenize` does
    assert again.digest == demo.editor.vqgan.network.digest
    assert config["training"]["gptface"]["total_steps"] > 1000


def test_the_text_tokenizer_opens_with_transformers(demo):
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(networks.BUNDLED / "demo64")
    ids = theirs("a woman wearing glasses", add_special_tokens=False)["input_ids"]
    ours = demo.editor.text_tokenizer.encode(["a woman wearing glasses"], 16)[0]
    assert ids == ours[: len(ids)].tolist()
    assert theirs.unk_token_id not in ids


def test_it_edits(demo):
    face = synthetic.render(synthetic.sample_factors(2026, 22), 128).image
    edit = demo.edit(face, "a woman wearing a hat", region="hat", samples=1)
    after = np.asarray(edit.image)
    np.testing.assert_array_equal(after[~edit.mask], face[~edit.mask])
    # Something else than fair hair and a green wall, and no noise either.
    change = np.abs(after.astype(int) - face)[edit.mask].mean()
    assert 10 < change < 120
    assert edit.final_log_prob > np.log(0.5)
    assert demo.editor.has_answered and gc.isenabled()  # it rested until then


@pytest.mark.slow
def test_quickstart_as_in_the_readme(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def no_network(*args):
        raise AssertionError("the quickstart needs no network")

    monkeypatch.setattr(socket.socket, "connect", no_network)
    assert main(["quickstart"]) == 0
    folder = tmp_path / "gptface-quickstart"
    edits = sorted(folder.glob("*.json"))
    assert len(edits) >= 4
    texts = {json.loads(e.read_text())["text"] for e in edits}
    assert len(texts) >= 4
    assert np.asarray(Image.open(folder / "sheet.png")).std() > 20


def test_a_kernel_of_another_device_is_not_needed(demo):
    """As trained by cuDNN or on a TPU, it edits anywhere, and keeps its digest."""
    editor = demo.editor
    config = editor.gptface.config
    layers = dataclasses.replace(config.transformer, attention="splash")
    module = type(editor.gptface.module)(
        dataclasses.replace(config, transformer=layers)
    )
    trained = dataclasses.replace(editor.gptface, module=module)
    again = Editor(editor.vqgan.network, trained, editor.text_tokenizer)
    assert again.gptface.config.transformer.attention == "auto"
    assert again.gptface.digest == editor.gptface.digest
    # What runs anywhere is left as it was trained, to the last bit.
    assert editor.on(jax.local_devices()[:1]).gptface.module == editor.gptface.module
