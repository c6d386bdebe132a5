"""What a config of `gptface prepare --config` may say, and its defaults."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from typing import Any

from gptface_jax.core.config import from_mapping
from gptface_jax.core.errors import UserError, nearest

CROPS = ("context", "upright", "whole")
ENCODINGS = ("jpeg", "png")


@dataclasses.dataclass(frozen=True)
class Decoding:
    """Which files are decoded at all.

    Attributes:
      max_pixels: a larger picture is refused by its header, before a pixel is decoded.
      max_bytes: a larger file is not even read.
    """

    max_pixels: int = 64_000_000
    max_bytes: int = 64 << 20


@dataclasses.dataclass(frozen=True)
class FaceOptions:
    """Which faces become records.

    Attributes:
      known: boxes that came with a picture are used; nothing is searched there.
      every: a record for every face of a picture; else for the largest.
      min_score: of the finder or of the metadata; less is no face.
    """

    known: bool = True
    every: bool = False
    min_score: float = 0.6


@dataclasses.dataclass(frozen=True)
class Filters:
    """Filters for poor quality and for copies.

    Attributes:
      min_side: of the picture in pixels.
      min_face: square root of the area of the face's box in pixels.
      min_sharpness: see `quality.sharpness`; 0 takes all.
      max_yaw, max_roll: degrees, see `quality.pose`; 180 takes all.
      max_scores: column of the metadata -> the most that is taken, such as
        {"punsafe": 0.3}; a record without the column is taken, one whose cell is no
        number is not.
      allowed: column of the metadata -> words that are taken, such as
        {"NSFW": ("UNLIKELY",)}; a record without the column is taken.
      exact_duplicates: drop all but the first of pictures of the same bytes.
      near_duplicates: bits of 64 in which the perceptual hashes of copies may differ;
        -1 keeps them.
    """

    min_side: int = 64
    min_face: float = 32.0
    min_sharpness: float = 0.0
    max_yaw: float = 180.0
    max_roll: float = 180.0
    max_scores: Mapping[str, float] = dataclasses.field(default_factory=dict)
    allowed: Mapping[str, Sequence[str]] = dataclasses.field(default_factory=dict)
    exact_duplicates: bool = True
    near_duplicates: int = 2


@dataclasses.dataclass(frozen=True)
class CropOptions:
    """Options of the crop.

    Attributes:
      mode: "context", a square around the face as it stands (the paper's faces are not
        aligned); "upright", the face in the model frame; "whole", the middle square,
        for which no face is needed.
      context: side of the square in sides of the face's box.
      size: of the result in pixels.
      enlarged: times that a part of a picture may be enlarged.
      beyond: share of the square that may lie outside the picture.
      encoding: "jpeg" or "png".
      quality: of JPEG.
    """

    mode: str = "context"
    context: float = 2.0
    size: int = 256
    enlarged: float = 2.0
    beyond: float = 0.25
    encoding: str = "jpeg"
    quality: int = 95


@dataclasses.dataclass(frozen=True)
class TextOptions:
    """Which texts are kept, once they are clean.

    Attributes:
      required: a picture without a text that is kept is dropped; else it stays bare.
      min_words, max_words: of a text.
      max_bytes: of a text before it is cleaned.
      language: as of ISO 639-1, "en"; "" takes all.
      min_probability: of that language; 0.02 keeps 94 % of what is hardly a sentence
        (names, "page 3 of 12") and none of 30 captions in 16 other languages.
      vocab: of the WordPieces that `max_tokens` counts; "" counts none.
      max_tokens: of a text.
    """

    required: bool = True
    min_words: int = 1
    max_words: int = 100
    max_bytes: int = 65_536
    language: str = ""
    min_probability: float = 0.02
    vocab: str = ""
    max_tokens: int = 64


@dataclasses.dataclass(frozen=True)
class SplitOptions:
    """Which records are held out: by a hash of the URL, or of the bytes where there is
    none or copies are kept, never of anything that says who a person is.

    Attributes:
      validation, test: shares.
      salt: another one makes another split.
    """

    validation: float = 0.01
    test: float = 0.0
    salt: str = ""


@dataclasses.dataclass(frozen=True)
class ImageIds:
    """Codes of the pictures, made when duplicates are gone.

    Attributes:
      tokenizer: a VQGAN's run or model directory; "" writes pictures alone.
      batch_size: pictures that a device encodes at once.
      keep_pictures: beside the codes.
    """

    tokenizer: str = ""
    batch_size: int = 64
    keep_pictures: bool = False


@dataclasses.dataclass(frozen=True)
class Config:
    """The whole configuration of a preparation.

    Attributes:
      sources: see `readers`.
      unit_size: records that a unit of work takes of a source that is read at random.
      opt_out: a file, see `opt_out`; "" for none.
      keep_rejected: pictures that are kept of each reason for the report.
    """

    sources: tuple[Mapping[str, Any], ...]
    unit_size: int = 2048
    decoding: Decoding = Decoding()
    faces: FaceOptions = FaceOptions()
    filters: Filters = Filters()
    crop: CropOptions = CropOptions()
    texts: TextOptions = TextOptions()
    split: SplitOptions = SplitOptions()
    image_ids: ImageIds = ImageIds()
    opt_out: str = ""
    keep_rejected: int = 24

    def as_json(self) -> dict[str, Any]:
        """The config as JSON types."""
        return json.loads(json.dumps(dataclasses.asdict(self)))


def read(values: Mapping[str, Any]) -> Config:
    """The config of a mapping.

    Raises:
      UserError: an unknown key, or a value that makes no sense.
    """
    config = from_mapping(Config, values)
    for key, value, known in (
        ("crop.mode", config.crop.mode, CROPS),
        ("crop.encoding", config.crop.encoding, ENCODINGS),
    ):
        if value not in known:
            raise UserError(
                f"{key} is {value!r}{nearest(value, known)}; use {', '.join(known)}"
            )
    if not config.sources or not all(isinstance(s, Mapping) for s in config.sources):
        raise UserError("the config has no sources; give a list of mappings with kind")
    for name, most in config.filters.max_scores.items():
        if not isinstance(most, (int, float)):
            raise UserError(f"filters.max_scores.{name} is {most!r}; give a number")
    for name, words in config.filters.allowed.items():
        if not isinstance(words, (list, tuple)):
            raise UserError(
                f"filters.allowed.{name} is {words!r}; give a list of words"
            )
    shares = config.split.validation, config.split.test
    if min(shares) < 0 or sum(shares) >= 1:
        raise UserError(
            f"split.validation {shares[0]} and split.test {shares[1]} leave nothing to "
            "train on; give shares from 0 whose sum is below 1"
        )
    for key, value, least in (
        ("unit_size", config.unit_size, 1),
        ("crop.size", config.crop.size, 16),
        ("image_ids.batch_size", config.image_ids.batch_size, 1),
    ):
        if value < least:
            raise UserError(f"{key} is {value}; use {least} or more")
    if config.crop.context <= 0:
        raise UserError(
            f"crop.context is {config.crop.context}; use a number above 0, the side "
            "of the crop in sides of the face"
        )
    if not -1 <= config.filters.near_duplicates <= 8:
        raise UserError(
            f"filters.near_duplicates is {config.filters.near_duplicates}; use 0 to 8 "
            "bits of 64, or -1 to keep near duplicates"
        )
    return config
