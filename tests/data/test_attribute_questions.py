import numpy as np
import pytest

from gptface_jax.data import attribute_questions, captions
from gptface_jax.data.record import Record
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.data.text import TextTokenizer


@pytest.fixture(scope="module")
def tokenizer():
    faces = SyntheticFaces(size=32, count=60)
    texts = [faces[i].text for i in range(60)]
    for name in attribute_questions.ATTRIBUTES:
        texts += [captions.edit_text(name, state) for state in (True, False)]
    return TextTokenizer.train(texts * 5, 400)


def test_questions_are_true_first_and_balanced(tokenizer):
    records = [Record(labels={"Smiling": float(i == 3), "Male": 1.0}) for i in range(8)]
    names = ("Smiling", "Male")
    asked = attribute_questions.questions(records, tokenizer, 16, names)
    assert asked["question_ids"].shape == (8, 2, 16)
    for i, record in enumerate(records):
        name = names[asked["question_attribute"][i]]
        state = bool(record.labels[name])
        for side, said in ((0, state), (1, not state)):
            text = captions.edit_text(name, said, record.labels)
            expected = tokenizer.encode([text], 16)[0]
            np.testing.assert_array_equal(asked["question_ids"][i, side], expected)
    assert asked["question_attribute"][3] == 0  # the only smile
    smiles = asked["question_attribute"] == 0
    weights = asked["question_weight"]
    assert weights[3] == 0.5  # as much as all that do not smile
    assert weights[smiles].sum() == pytest.approx(1.0)


def test_unlabelled_pictures_are_not_asked(tokenizer):
    unlabelled = [Record(), Record(labels={"Male": 0.5})]
    asked = attribute_questions.questions(unlabelled, tokenizer, 8)
    assert (asked["question_attribute"] == -1).all() and not asked[
        "question_weight"
    ].any()
    assert (asked["question_ids"] == tokenizer.pad_id).all()
