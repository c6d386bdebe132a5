"""Tags written and looked up, by the smallest model of the way."""

import dataclasses
import json
import types

import numpy as np
import pytest

from gptface_jax.apps.api import Model
from gptface_jax.core.errors import UserError
from gptface_jax.data import synthetic
from gptface_jax.data.record import Record
from gptface_jax.protocols import tagging


@pytest.fixture(scope="module")
def records():
    faces = synthetic.SyntheticFaces(size=32, count=12, seed=5)
    return [faces[i] for i in range(12)]


def test_the_vocabulary_is_what_is_true_of_training_pictures(model, records):
    words = tagging.vocabulary(model.editor.text_tokenizer, records)
    truth = tagging.grades_of(records)
    assert list(words.values()) == sorted(words.values(), reverse=True)
    for word, share in words.items():
        assert share == pytest.approx(np.mean([t.get(word, 0) for t in truth]))
    with pytest.raises(UserError, match="nothing is known of the 1 training pictures"):
        tagging.vocabulary(model.editor.text_tokenizer, [Record()])


def test_all_systems_rank_the_same_words(model, records):
    words = tagging.vocabulary(model.editor.text_tokenizer, records)
    rankings = tagging.rank(model, records[:3], words, progress=False)
    assert list(rankings) == ["generative", "retrieval", "frequency", "random"]
    for lists in rankings.values():
        assert len(lists) == 3
        for found in lists:
            assert 1 <= len(found) <= 30
            assert len(set(found)) == len(found) and set(found) <= set(words)
    assert rankings["frequency"][0] == list(words)[:30]
    found = tagging.figures(rankings, tagging.grades_of(records[:3]))
    assert 0 < found["frequency"]["ndcg@5"] <= 1
    printed = tagging.table(found)
    assert "retrieval" in printed and "linear@5" in printed
    shown = tagging.sheet(records[:3], rankings, tagging.grades_of(records[:3]))
    assert shown.ndim == 3 and shown.dtype == np.uint8


def test_retrieval_is_the_nearest_word(model, records):
    encoder = tagging.DualEncoder(model)
    photos = np.stack([r.image for r in records[:5]])
    images, words = encoder.images(photos), encoder.words(["man", "hat"])
    np.testing.assert_allclose(np.linalg.norm(images, axis=1), 1, atol=1e-5)
    np.testing.assert_allclose(images[3:], encoder.images(photos[3:]), atol=1e-5)
    assert np.abs(words[0] - words[1]).max() > 1e-4
    # A model without projections retrieves nothing, and says so.
    network = model.editor.gptface
    config = dataclasses.replace(network.config, contrastive_width=0)
    module = type(network.module)(config)
    editor = types.SimpleNamespace(gptface=dataclasses.replace(network, module=module))
    bare = Model(editor, "bare", model.decode)
    with pytest.raises(UserError, match="model bare has no contrastive projections"):
        tagging.DualEncoder(bare)


def test_words_may_be_chosen(model, records):
    found = model.tag(records[0].image, 5, among=["man", "hat"])
    assert {tag.word for tag in found} <= {"man", "hat"}
    with pytest.raises(UserError, match="'dromedary' is no single piece"):
        model.tag(records[0].image, among=["dromedary"])
    with pytest.raises(UserError, match="no words to choose from"):
        model.tag(records[0].image, among=[])


def test_the_command(tiny, tmp_path, gptface_command, capsys):
    out, sheet = tmp_path / "tagging.json", tmp_path / "tagging.png"
    command = (
        "evaluate", "tagging", "--quiet", "--model", tiny / "model", "--images",
        "synthetic", "--data", "size=32", "--limit", 2, "--words-from", 8,
    )  # fmt: skip
    assert gptface_command(*command, "--out", out, "--sheet", sheet) == 0
    assert "2 pictures" in capsys.readouterr().out
    told = json.loads(out.read_text())
    assert set(told["figures"]) == {"generative", "retrieval", "frequency", "random"}
    assert len(told["truth"]) == 2 and sheet.is_file()
    assert gptface_command(*command[:-1], 0) == 2
    assert "--words-from is 0" in capsys.readouterr().err
