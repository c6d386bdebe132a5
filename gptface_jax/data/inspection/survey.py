"""The numbers of a data sheet, gathered record by record: 32 bytes of memory each."""

from __future__ import annotations

import array
import collections
import dataclasses
import hashlib
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import claims, schemes, transforms
from gptface_jax.data.prepare import duplicates, quality
from gptface_jax.data.record import Record

_MOST = 20  # words of one name
_STEP = {"luminance": 5, "yaw": 10, "roll": 10, "words": 2, "face": 16, "age": 5}


@dataclasses.dataclass
class Mentions:
    """How often texts speak of one attribute.

    Attributes:
      present, absent: pictures of which that is certain.
      said: texts that say it of a picture that has it.
      denied: texts that say the opposite of what is certain, either way.
    """

    present: int = 0
    absent: int = 0
    said: int = 0
    denied: int = 0


class Survey:
    """Counts over the records of a set.

    Attributes:
      records, texts: how many.
      bare: records without a text.
      unreadable: whose picture cannot be decoded.
      sizes: (width, height) -> pictures.
      histograms: quantity -> {lower edge: count}; steps are those of `step_of`.
      labels: attribute -> [absent, unsure, present].
      words: name of what is told by a word, such as "expression" -> {word: records}.
      mentions: attribute -> `Mentions`.
      silent: texts that name nothing about a face.
      sources: first part of the source -> records.
    """

    def __init__(self):
        self.records = self.texts = self.bare = self.unreadable = self.silent = 0
        self.sizes: collections.Counter = collections.Counter()
        self.sources: collections.Counter[str] = collections.Counter()
        self.histograms: dict[str, collections.Counter[int]] = {
            name: collections.Counter() for name in _STEP
        }
        self.labels: dict[str, list[int]] = {}
        self.words: dict[str, collections.Counter[str]] = {}
        self.mentions: dict[str, Mentions] = {}
        self._rows = array.array("Q")  # of `duplicates.ROW`

    def add(self, record: Record) -> np.ndarray | None:
        """Counts a record; returns its pixels, None where they cannot be read."""
        number, self.records = self.records, self.records + 1
        self.sources[str(record.source).partition("/")[0]] += 1
        self._add_texts(record)
        for name, score in (record.labels or {}).items():
            if name == "Age":
                self._count("age", score)
            else:
                counts = self.labels.setdefault(name, [0, 0, 0])
                counts[0 if score < 0.1 else 2 if score > 0.9 else 1] += 1
        told = {"expression": record.expression, **record.facts}
        for name, word in told.items():
            if word:
                self.words.setdefault(name, collections.Counter())[str(word)] += 1
        if record.image is None:
            return None
        try:
            pixels = transforms.decode_picture(record)
        except UserError:
            self.unreadable += 1
            return None
        self._add_picture(record, pixels, number)
        return pixels

    def _count(self, name: str, value: float) -> None:
        if math.isfinite(value):
            step = _STEP[name]
            self.histograms[name][int(math.floor(value / step)) * step] += 1

    def _add_texts(self, record: Record) -> None:
        texts = record.texts or ((record.text,) if record.text else ())
        self.bare += not texts
        self.texts += len(texts)
        truths = claims.truths(record.labels, record.expression)
        for name, present in truths.items():
            mentions = self.mentions.setdefault(name, Mentions())
            mentions.present += present * len(texts)
            mentions.absent += (not present) * len(texts)
        for text in texts:
            self._count("words", len(text.split()))
            said = claims.claimed(text)
            self.silent += not said
            for name, present in said:
                if name in truths:
                    mentions = self.mentions[name]
                    mentions.said += present and truths[name]
                    mentions.denied += present != truths[name]

    def _add_picture(self, record: Record, pixels: np.ndarray, number: int) -> None:
        height, width = pixels.shape[:2]
        self.sizes[width, height] += 1
        grey = quality.grey_square(pixels, np.array([0, 0, width, height]), 32)
        data = record.image if isinstance(record.image, bytes) else pixels.tobytes()
        digest = int(hashlib.sha256(data).hexdigest()[:16], 16)
        self._rows.extend((duplicates.perceptual_hash(grey), digest, number, 0))
        five = five_of(record)
        if five is None:
            return
        yaw, roll = quality.pose(five)
        self._count("yaw", yaw)
        self._count("roll", roll)
        self._count("luminance", luminance(pixels, five))
        # The box that is largest, or from the brows to the chin by the five points.
        self._count("face", _face_side(record, five))

    def copies(self, bits: int = 2) -> dict[str, int]:
        """Pictures that have an earlier copy: "exact", and "near" by their hashes."""
        rows = np.frombuffer(self._rows, duplicates.ROW)
        found = {}
        for name, of in (("exact", (-1, True)), ("near", (bits, False))):
            works = duplicates.plan(len(rows), *of)
            hits = [duplicates.find(work, [rows]) for work in works]
            found[name] = len(duplicates.merged(hits, 0))
        return found

    def as_json(self) -> dict[str, Any]:
        """The survey as JSON types, with the estimate of weak correlation."""
        present = sum(m.present for m in self.mentions.values())
        said = sum(m.said for m in self.mentions.values())
        denied = sum(m.denied for m in self.mentions.values())
        return {
            "records": self.records,
            "texts": self.texts,
            "records without a text": self.bare,
            "unreadable pictures": self.unreadable,
            "share of texts that name nothing about a face": _share(
                self.silent, self.texts
            ),
            "share of present attributes that a text mentions": _share(said, present),
            "claims that the labels contradict, per text": _share(denied, self.texts),
            "copies": self.copies(),
            "sizes": {f"{w} x {h}": n for (w, h), n in self.sizes.most_common(12)},
            "sources": dict(self.sources.most_common(20)),
            "histograms": {
                name: {str(edge): n for edge, n in sorted(counts.items())}
                for name, counts in self.histograms.items()
                if counts
            },
            "labels": {
                name: dict(zip(("absent", "unsure", "present"), counts))
                for name, counts in sorted(self.labels.items())
            },
            "words": {
                name: dict(counts.most_common(_MOST))
                for name, counts in sorted(self.words.items())
            },
            "mentions": {
                name: dataclasses.asdict(m) | {"rate": _share(m.said, m.present)}
                for name, m in sorted(self.mentions.items())
            },
        }


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 4) if whole else None


def five_of(record: Record) -> np.ndarray | None:
    """Five points of a record's face float [5,2] in pixels, borders as of boxes."""
    points = record.landmarks
    if points is None or not np.isfinite(points).all():
        return None
    return schemes.five_of(np.asarray(points, np.float64) + 0.5, record.landmark_scheme)


def _face_side(record: Record, five: np.ndarray) -> float:
    if record.boxes is not None and len(record.boxes):
        sides = record.boxes[:, 2:] - record.boxes[:, :2]
        return float(np.sqrt(np.prod(sides, axis=1).max()))
    return 2.2 * float(np.hypot(*(five[1] - five[0])))


def luminance(image: np.ndarray, five: np.ndarray) -> float:
    """L* of CIELAB (0 black, 100 white) of the cheeks; NaN where they are outside.

    The median of two patches midway between eye and mouth. It tells how bright the skin
    is in the picture: light and camera count as much as the skin.

    Args:
      image: uint8 [H,W,3].
      five: see `five_of`.
    """
    radius = max(1, round(0.12 * float(np.hypot(*(five[1] - five[0])))))
    pixels = []
    for eye, mouth in ((0, 3), (1, 4)):
        x, y = np.round((five[eye] + five[mouth]) / 2).astype(int)
        if x < 0 or y < 0:
            continue
        patch = image[max(0, y - radius) : y + radius, max(0, x - radius) : x + radius]
        pixels.append(patch.reshape(-1, 3))
    found = np.concatenate(pixels) if pixels else np.zeros((0, 3))
    if not len(found):
        return math.nan
    # IEC 61966-2-1 to relative luminance, CIE 1976 to L*.
    value = found / 255.0
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    y = float(np.median(linear @ [0.2126, 0.7152, 0.0722]))
    return 116 * y ** (1 / 3) - 16 if y > 216 / 24389 else y * 24389 / 27


def step_of(quantity: str) -> int:
    """Width of the bins of a quantity in `Survey.histograms`."""
    return _STEP[quantity]


def table(values: Mapping[str, Any], depth: int = 0) -> list[str]:
    """Lines that show nested values to a person."""
    lines = []
    for name, value in values.items():
        if isinstance(value, Mapping):
            lines += [f"{'  ' * depth}{name}", *table(value, depth + 1)]
        else:
            lines.append(f"{'  ' * depth}{name}: {value}")
    return lines
