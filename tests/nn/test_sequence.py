import jax.numpy as jnp
import numpy as np
import tiny

from gptface_jax.nn import sequence
from gptface_jax.nn.sequence import SequenceLayout


def test_the_paper_layout():
    layout = SequenceLayout(grid=(21, 21), max_text_tokens=64)
    assert layout.length == 507 and layout.text_slice.start == 443
    assert layout.sep_index == 442 and layout.num_image_tokens == 441
    assert SequenceLayout((21, 21), 64, multiple_of=128).length == 512


def test_a_sequence_by_hand_and_back():
    layout = SequenceLayout(grid=(1, 2), max_text_tokens=3, multiple_of=4)
    codes, words = jnp.array([[7, 0], [3, 5]]), jnp.array([[9, 10, 0], [5, 0, 0]])
    tokens = sequence.assemble(codes, words, tiny.VOCAB, layout)
    # [CLS] 2, codes from 13 on, [SEP] 3, [PAD] 0.
    expected = [[2, 20, 13, 3, 9, 10, 0, 0], [2, 16, 18, 3, 5, 0, 0, 0]]
    assert tokens.dtype == jnp.int32
    np.testing.assert_array_equal(tokens, expected)
    back = sequence.split(tokens, tiny.VOCAB, layout)
    np.testing.assert_array_equal(back[0], codes)
    np.testing.assert_array_equal(back[1], words)
    masked = tokens.at[0, 1].set(tiny.VOCAB.mask_id)
    assert sequence.split(masked, tiny.VOCAB, layout)[0][0, 0] < 0


def test_masks_stand_where_their_tokens_stand():
    layout = SequenceLayout(grid=(1, 2), max_text_tokens=3, multiple_of=4)
    mask = sequence.sequence_mask(
        layout, jnp.array([[True, False]]), jnp.array([[False, True, True]])
    )
    np.testing.assert_array_equal(mask[0], np.array([0, 1, 0, 0, 0, 1, 1, 0], bool))
