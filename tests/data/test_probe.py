import numpy as np
import pytest

from gptface_jax.data import captions, probe
from gptface_jax.data.record import Record
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.data.text import TextTokenizer


@pytest.fixture(scope="module")
def tokenizer():
    faces = SyntheticFaces(size=32, count=60)
    texts = [faces[i].text for i in range(60)]
    for name in probe.ATTRIBUTES:
        texts += [captions.edit_text(name, state) for state in (True, False)]
    return TextTokenizer.train(texts * 5, 400)


def test_questions_are_true_first_and_balanced(tokenizer):
    records = [Record(labels={"Smiling": float(i == 3), "Male": 1.0}) for i in range(8)]
    names = ("Smiling", "Male")
    asked = probe.attribute_probe(records, tokenizer, 16, names)
    assert asked["probe_ids"].shape == (8, 2, 16)
    for i, record in enumerate(records):
        name = names[asked["probe_attribute"][i]]
        state = bool(record.labels[name])
        for side, said in ((0, state), (1, not state)):
            text = captions.edit_text(name, said, record.labels)
            expected = tokenizer.encode([text], 16)[0]
            np.testing.assert_array_equal(asked["probe_ids"][i, side], expected)
    assert asked["probe_attribute"][3] == 0  # the only smile
    smiles = asked["probe_attribute"] == 0
    weights = asked["probe_weight"]
    assert weights[3] == 0.5  # as much as all that do not smile
    assert weights[smiles].sum() == pytest.approx(1.0)


def test_unlabelled_pictures_are_not_asked(tokenizer):
    asked = probe.attribute_probe(
        [Record(), Record(labels={"Male": 0.5})], tokenizer, 8
    )
    assert (asked["probe_attribute"] == -1).all() and not asked["probe_weight"].any()
    assert (asked["probe_ids"] == tokenizer.pad_id).all()
