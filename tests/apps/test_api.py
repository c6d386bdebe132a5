"""The Python API on the tiny model, and edits judged by a judge."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny import config as tiny_config

import gptface_jax
from gptface_jax.apps import api, quickstart
from gptface_jax.core.errors import UserError
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.pipelines import editor, pictures
from gptface_jax.systems.gptface import guidance
from gptface_jax.systems.gptface.options import DecodeConfig


@pytest.fixture(scope="module")
def face():
    return SyntheticFaces(size=48, count=4, seed=3)[2].image


def test_load_from_runs_equals_the_export(tiny, model, face):
    from_runs = gptface_jax.load(tiny / "gptface", tokenizer=tiny / "vqgan")
    assert from_runs.editor.text_tokenizer.digest == model.editor.text_tokenizer.digest
    # Stored as bfloat16: equal to about three digits.
    for name in ("vqgan", "gptface"):
        pair = [
            m.editor.gptface if name == "gptface" else m.editor.vqgan.network
            for m in (from_runs, model)
        ]
        import jax

        for a, b in zip(
            jax.tree.leaves(pair[0].params), jax.tree.leaves(pair[1].params)
        ):
            np.testing.assert_allclose(a, b, rtol=1e-2, atol=1e-6)
    with pytest.raises(UserError, match="tokenizer="):
        gptface_jax.load(tiny / "gptface")
    with pytest.raises(UserError, match="do not belong|was trained on"):
        gptface_jax.load(tiny / "gptface", tokenizer="demo")


@pytest.mark.slow
def test_editing_needs_no_library_of_data_sets(model, face, monkeypatch):
    heavy = ("transformers", "tensorflow", "tensorflow_datasets", "pyarrow")
    code = f"import sys, gptface_jax.apps.batch; print({{*{heavy}}} & {{*sys.modules}})"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "set()"
    for name in heavy:
        monkeypatch.setitem(sys.modules, name, None)  # importing it fails
    model.edit(face, "a man", region="hat", k=64, samples=1, guidance="none")


def test_a_run_that_saw_empty_texts_is_steered_without_the_gradient(tiny, model):
    run = gptface_jax.load(tiny / "gptface", tokenizer=tiny / "vqgan")
    assert (run.decode.guidance, run.decode.cfg) == ("none", 2.0)
    assert model.decode == dataclasses.replace(run.decode, cfg=1.0)  # as exported
    network = run.editor.gptface
    config = json.loads(json.dumps(network.meta["config"]))
    config["data"]["captions"]["empty_fraction"] = 0.0
    other = dataclasses.replace(network, meta={"config": config})
    assert api.learnt_options(other) == {"match_token": True}
    config["objective"]["null_fraction"] = 0.1
    assert api.learnt_options(other) == api.learnt_options(network)


def test_a_hub_id_is_fetched(tiny, model, monkeypatch):
    import huggingface_hub

    asked = []

    def fetch(name):
        asked.append(name)
        return str(tiny / "model")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    assert gptface_jax.load("somebody/face").digest == model.digest
    assert asked == ["somebody/face"]

    def fail(name):
        raise OSError("no network")

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fail)
    with pytest.raises(UserError, match="as a hub id it cannot be fetched"):
        gptface_jax.load("somebody/face")


def test_edit_is_reproducible_and_leaves_the_parameters(model, face):
    import jax

    before = jax.tree.map(np.copy, model.editor.gptface.params)
    told = {"text": "a woman smiling", "region": "mouth", "guidance": "ascent_norm"}
    first = model.edit(face, seed=1, **told)
    again = model.edit(Image.fromarray(face), seed=1, **told)
    assert first.image.size == (48, 48)
    np.testing.assert_array_equal(np.asarray(first.image), np.asarray(again.image))
    np.testing.assert_array_equal(np.asarray(first.before), face)
    outside = ~first.mask
    np.testing.assert_array_equal(np.asarray(first.image)[outside], face[outside])
    for a, b in zip(
        jax.tree.leaves(before), jax.tree.leaves(model.editor.gptface.params)
    ):
        np.testing.assert_array_equal(a, b)
    assert len(first.itm_log_prob) == first.details["iterations"]


def test_strength_0_is_what_is_painted_without_a_text(model, face):
    told = {"k": 64, "seed": 3, "align": False}
    plain = model.inpaint(face, region="mouth+hat", **told)
    off = {"Smiling": 0, "Wearing_Hat": 0.0}
    found = model.edit(face, strength=off, **told)
    np.testing.assert_array_equal(np.asarray(found.image), np.asarray(plain.image))
    assert found.details["mask"] == plain.details["mask"]
    strong = model.edit(face, strength={**off, "Young": 0, "Smiling": 4}, **told)
    assert strong.details["mask"]["region"] == "mouth"  # the others stay as they are
    assert strong.details["samples"] == 1
    assert strong.details["strength"] == {"Smiling": 4, "Wearing_Hat": 0.0, "Young": 0}
    changed = np.asarray(strong.image) != np.asarray(plain.image)
    assert changed[strong.mask].any()
    assert model.attributes[:2] == ("Smiling", "Eyeglasses")
    with pytest.raises(UserError, match="no strength of 'Grin'"):
        api.Model(model.editor, "", model.decode, attributes=("Grin",))
    for wrong, said in (
        ({"strength": {"Smiling": 5}}, "use -4 to 4"),
        ({"strength": {"Smile": 1}}, "did you mean 'Smiling'"),
        ({"strength": {"Smiling": "2"}}, "a mapping of texts to numbers"),
        ({"strength": {"Smiling": 1}, "guidance": "ascent"}, "needs a text to follow"),
        ({"strength": {}}, "the text is empty"),
        ({"text": "a man", "region": "mouth", "area": 7}, "area is 7, the share of a"),
        ({"strength": {"Smiling": 1}, "area": 0.2}, "or follows from strengths"),
        ({}, "the text is empty"),
    ):
        with pytest.raises(UserError, match=said):
            model.edit(face, **wrong)


def test_options_reach_the_decoder(model, face):
    one_shot = model.edit(face, "a man", region="hat", k=64, samples=1)
    assert one_shot.details["iterations"] == 1 and one_shot.itm_log_prob == ()
    raw = model.edit(face, "a man", region="hat", composite=False, samples=1)
    assert (np.asarray(raw.image)[~raw.mask] != face[~raw.mask]).any()
    met, unmet = (
        model.edit(face, "a man", region="hat", k=64, samples=1, borders=levels)
        for levels in (30, 0)
    )
    assert (np.asarray(met.image) == np.asarray(one_shot.image)).all()
    assert (np.asarray(met.image) != np.asarray(unmet.image))[met.mask].any()
    assert met.details["borders"] == 30
    with pytest.raises(UserError, match="did you mean 'step_size'"):
        model.edit(face, "a man", region="hat", step_sise=1.0)
    for wrong, said in (
        ({"guidance": "strong"}, "guidance 'strong'"),
        ({"side": "text"}, "side is 'text'"),
        ({"seed": 2**70}, "seed is"),
        ({"borders": 256}, "borders is 256; use 0 to 255"),
        ({"feather": -1}, "feather is -1; use 0 pixels"),
        ({"grow": -1}, "grow is -1; use 0 tokens"),
        ({"crop": (0, 0, 9.5, 9.5)}, "whole numbers"),
    ):
        with pytest.raises(UserError, match=said):
            model.edit(face, "a man", region="hat", **wrong)
    with pytest.raises(UserError, match="box is"):
        model.edit(face, "a man", box=(1, 2, 3))
    with pytest.raises(UserError, match="needs a text"):
        model.inpaint(face, region="hat", guidance="ascent")


def test_inpaint_and_reconstruct(model, face):
    filled = model.inpaint(face, box=(10, 10, 30, 30), seed=2)
    assert filled.text == "" and filled.mask.sum() == 400
    assert model.reconstruct(face).size == (model.editor.size,) * 2


@pytest.mark.parametrize("shape", ["span", "random"])
def test_a_share_is_hidden_by_chance(model, face, shape):
    first, again, other = (
        model.inpaint(face, region=f"{shape}:0.25", seed=seed) for seed in (3, 3, 4)
    )
    grid = model.grid
    assert first.details["tokens"] == round(0.25 * grid[0] * grid[1])
    assert first.details["mask"]["region"] == f"{shape}:0.25"
    np.testing.assert_array_equal(first.mask, again.mask)
    assert (first.mask != other.mask).any()


@pytest.mark.parametrize("region", ["span:0", "random:1", "span:nan", "hole:0.4"])
def test_a_share_that_hides_nothing_is_refused(model, face, region):
    with pytest.raises(UserError, match=f"'{region}'.*give span:0.4 or random:0.4"):
        model.inpaint(face, region=region)


def test_saved_pictures_are_marked(model, face, tmp_path):
    edit = model.inpaint(face, region="nose")
    paths = edit.save(tmp_path / "x.jpg")
    assert [p.name for p in paths] == ["x.jpg", "x.strip.png", "x.json"]
    assert "generative model" in Image.open(paths[0]).getexif()[0x010E]
    assert all(p.is_file() for p in paths)


def test_a_full_disk_keeps_what_was_there(tmp_path, monkeypatch):
    path = tmp_path / "kept.png"
    path.write_bytes(b"precious")

    def full(self, *args, **kwargs):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(UserError, match="No space left"):
        pictures.save(np.zeros((4, 4, 3), np.uint8), path)
    assert path.read_bytes() == b"precious"


def test_quickstart_on_a_photo(tiny, face, tmp_path):
    path = tmp_path / "me.png"
    Image.fromarray(face).save(path)
    sheet = quickstart.run(
        tmp_path / "out", image=path, model=tiny / "model", progress=False
    )
    assert sheet.is_file()
    assert len(list((tmp_path / "out").glob("*.json"))) >= 4
    assert len(quickstart.bundled_jobs()) >= 4


def test_how_many_are_guided_at_once():
    """A power of two in half of the memory; at least one."""
    config = tiny_config()
    # 2 layers of 3 x 16 x (4 x 16 + 3 x 24) weights and 19 x (8 x 16 + 3 x 24 + 2 x 2
    # x 19) activations, float32.
    one = guidance.bytes_of_one(config)
    assert one == 4 * 2 * (3 * 2176 + 19 * 276)
    for memory, expected in ((0, 1), (2 * one, 1), (11 * one, 4), (16 * one, 8)):
        assert editor.samples_in_memory(memory, config) == expected


def test_forward_passes_by_hand():
    def cost(match=False, **changes):
        return DecodeConfig(**changes).forwards(match)

    assert cost(guidance="none") == 1 and cost(guidance="none", cfg=2.0) == 2
    # Forward and backward, the moved model; the unguided scores are the first pass's.
    assert cost() == 4 and cost(match=True) == 5 and cost(match=True, kl_max=0) == 5
    assert cost(kl_max=0, fusion=1) == 4 and cost(match=True, kl_max=0, fusion=1) == 4
    assert cost(guidance="literal", match=True) == 4
    assert cost(num_steps=3) == 10 and cost(match=True, cfg=2.0) == 7
    assert (
        cost(guidance="embedding") == 3 and cost(guidance="embedding", match=True) == 4
    )


@pytest.mark.slow
def test_how_much_of_a_text_the_model_understands(tiny):
    model = gptface_jax.load(tiny / "model")
    photo = np.zeros((40, 40, 3), np.uint8)
    quick = {"region": "hat", "guidance": "none", "k": 64, "samples": 1}
    plain = model.edit(photo, "a man!!!", **quick)
    assert not any("words" in note for note in plain.details["notes"])
    foreign = "un homme souriant, man"
    said = "understands 1 of the 4 words of 'un homme souriant, man', not: un, homme"
    for edit in (
        model.edit(photo, foreign, **quick),
        model.stitch(photo, photo, text=foreign, guidance="none", k=64),
    ):
        assert any(said in note for note in edit.details["notes"])
    for call in (
        lambda: model.match(photo, ["a man", foreign]),
        lambda: model.propose(photo, foreign),
        lambda: model.sample(1, foreign, k=64),
    ):
        with pytest.warns(UserWarning, match="understands 1 of the 4 words") as found:
            call()
        assert found[-1].filename == __file__
    for nothing in ("!!!", ", -", "\u5973\u4eba"):
        with pytest.raises(UserError, match="no word of the text"):
            model.edit(photo, nothing, **quick)
