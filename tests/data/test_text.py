import json

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import captions
from gptface_jax.data.text import SPECIALS, TextTokenizer

CORPUS = [
    "a man wearing glasses",
    "a woman smiling, with blond hair",
    "a photo of a young woman without a hat",
] * 20


@pytest.fixture(scope="module")
def tokenizer():
    return TextTokenizer.train(CORPUS, vocab_size=120)


def test_trained_vocabulary(tokenizer):
    assert tokenizer.size <= 120
    ids = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.cls_id, tokenizer.sep_id]
    assert [*ids, tokenizer.mask_id] == [0, 1, 2, 3, 4]
    rows = tokenizer.encode(["A Woman smiling", ""], 8)
    assert rows.shape == (2, 8) and rows.dtype == "int32"
    assert (rows[1] == tokenizer.pad_id).all()
    assert tokenizer.decode(rows[0]) == "a woman smiling"


def test_long_and_odd_texts(tokenizer):
    rows = tokenizer.encode(["glasses " * 10_000, "🙂🙃", "[MASK] [PAD] hat"], 6)
    assert (rows[0] == rows[0, 0]).all()
    assert set(rows[1]) <= {tokenizer.unk_id, tokenizer.pad_id}
    assert tokenizer.mask_id not in rows[2]
    assert (rows[2] != tokenizer.pad_id).all()


def test_what_is_no_unicode_is_read_as_an_unknown_character(tokenizer):
    """It ended in a TypeError: bytes of another encoding, or broken JSON."""
    odd, plain = "a man\ud800 caf\udce9 hat", "a man? caf? hat"
    np.testing.assert_array_equal(tokenizer.encode([odd]), tokenizer.encode([plain]))
    many = tokenizer.encode([odd] * 9)
    np.testing.assert_array_equal(many, tokenizer.encode([plain] * 9))
    assert tokenizer.understood(odd) == tokenizer.understood(plain)
    words = tokenizer.extended([odd])
    assert words.vocab_text() == tokenizer.extended([plain]).vocab_text()
    assert TextTokenizer.train([odd] * 20).size > len(SPECIALS)


def test_words_of_up_to_200_characters_are_read(tokenizer):
    for count, unknown in ((101, False), (200, False), (201, True)):
        row = tokenizer.encode(["m" * count], 256)[0]
        assert (row[0] == tokenizer.unk_id) == unknown
    saved = json.loads(tokenizer.files()["tokenizer.json"])
    assert saved["model"]["max_input_chars_per_word"] == 200


PIECES = (
    "a hat woman smil ##ing smiling mou ##s ##n u ##ne bri ##l ##le ! [ mask".split()
)


@pytest.mark.parametrize(
    "text, known, unknown",
    [
        ("A smiling woman!!!", "a smiling woman", ""),  # punctuation is no word
        ("!!! , ...", "", ""),
        ("smilings womn h\u00e2t", "smilings hat", "womn"),
        # Spelt out of small pieces, or nothing at all.
        ("une brille moustache \u5973", "", "une brille moustache \u5973"),
        ("[MASK] hat", "mask hat", ""),
        (f"{'x' * 300} hat", "hat", "x" * 300),
        ("", "", ""),
    ],
)
def test_words_that_a_vocabulary_understands(text, known, unknown):
    tokenizer = TextTokenizer([*SPECIALS, *PIECES])
    found = tokenizer.understood(text)
    expected = dict.fromkeys(known.split(), True)
    assert found == expected | dict.fromkeys(unknown.split(), False)


def test_vocabulary_text_is_a_round_trip(tokenizer, tmp_path):
    again = TextTokenizer.from_vocab_text(tokenizer.vocab_text())
    assert again.digest == tokenizer.digest
    text = ["a man, with GLASSES"]
    assert (again.encode(text) == tokenizer.encode(text)).all()
    tokenizer.save(tmp_path / "saved")
    assert TextTokenizer.from_pretrained(tmp_path / "saved").digest == again.digest


def test_saved_folder_opens_with_transformers(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    tokenizer.save(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert len(theirs) == tokenizer.size
    text = "A smiling woman, with glasses"
    ids = theirs(text, add_special_tokens=False)["input_ids"]
    ours = tokenizer.encode([text], 32)[0]
    assert ids == ours[ours != tokenizer.pad_id].tolist()
    assert theirs.mask_token_id == tokenizer.mask_id
    assert theirs.pad_token_id == tokenizer.pad_id


def test_joint_vocabulary(tokenizer):
    vocab = tokenizer.joint_vocab(64)
    assert vocab.size == tokenizer.size + 64
    assert vocab.mask_id == tokenizer.mask_id


def test_pickles(tokenizer):
    import pickle

    again = pickle.loads(pickle.dumps(tokenizer))
    assert again.digest == tokenizer.digest


def test_bad_vocabularies(tmp_path):
    with pytest.raises(UserError, match=r"lacks \[PAD\]"):
        TextTokenizer(["a", "b"])
    with pytest.raises(UserError, match="no text"):
        TextTokenizer.train(["", "  "])
    with pytest.raises(UserError, match="no text tokenizer at"):
        TextTokenizer.from_pretrained(tmp_path / "nothing" / "here" / "at_all")
    (tmp_path / "vocab.txt").write_bytes(b"\x80\xff\x00")
    for place in (tmp_path, tmp_path / "vocab.txt"):
        with pytest.raises(UserError, match="vocab.txt' is not UTF-8 text"):
            TextTokenizer.from_pretrained(place)


@pytest.mark.shared
def test_bert_vocabulary(shared):
    bert = TextTokenizer.from_pretrained(shared / "data/bert_uncased_vocab.txt")
    assert bert.size == 30522
    assert (bert.pad_id, bert.unk_id, bert.cls_id) == (0, 100, 101)
    assert (bert.sep_id, bert.mask_id) == (102, 103)
    ids = bert.encode(["A woman wearing eyeglasses, smiling."], 12)[0]
    # As transformers.BertTokenizerFast gives for the same text.
    assert bert.decode(ids) == "a woman wearing eyeglasses, smiling."
    assert ids[:3].tolist() == [1037, 2450, 4147]


def test_the_same_corpus_gives_the_same_vocabulary():
    corpus = [captions.unrelated(np.random.default_rng(i)) for i in range(300)]
    first, *others = (TextTokenizer.train(corpus, 200).vocab_text() for _ in range(4))
    assert all(vocab == first for vocab in others)
