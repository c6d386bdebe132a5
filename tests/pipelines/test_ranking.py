"""Drawn pictures in the order of how well they match."""

import json
import re
import sys

import numpy as np
import pytest
from PIL import Image

from gptface_jax.apps.api import load
from gptface_jax.core import extras
from gptface_jax.core.errors import UserError
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.pipelines import ranking
from gptface_jax.pipelines.results import Samples

GREYS = [30, 200, 90, 200]


def drawn(size: int = 16) -> Samples:
    pictures = [Image.new("RGB", (size, size), (v,) * 3) for v in GREYS]
    return Samples(pictures, {"seed": 3})


def brightness(pictures, sentence):
    sign = {"bright": 1.0, "dark": -3.0}[sentence]
    return sign * pictures.mean((1, 2, 3))


def test_the_best_come_first_and_the_details_say_why():
    kept = ranking.best(drawn(), {"bright": brightness, "": None}, 3, "brightness")
    assert [s.getpixel((0, 0))[0] for s in kept] == [200, 200, 90]
    assert kept.details["seed"] == 3
    told = kept.details["ranking"]
    assert told["kept"] == [1, 3, 2] and told["of"] == 4 and told["by"] == "brightness"
    assert told["scores"] == [200.0, 200.0, 90.0] and told["sentences"] == ["bright"]
    # Of several sentences the sum counts: 1 - 3 times the brightness.
    both = dict.fromkeys(["bright", "dark"], brightness)
    kept = ranking.best(drawn(), both, 1, "brightness")
    assert kept.details["ranking"]["scores"] == [-60.0]


def test_more_pictures_than_fit_at_once(monkeypatch):
    pictures = np.random.default_rng(0).integers(0, 256, (7, 4, 4, 3)).astype(np.uint8)
    whole = ranking.scores(pictures, {"bright": brightness})
    monkeypatch.setattr(ranking, "_AT_ONCE", 3)
    np.testing.assert_array_equal(
        ranking.scores(pictures, {"bright": brightness}), whole
    )


@pytest.mark.slow
def test_the_bundled_model_s_matching():
    """Of drawn faces, those that wear what is asked for come first."""
    editor = load("demo64").editor
    faces = list(SyntheticFaces(size=64, count=24, seed=5))
    wearing = np.array([face.labels["Wearing_Hat"] > 0.5 for face in faces])
    found = ranking.scores(
        np.stack([face.image for face in faces]),
        {"a person wearing a hat": ranking.by_matching(editor)},
    )
    first = np.argsort(-found)[: wearing.sum()]
    assert 0 < wearing.mean() < 0.6
    assert wearing[first].mean() > 2 * wearing.mean()
    small = np.zeros((1, 32, 32, 3), np.uint8)
    with pytest.raises(UserError, match="have 32 px, and the model.* sees 64"):
        ranking.by_matching(editor)(small, "a man")


def test_what_cannot_be_ranked():
    with pytest.raises(UserError, match="5 of 4 pictures are to be kept"):
        ranking.best(drawn(), {"bright": brightness}, 5, "brightness")
    with pytest.raises(UserError, match="no sentence to rank by"):
        ranking.best(drawn(), {"": brightness, " ": brightness}, 1, "brightness")


def test_only_sentences_that_say_something_are_compared():
    wanted = {"bright": brightness, " ": None}
    assert ranking.to_compare(wanted) == {"bright": brightness}
    with pytest.raises(UserError, match="no sentence to rank by: give a text, or attr"):
        ranking.to_compare({"": brightness})


def test_clip_needs_pytorch_and_weights(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UserError, match=re.escape(extras.install("clip"))):
        ranking.by_clip(tmp_path)


def test_clip_of_a_folder_is_its_cosine(tmp_path):
    """A small one with weights at random; transformers computes it as well."""
    torch = pytest.importorskip("torch")
    import transformers

    with pytest.raises(UserError, match="cannot be opened"):
        ranking.by_clip(tmp_path)
    # BPE: "a", and "man" of its letters.
    words = ["<|startoftext|>", "<|endoftext|>", "a</w>", "m", "a", "n</w>", "ma"]
    words += ["man</w>"]
    (tmp_path / "vocab.json").write_text(
        json.dumps({w: i for i, w in enumerate(words)})
    )
    (tmp_path / "merges.txt").write_text("#version: 0.2\nm a\nma n</w>\n")
    small = {
        "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2,
    }  # fmt: skip
    texts = {**small, "vocab_size": 8, "eos_token_id": 1, "max_position_embeddings": 16}
    images = {**small, "image_size": 32, "patch_size": 8}
    torch.manual_seed(0)
    model = transformers.CLIPModel(
        transformers.CLIPConfig(text_config=texts, vision_config=images)
    ).eval()
    model.save_pretrained(tmp_path)
    tokenizer = transformers.CLIPTokenizer(
        str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt")
    )
    size = {"shortest_edge": 32}, {"height": 32, "width": 32}
    processor = transformers.CLIPImageProcessor(size=size[0], crop_size=size[1])
    transformers.CLIPProcessor(processor, tokenizer).save_pretrained(tmp_path)
    pictures = np.random.default_rng(0).integers(0, 256, (3, 32, 32, 3), np.uint8)
    found = ranking.by_clip(tmp_path)(pictures, "a man")
    assert found.shape == (3,) and np.ptp(found) > 0
    whole = ranking.scores(pictures, {"a man": ranking.by_clip(tmp_path)})
    np.testing.assert_allclose(whole, found, atol=1e-6)
    # By hand: CLIP's mean and deviation of pixels, then both projections.
    mean, deviation = processor.image_mean, processor.image_std
    pixels = (pictures / 255 - mean) / deviation
    pixels = torch.tensor(pixels.transpose(0, 3, 1, 2), dtype=torch.float32)
    with torch.no_grad():
        seen = model.visual_projection(
            model.vision_model(pixel_values=pixels).pooler_output
        )
        said = model.text_projection(
            model.text_model(torch.tensor([[0, 2, 7, 1]])).pooler_output
        )
    cosine = torch.nn.functional.cosine_similarity(seen, said)
    np.testing.assert_allclose(found, cosine.numpy(), atol=1e-5)
