"""The one record type that every source yields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Record:
    """One picture with whatever is known of it.

    Attributes:
      image: encoded file bytes, or uint8 [H,W,3] sRGB; None in token shards.
      text: a caption or any line of text; "" where there is none.
      texts: all of them, where there are several; `text` is the first.
      labels: attribute name (as in CelebA) -> score in 0..1, or None. Scores
        between 0.1 and 0.9 are not confident. May also hold "Age" in years.
      expression: one word ("happiness"), or "".
      landmarks: float32 [68,2] (x, y) in pixels, pixel centres at integers.
      parsing: uint8 [H,W], CelebAMask-HQ classes 0..18.
      identity: a number or name that keeps one person's pictures together.
      source: where it came from: a data set ("synthetic", "lfw_attributes"), or
        "set/file".
      image_ids: uint16 [h,w] codes; only in token shards.
    """

    image: bytes | np.ndarray | None = None
    text: str = ""
    labels: Mapping[str, float] | None = None
    expression: str = ""
    landmarks: np.ndarray | None = None
    parsing: np.ndarray | None = None
    identity: int | str | None = None
    source: str = ""
    image_ids: np.ndarray | None = None
    texts: tuple[str, ...] = ()
