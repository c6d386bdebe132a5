"""Record -> one example of arrays; small picklable callables (record, rng)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import captions, composed, geometry, image, phrases
from gptface_jax.data.record import Record, decode_picture
from gptface_jax.data.text import TextTokenizer

_LOOKED_AT = 16  # records of a part of a mixture, for the data sets that it holds


def _picture(record: Record, size: int) -> np.ndarray:
    """Pixels uint8 [S,S,3] of a record's picture."""
    return image.fit(decode_picture(record), size)


@dataclasses.dataclass(frozen=True)
class ImageTransform:
    """{"image": float32 [S,S,3] in [-1,1]}, mirrored at random if asked.

    With `landmarks` also {"landmarks": float32 [68,2] (x, y)} as shares of the side,
    where the points of the record are in this picture; NaN where it has none.
    """

    size: int
    flip: bool = True
    landmarks: bool = False

    def __call__(self, record: Record, rng: np.random.Generator) -> dict:
        points = _landmarks(record) if self.landmarks else None
        view = dataclasses.replace(
            record, landmarks=points, parsing=None, boxes=None, face3d=None
        )
        view = geometry.squared(view, self.size)
        if self.flip and rng.random() < 0.5:
            view = geometry.mirrored(view)
        example = {"image": image.to_unit_range(view.image)}
        if self.landmarks:
            example["landmarks"] = np.float32((view.landmarks + 0.5) / self.size)
        return example


def _landmarks(record: Record) -> np.ndarray:
    """The record's 68 points, NaN without any."""
    points = record.landmarks
    if points is None:
        return np.full((68, 2), np.nan, np.float32)
    if points.shape != (68, 2) or record.landmark_scheme != "ibug68":
        raise UserError(
            f"record '{record.source}' has landmarks {list(points.shape)}; "
            "the map of the face needs the 68 iBUG points, [68, 2]: leave the column "
            "out, or set objective.face_map to 1 times"
        )
    return points


@dataclasses.dataclass(frozen=True)
class LabelTransform:
    """{"image" float32 [S,S,3], "labels" and "label_mask" float32 [A]}.

    A label counts (mask 1) where its score is above 0.9 or below 0.1. Pictures
    are mirrored, shifted by up to `shift` pixels, softened inside a rectangle (as a
    decoded region is softer than the photo around it) and varied in brightness.
    """

    size: int
    attributes: tuple[str, ...]
    augment: bool = True
    shift: int = 3

    def __call__(self, record: Record, rng: np.random.Generator) -> dict:
        picture = _picture(record, self.size)
        if self.augment:
            if rng.random() < 0.5:
                picture = picture[:, ::-1]
            by = rng.integers(-self.shift, self.shift + 1, 2)
            padded = np.pad(picture, [(self.shift,) * 2] * 2 + [(0, 0)], "edge")
            top, left = by + self.shift
            picture = padded[top : top + self.size, left : left + self.size]
            if rng.random() < 0.7:
                picture = _soften(picture, rng)
        pixels = image.to_unit_range(picture)
        if self.augment:
            gain, offset = rng.uniform(0.85, 1.15), rng.uniform(-0.12, 0.12)
            pixels = np.clip(pixels * gain + offset, -1, 1).astype(np.float32)
        scores = record.labels or {}
        states = [phrases.known(scores, name) for name in self.attributes]
        return {
            "image": pixels,
            "labels": np.array([bool(s) for s in states], np.float32),
            "label_mask": np.array([s is not None for s in states], np.float32),
        }


def _soften(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Blurs uint8 [S,S,3] inside a random rectangle, as if S were up to 3.5 less."""
    size = len(picture)
    small = max(1, round(size / rng.uniform(1.0, 3.5)))
    soft = image.resize(image.resize(picture, (small, small)), (size, size))
    y0, x0 = rng.integers(0, size // 2, 2)
    y1, x1 = rng.integers(size // 2, size + 1, 2)
    result = picture.copy()
    result[y0:y1, x0:x1] = soft[y0:y1, x0:x1]
    return result


@dataclasses.dataclass(frozen=True)
class CaptionOptions:
    """Options of the text that goes with a picture; see `captions.caption`.

    Attributes:
      from_labels: build texts from the labels, anew at every visit; otherwise
        (or without labels) the record's own text is used, of several any one.
      style, rho, max_phrases, tags: of the caption.
      attributes: what may be mentioned besides sex, age group, expression and age;
        empty for all.
      hard_fraction: negatives that differ from the text in one attribute.
      empty_fraction: examples without a text, so that inpainting needs none.
    """

    from_labels: bool = True
    style: str = "strong"
    rho: float = 1.0
    max_phrases: int = 6
    tags: float = 0.0
    attributes: tuple[str, ...] = ()
    hard_fraction: float = 0.0
    empty_fraction: float = 0.0

    def text(self, record: Record, rng: np.random.Generator) -> str:
        """A text for the record's picture; "" where it has none and no labels."""
        if not (self.from_labels and record.labels):
            text, several = record.text, record.texts
            if len(several) > 1:
                text = several[int(rng.integers(len(several)))]
            return text
        return captions.caption(
            record.labels,
            rng,
            expression=record.expression,
            max_phrases=self.max_phrases,
            style=self.style,
            rho=self.rho,
            tags=self.tags,
            attributes=self.attributes or None,
        )

    def words(self, record: Record) -> str:
        """Words that the bag-of-words term asks for: of labels, or of the own text."""
        if not (self.from_labels and record.labels):
            return " ".join(record.texts) or record.text
        return captions.word_bag(
            record.labels,
            expression=record.expression,
            attributes=self.attributes or None,
        )


@dataclasses.dataclass(frozen=True)
class TokenTransform:
    """Image ids, a text and a text that does not belong (SPEC A.5.1).

    Negatives come from the same data set: in a mixture the style of a text would
    give the match away. A record without a text is an example without one.

    {"image_ids" int32 [n], "text_ids", "negative_ids", "word_ids" int32 [m]}. The
    negative is the text of another record, drawn until its ids differ, or the own
    text with one attribute turned (`hard_fraction`).

    Attributes:
      tokenizer: of the text.
      max_text_tokens: m.
      pool: the records that negatives come from.
      options: how texts are made.
    """

    tokenizer: TextTokenizer
    max_text_tokens: int
    pool: Sequence[Record]
    options: CaptionOptions = CaptionOptions()

    def __call__(self, record: Record, rng: np.random.Generator) -> dict:
        if record.image_ids is None:
            raise UserError(
                f"a record of source '{record.source}' holds no image ids; run "
                "`gptface tokenize` first"
            )
        if self.options.empty_fraction and rng.random() < self.options.empty_fraction:
            return self._example(record, "", "")
        text = self.options.text(record, rng)
        if not text:
            return self._example(record, "", "")
        negative = None
        hard = self.options.hard_fraction and rng.random() < self.options.hard_fraction
        if hard and record.labels and rng.random() < self.options.rho:
            pair = captions.hard_negative(
                record.labels,
                rng,
                max_phrases=self.options.max_phrases,
                attributes=self.options.attributes or None,
            )
            if pair:
                text, negative = pair
        if negative is not None:
            return self._example(record, text, negative)
        where = self._parts.get(_data_set(record), [range(len(self.pool))])
        ends = np.cumsum([len(part) for part in where])
        for _ in range(100):
            number = int(rng.integers(ends[-1]))
            part = int(np.searchsorted(ends, number, side="right"))
            other = self.pool[where[part][number - int(ends[part])]]
            if _data_set(other) != _data_set(record):
                continue
            negative = self.options.text(other, rng)
            if negative in ("", text):  # its ids are the same: nothing to tokenize
                continue
            example = self._example(record, text, negative)
            if (example["text_ids"] != example["negative_ids"]).any():
                return example
        return self._example(record, text, captions.unrelated(rng))

    @functools.cached_property
    def _parts(self) -> dict[str, list[range]]:
        """Data set -> the parts of the pool that hold it, if the pool is a mixture."""
        found: dict[str, list[range]] = {}
        for part in composed.parts(self.pool):
            some = np.linspace(part.start, part.stop - 1, _LOOKED_AT).astype(int)
            for name in {_data_set(self.pool[int(i)]) for i in some}:
                found.setdefault(name, []).append(part)
        return found

    def _example(self, record: Record, text: str, negative: str) -> dict:
        words = self.options.words(record)
        ids = self.tokenizer.encode([text, negative, words], self.max_text_tokens)
        return {
            "image_ids": record.image_ids.reshape(-1).astype(np.int32),
            "text_ids": ids[0],
            "negative_ids": ids[1],
            "word_ids": ids[2],
        }


def _data_set(record: Record) -> str:
    """The first part of "set/file"."""
    return record.source.split("/", 1)[0]


def palette_levels(codebook_size: int) -> int:
    """Steps per colour channel: the cube root of the codebook size.

    Raises:
      UserError: a size that is no cube.
    """
    levels = round(codebook_size ** (1 / 3))
    if levels**3 != codebook_size:
        raise UserError(
            f"image ids of kind 'palette' need a cube as codebook_size (8, 27, 64, "
            f"125, ...), not {codebook_size}"
        )
    return levels


@dataclasses.dataclass(frozen=True)
class PaletteIds:
    """A source whose image ids are quantised mean colours of grid cells.

    No network is needed: for tests, and for trials of the objective where the
    tokenizer should play no part. Code = (r * levels + g) * levels + b.
    """

    source: Sequence[Record]
    grid: tuple[int, int]
    levels: int

    def __len__(self) -> int:
        return len(self.source)

    def __getitem__(self, index: int) -> Record:
        return self.add(self.source[index])

    def add(self, record: Record) -> Record:
        """The record with `image_ids` uint16 [h,w]."""
        h, w = self.grid
        cell = 8
        picture = image.crop_to(decode_picture(record), 1)
        small = image.resize(picture, (h * cell, w * cell)).astype(np.float32)
        mean = small.reshape(h, cell, w, cell, 3).mean(axis=(1, 3))
        steps = np.minimum((mean / 256 * self.levels).astype(int), self.levels - 1)
        ids = steps @ np.array([self.levels**2, self.levels, 1])
        return dataclasses.replace(record, image_ids=ids.astype(np.uint16))


@dataclasses.dataclass(frozen=True)
class WithPalette:
    """Adds palette ids to a record, or to both of a pair, then applies a transform."""

    palette: PaletteIds
    transform: TokenTransform

    def __call__(self, record: Record, rng: np.random.Generator) -> dict:
        if isinstance(record, tuple):
            return self.transform(tuple(map(self.palette.add, record)), rng)
        return self.transform(self.palette.add(record), rng)
