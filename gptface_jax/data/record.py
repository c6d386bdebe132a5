"""The one record type that every source yields."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io


@dataclasses.dataclass(frozen=True)
class Record:
    """One picture with whatever is known of it.

    Attributes:
      image: encoded file bytes, or uint8 [H,W,3] sRGB; None in token shards.
      text: a caption or any line of text; "" where there is none.
      texts: all of them, where there are several; `text` is the first.
      labels: attribute name (as in CelebA) -> score in 0..1, or None. Scores
        between 0.1 and 0.9 are not confident. May also hold "Age" in years.
      facts: what else words can say, name -> value: a category, a range or a colour
        ("age": "30-39", "hair": "dark brown").
      expression: one word ("happiness"), or "".
      landmarks: float32 [P,2] (x, y) in pixels, pixel centres at integers; NaN where
        one is not known.
      landmark_scheme: which points they are, a key of `schemes.LANDMARKS`; "" if none.
      parsing: uint8 [H,W] classes.
      parsing_scheme: which classes, a key of `schemes.PARSING`.
      boxes: float32 [N,4] (x0, y0, x1, y1) of faces, borders in pixels: (0, 0, W, H) is
        the whole picture.
      identity: a number or name that keeps one person's pictures together.
      source: where it came from: a data set ("synthetic", "lfw_attributes"), or
        "set/file".
      image_ids: uint16 [h,w] codes; only in token shards.
      face3d: the head of a morphable model that the picture shows, where it is known:
        "id_coeffs", "exp_coeffs", "albedo_coeffs", "sh_light" [9,3] and "pose" [6]
        float32 as of `data.rendering`, "model" the digest of the face model, and
        perhaps "vertices" [V,3] mm and "depth" [H,W] mm.
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
    facts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    landmark_scheme: str = "ibug68"
    parsing_scheme: str = "celebamask-hq"
    boxes: np.ndarray | None = None
    face3d: Mapping[str, np.ndarray | str] | None = None


def decode_picture(record: Record) -> np.ndarray:
    """Pixels uint8 [H,W,3] of a record's picture.

    Raises:
      UserError: it cannot be read, or there is none; the record's source is named.
    """
    if record.image is None:
        raise UserError(
            f"a record of source '{record.source}' holds no picture; token shards "
            "cannot train a network that reads pixels"
        )
    image = record.image
    if isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.size:
        if image.ndim == 3 and image.shape[2] == 3:
            return image  # as it would come back, without a copy of every pixel
    try:
        return image_io.decode(image)
    except UserError as error:
        raise UserError(f"record '{record.source}': {error}") from None
