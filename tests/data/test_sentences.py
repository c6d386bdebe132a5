"""Decoded pieces become sentences."""

import numpy as np
import pytest

from gptface_jax.data import captions, sentences, synthetic
from gptface_jax.data.text import TextTokenizer


@pytest.mark.parametrize(
    "pieces, wanted",
    [
        ("a smil ##ing wom ##an", "A smiling woman"),
        ("a man , with a hat .", "A man, with a hat."),
        ("a well - known man , isn ' t he ? yes", "A well-known man, isn't he? Yes"),
        ("up to 40 % off ( 3 . 5 of them ) !", "Up to 40% off (3.5 of them)!"),
        ('she says " hi there " twice', 'She says "hi there" twice'),
        ("it ' s a day ' s stubble", "It's a day's stubble"),
        ("  two   blanks ", "Two blanks"),
        ("", ""),
        ("in 1998 , 3 men", "In 1998, 3 men"),
    ],
)
def test_by_hand(pieces, wanted):
    assert sentences.tidy(pieces) == wanted
    assert sentences.tidy(wanted) == wanted
    assert sentences.tidy(pieces, capitals=False).lower() == wanted.lower()


def test_captions_come_back_from_their_pieces():
    rng = np.random.default_rng(0)
    texts = []
    for index in range(150):
        factors = synthetic.sample_factors(1, index)
        texts.append(captions.caption(synthetic.labels(factors), rng))
    tokenizer = TextTokenizer.train(texts, 300)
    for text in texts:
        ids = tokenizer.encode([text], 200)[0]
        pieces = tokenizer.decode(i for i in ids if i != tokenizer.pad_id)
        assert sentences.tidy(pieces, capitals=False) == text
        assert sentences.tidy(pieces) == text[0].upper() + text[1:]
