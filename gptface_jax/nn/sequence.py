"""Sequences of image codes and words, joined and taken apart (SPEC A.3).

A sequence is `[CLS] i_1 ... i_n [SEP] w_1 ... w_m`, padded with [PAD] to a fixed m.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gptface_jax.core.vocab import JointVocab, round_up


@dataclasses.dataclass(frozen=True)
class SequenceLayout:
    """Where image and text sit in a sequence of length 1 + n + 1 + m + padding.

    Attributes:
      grid: (h, w) of the image tokens; n = h * w, raster order.
      max_text_tokens: m, text slots (padded).
      multiple_of: the sequence gets [PAD] at its end up to a multiple of this, for
        meshes that split the length and for kernels that work in blocks.
    """

    grid: tuple[int, int]
    max_text_tokens: int = 64
    multiple_of: int = 1

    @property
    def num_image_tokens(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def length(self) -> int:
        return round_up(self.text_slice.stop, self.multiple_of)

    @property
    def image_slice(self) -> slice:
        return slice(1, 1 + self.num_image_tokens)

    @property
    def sep_index(self) -> int:
        return 1 + self.num_image_tokens

    @property
    def text_slice(self) -> slice:
        start = 2 + self.num_image_tokens
        return slice(start, start + self.max_text_tokens)


def assemble(
    image_ids: jax.Array,
    text_ids: jax.Array,
    vocab: JointVocab,
    layout: SequenceLayout,
) -> jax.Array:
    """Codes and words as one sequence of joint ids.

    Args:
      image_ids: int [B,n] codes 0..C-1 in raster order.
      text_ids: int [B,m] text ids, padded with [PAD]; what the layout adds to the
        length follows here.
      vocab: the joint id space.
      layout: of the sequence.

    Returns:
      tokens int32 [B,L].
    """
    column = jnp.ones((image_ids.shape[0], 1), jnp.int32)
    padding = jnp.tile(column * vocab.pad_id, layout.length - layout.text_slice.stop)
    return jnp.concatenate(
        [
            column * vocab.cls_id,
            vocab.image_to_joint(image_ids).astype(jnp.int32),
            column * vocab.sep_id,
            text_ids.astype(jnp.int32),
            padding,
        ],
        axis=1,
    )


def split(
    tokens: jax.Array, vocab: JointVocab, layout: SequenceLayout
) -> tuple[jax.Array, jax.Array]:
    """The codes int32 [B,n] and the words int32 [B,m] of joint ids int32 [B,L].

    A code that is masked comes out as a negative number.
    """
    codes = vocab.joint_to_image(tokens[:, layout.image_slice])
    return codes, tokens[:, layout.text_slice]


def sequence_mask(
    layout: SequenceLayout, image: jax.Array, text: jax.Array
) -> jax.Array:
    """Mask of the whole sequence bool [B,L], from that of codes [B,n] and words [B,m].

    [CLS], [SEP] and the padding are False.
    """
    whole = jnp.zeros((image.shape[0], layout.length), bool)
    return whole.at[:, layout.image_slice].set(image).at[:, layout.text_slice].set(text)
