"""Sequences of prompt, prefix and target against drawings by hand."""

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.core.vocab import JointVocab
from gptface_jax.data import sequences

# Text ids 0..19, codes 0..9 as 20..29.
VOCAB = JointVocab(
    text_size=20, codebook_size=10, pad_id=0, unk_id=1, cls_id=2, sep_id=3, mask_id=4
)
IMAGE = [20, 29, 25, 21]


def _drawn(example):
    """One character a position, as in the module docstring."""
    scored = "".join("x" if m else "." for m in example["loss_mask"])
    return "".join(map(str, example["segment_ids"])), scored


def test_text_first_by_hand():
    example = sequences.assemble([7, 8], [9, 10, 11], IMAGE, VOCAB, 14)
    assert example["tokens"].tolist() == [
        2, 7, 8, 3, 9, 10, 11, 3, 20, 29, 25, 21, 3, 0
    ]  # fmt: skip
    assert _drawn(example) == ("11111111222220", "........xxxxx.")
    assert {k: v.dtype for k, v in example.items()} == {
        "tokens": np.int32, "segment_ids": np.int32, "loss_mask": bool
    }  # fmt: skip


def test_image_first_with_a_given_key():
    example = sequences.assemble([7, 8], IMAGE, [12, 13, 14], VOCAB, 13, given=2)
    assert example["tokens"].tolist() == [2, 7, 8, 3, *IMAGE, 3, 12, 13, 14, 3]
    assert _drawn(example) == ("1111111112222", "...........xx")


def test_what_is_given_may_stand_anywhere():
    given = np.array([True, False, True])
    example = sequences.assemble([7, 8], IMAGE, [12, 13, 14], VOCAB, 13, given=given)
    assert _drawn(example) == ("1111111112222", "..........x.x")


def test_a_long_prefix_is_cut_and_closed_again():
    """SPEC B.3: 64 in all, 256 image tokens and [SEP] are 321."""
    vocab = JointVocab(codebook_size=1024)
    image = vocab.image_to_joint(np.arange(256))
    example = sequences.assemble(
        [2000, 3793], np.full(90, 5000), image, vocab, 334, max_prefix=64
    )
    tokens, segments = example["tokens"], example["segment_ids"]
    assert np.sum(segments == 1) == 64 and np.sum(segments > 0) == 321
    assert tokens[62] == 5000 and tokens[63] == vocab.sep_id == tokens[320]
    assert (tokens[64:320] == image).all() and not tokens[321:].any()
    # What fits is left as it is.
    short = sequences.assemble(
        [2000, 3793], np.full(59, 5000), image, vocab, 334, max_prefix=64
    )
    assert (short["tokens"][:64] == tokens[:63].tolist() + [vocab.sep_id]).all()
    assert np.sum(short["segment_ids"] > 0) == 321


def test_a_long_target_is_cut_and_closed():
    """SPEC B.3: 261 tokens before it leave 73 of 334."""
    vocab = JointVocab(codebook_size=1024)
    image = vocab.image_to_joint(np.arange(256))
    example = sequences.assemble([2000, 14408], image, np.full(99, 5000), vocab, 334)
    assert example["loss_mask"].tolist() == [False] * 261 + [True] * 73
    assert example["tokens"][-1] == vocab.sep_id
    assert (example["tokens"][261:333] == 5000).all()


def test_words_after_an_image_may_be_cut():
    example = sequences.assemble(
        [7], [*IMAGE, 9, 10, 11], IMAGE, VOCAB, 14, max_prefix=9
    )
    assert example["tokens"].tolist() == [2, 7, 3, *IMAGE, 9, 3, *IMAGE, 3]


def test_images_are_never_cut():
    with pytest.raises(UserError, match="prefix holds .* of 4 tokens and only 3"):
        sequences.assemble([7], IMAGE, [9], VOCAB, 20, max_prefix=7)
    with pytest.raises(UserError, match="target holds .* of 4 .* only 3 .* of 10"):
        sequences.assemble([7], [9, 9], IMAGE, VOCAB, 10)


def test_an_empty_target_is_to_be_decoded():
    example = sequences.assemble([7], [9], [], VOCAB, 8)
    assert example["tokens"].tolist() == [2, 7, 3, 9, 3, 3, 0, 0]
    assert _drawn(example) == ("11111200", ".....x..")
