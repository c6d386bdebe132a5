"""Where rows of a table go when a run begins with another vocabulary."""

import numpy as np

from gptface_jax.core.vocab import JointVocab
from gptface_jax.experiments.starting import joint_places


def vocab(words, faces):
    return JointVocab(words, 3, 0, 1, 2, 3, 4, multiple_of=8, face_tokens=faces)


def test_words_codes_and_face_tokens_keep_their_rows():
    words = np.array([0, 1, 2, 3, 4, 7, -1])  # the last one is not known any more
    got = joint_places(words, vocab(7, 5), vocab(9, 5))
    np.testing.assert_array_equal(
        got, [0, 1, 2, 3, 4, 7, -1, 9, 10, 11, 12, 13, 14, 15, 16]
    )
    # Codes of another scheme of 3D faces are none of this one.
    other = joint_places(words, vocab(7, 2), vocab(9, 5))
    np.testing.assert_array_equal(other[-2:], [-1, -1])
    # A GPTFace has none; what the new run adds is its own.
    assert len(joint_places(words, vocab(7, 0), vocab(9, 5))) == 10
