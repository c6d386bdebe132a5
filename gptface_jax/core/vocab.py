"""The one joint id space (SPEC A.2.3): text ids, then code c as `text_size + c`.

Tokens of 3D faces (SPEC D.3), where a model has some, come last.
"""

from __future__ import annotations

import dataclasses


def round_up(size: int, multiple_of: int) -> int:
    """The smallest multiple that is not below `size`."""
    return -(-size // multiple_of) * multiple_of


@dataclasses.dataclass(frozen=True)
class JointVocab:
    """Sizes and special ids. The defaults are BERT's uncased vocabulary.

    Attributes:
      text_size: number of WordPiece entries |V|.
      codebook_size: number of image codes C.
      pad_id, unk_id, cls_id, sep_id, mask_id: special text ids.
      multiple_of: the embedding table gets rows up to a multiple of this, so that
        it splits over any mesh axis that divides it. No id leads to those rows, and
        their probability is zero.
      face_tokens: ids of 3D faces from `size` on. They are no words and no codes: what
        predicts those gives them probability zero.
    """

    text_size: int = 30522
    codebook_size: int = 8192
    pad_id: int = 0
    unk_id: int = 100
    cls_id: int = 101
    sep_id: int = 102
    mask_id: int = 103
    multiple_of: int = 128
    face_tokens: int = 0

    @property
    def size(self) -> int:
        return self.text_size + self.codebook_size

    @property
    def rows(self) -> int:
        """`size` and the face tokens, rounded up to `multiple_of`."""
        return round_up(self.size + self.face_tokens, self.multiple_of)

    @property
    def text_rows(self) -> int:
        """`text_size` rounded up likewise, for layers over words only."""
        return round_up(self.text_size, self.multiple_of)

    @property
    def special_ids(self) -> tuple[int, ...]:
        return (self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id)

    def image_to_joint(self, image_ids):
        """Joint ids of codes 0..C-1, any integer array."""
        return image_ids + self.text_size

    def joint_to_image(self, tokens):
        """Codes 0..C-1 of the joint ids of image positions."""
        return tokens - self.text_size
