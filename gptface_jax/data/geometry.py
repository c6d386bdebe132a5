"""One transform for a picture, its points, boxes and maps (SPEC E.11).

Coordinates are (x, y) in pixels, (0, 0) the outer corner of the first pixel: its middle
is (0.5, 0.5), so that a transform that halves a picture halves coordinates.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from gptface_jax.data import image, rendering, schemes
from gptface_jax.data.record import Record, decode_picture


@dataclasses.dataclass(frozen=True)
class Similarity:
    """Scale, rotation and shift, from the pixels of one picture to another's.

    (x, y) goes to (a x - b y + dx, b x + a y + dy); if mirrored, (-x, y) does.

    Attributes:
      a, b: scale times cosine and sine of the angle.
      dx, dy: the shift in pixels.
      mirror: left and right change places, before all else.
    """

    a: float = 1.0
    b: float = 0.0
    dx: float = 0.0
    dy: float = 0.0
    mirror: bool = False

    @property
    def affine(self) -> tuple[float, float, float, float, float, float]:
        """(p, q, r, s, t, u): (x, y) goes to (p x + q y + r, s x + t y + u)."""
        sign = -1 if self.mirror else 1
        return sign * self.a, -self.b, self.dx, sign * self.b, self.a, self.dy

    @property
    def scale(self) -> float:
        """Pixels of the result for one of the source."""
        return math.hypot(self.a, self.b)

    @property
    def degrees(self) -> float:
        """The angle in (-180, 180], clockwise as one sees it."""
        return math.degrees(math.atan2(self.b, self.a))

    @property
    def inverse(self) -> Similarity:
        """The way back."""
        # A mirrored similarity is its own kind of inverse: the angle keeps its sign.
        b = self.b if self.mirror else -self.b
        a, b = np.array([self.a, b]) / (self.a**2 + self.b**2)
        back = Similarity(a, b, mirror=self.mirror)
        dx, dy = -back.points([self.dx, self.dy])
        return dataclasses.replace(back, dx=dx, dy=dy)

    def scaled(self, factor: float) -> Similarity:
        """The transform into a picture `factor` times as large."""
        return self.then(Similarity(factor))

    def then(self, other: Similarity) -> Similarity:
        """This transform followed by another."""
        # A mirror after a rotation turns it the other way.
        turned = -self.b if other.mirror else self.b
        a = other.a * self.a - other.b * turned
        b = other.b * self.a + other.a * turned
        shift = other.points([self.dx, self.dy])
        return Similarity(a, b, *shift, mirror=self.mirror != other.mirror)

    def points(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 2] where the transform brings them; float64."""
        x, y = np.moveaxis(np.asarray(points, np.float64), -1, 0)
        p, q, r, s, t, u = self.affine
        return np.stack([p * x + q * y + r, s * x + t * y + u], -1)

    def boxes(self, boxes: np.ndarray) -> np.ndarray:
        """Upright boxes [..., 4] (x0, y0, x1, y1) around where it brings boxes."""
        x0, y0, x1, y1 = np.moveaxis(np.asarray(boxes, np.float64), -1, 0)
        corners = np.stack([x0, y0, x1, y0, x1, y1, x0, y1], -1)
        corners = self.points(corners.reshape(*corners.shape[:-1], 4, 2))
        return np.concatenate([corners.min(-2), corners.max(-2)], -1)

    def image(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The picture as the transform shows it, its border repeated beyond.

        Bicubic, without aliasing: where it shrinks, pixels are averaged first.

        Args:
          image: uint8 [H,W,3].
          size: (h, w) of the result.

        Returns:
          uint8 [h,w,3].
        """
        # Pillow's transform samples points: shrunk by more than two it would alias. So
        # cells of step x step pixels are averaged first, and the rest of the way is
        # resampled.
        step = max(1, int(1 / self.scale))
        held = self.inverse.points(_corners(size))
        # Bicubic looks two cells beyond.
        low = np.floor(held.min(0) - 3 * step).astype(int)
        cells = np.ceil((held.max(0) + 3 * step - low) / step).astype(int)
        # A whole number of cells: `reduce` would average the last one over fewer
        # pixels.
        high = low + step * cells
        limit = np.array(image.shape[1::-1])
        x0, y0 = near = np.clip(low, 0, limit - 1)
        x1, y1 = far = np.clip(high, near + 1, limit)
        before, after = np.maximum(near - low, 0), np.maximum(high - far, 0)
        around = [(before[1], after[1]), (before[0], after[0]), (0, 0)]
        pixels = np.pad(image[y0:y1, x0:x1], around, mode="edge")
        pixels = pixels[: step * cells[1], : step * cells[0]]
        part = Image.fromarray(pixels)
        part = part.reduce(step) if step > 1 else part
        # Pillow asks for the way from the result's pixels to the source's.
        back = Similarity(step, 0, *low).then(self).inverse
        moved = part.transform(
            size[::-1],
            Image.Transform.AFFINE,
            back.affine,
            Image.Resampling.BICUBIC,
        )
        return np.asarray(moved)

    def lookup(self, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The mask's value at the place from which each pixel comes.

        Args:
          mask: bool [H,W], False beyond.
          size: (h, w) of the result.

        Returns:
          bool [h,w].
        """
        x, y = self._from(size)
        held = (0 <= x) & (x < mask.shape[1]) & (0 <= y) & (y < mask.shape[0])
        return held & self.classes(mask, size)

    def classes(self, values: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """A map's value at the place from which each pixel comes: nearest neighbour.

        Args:
          values: [H,W] of any type, its border repeated beyond.
          size: (h, w) of the result.

        Returns:
          [h,w].
        """
        (x, y), last = self._from(size), np.array(values.shape) - 1
        return values[np.clip(y, 0, last[0]), np.clip(x, 0, last[1])]

    def _from(self, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
        """Source pixel of each pixel of the result: x and y, int32 [h,w] each."""
        p, q, r, s, t, u = self.inverse.affine
        rows, columns = np.arange(size[0])[:, None] + 0.5, np.arange(size[1]) + 0.5
        x = np.floor(p * columns + q * rows + r).astype(np.int32)
        y = np.floor(s * columns + t * rows + u).astype(np.int32)
        return x, y

    def mask(self, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The mask as the transform shows it: no marked pixel is lost.

        Args:
          mask: bool [H,W].
          size: (h, w) of the result.

        Returns:
          bool [h,w], True where a marked pixel lies or comes from.
        """
        # Both ways: looked up, a thin line is lost where the picture shrinks; carried
        # over, an area has holes where it grows.
        result = self.lookup(mask, size)
        marked = np.argwhere(mask)[:, ::-1] + 0.5
        x, y = np.floor(self.points(marked)).astype(int).T
        held = (0 <= x) & (x < size[1]) & (0 <= y) & (y < size[0])
        result[y[held], x[held]] = True
        return result


def fitted(source: np.ndarray, target: np.ndarray) -> Similarity:
    """The similarity that brings points nearest to others, least squares.

    Args:
      source, target: [P,2] pixels, not all the same.
    """
    (mx, my), (tx, ty) = source.mean(0), target.mean(0)
    (x, y), (u, v) = (source - [mx, my]).T, (target - [tx, ty]).T
    # In closed form: with z = x + iy a similarity is one complex factor, whose least
    # squares are sum(conj(z) w) / sum(|z|^2).
    square = np.sum(x * x + y * y)
    a, b = np.sum(x * u + y * v) / square, np.sum(x * v - y * u) / square
    centred = Similarity(1, 0, -mx, -my).then(Similarity(a, b))
    return centred.then(Similarity(1, 0, tx, ty))


def _corners(size: tuple[int, int]) -> np.ndarray:
    height, width = size
    return np.array([[0, 0], [width, 0], [width, height], [0, height]])


def squared(record: Record, size: int) -> Record:
    """The record as `image.fit` shows it: the central square, resized.

    Points, boxes and maps go with the picture; what was cut off lies beyond.

    Args:
      record: with a picture.
      size: side of the result in pixels.

    Returns:
      Record with `image` uint8 [size,size,3].
    """
    picture = decode_picture(record)
    top, left, side, _ = image.central(picture.shape[:2], 1)
    way = Similarity(dx=-left, dy=-top).scaled(size / side)
    return _with(record, image.fit(picture, size), way)


def mirrored(record: Record) -> Record:
    """The record in a mirror: what is left is right, and is called so.

    Raises:
      UserError: landmarks or a map of no known scheme.
    """
    picture = decode_picture(record)[:, ::-1]
    return _with(record, picture, Similarity(dx=picture.shape[1], mirror=True))


def moved(record: Record, way: Similarity, size: tuple[int, int]) -> Record:
    """The record as a transform shows it; maps and picture repeat their border.

    Args:
      record: with a picture.
      way: from the pixels of its picture to the result's.
      size: (h, w) of the result.

    Returns:
      Record with `image` uint8 [h,w,3].

    Raises:
      UserError: `way` mirrors, and landmarks or a map are of no known scheme.
    """
    return _with(record, way.image(decode_picture(record), size), way)


def cut(record: Record, box: Sequence[float], size: int) -> Record:
    """The record as a square part of its picture, resized; three times as fast as
    `moved`, for what is not turned.

    Antialiased (bicubic). Where the part leaves the picture, its border is repeated.

    Args:
      record: with a picture.
      box: (x0, y0, x1, y1), a square in pixels.
      size: side of the result in pixels.

    Returns:
      Record with `image` uint8 [size,size,3].
    """
    picture = decode_picture(record)
    height, width = picture.shape[:2]
    x0, y0, x1, y1 = map(float, box)
    way = Similarity(dx=-x0, dy=-y0).scaled(size / (x1 - x0))
    slack = 1e-3
    if min(x0, y0) < -slack or x1 > width + slack or y1 > height + slack:
        return _with(record, way.image(picture, (size, size)), way)
    part = (max(0.0, x0), max(0.0, y0), min(width, x1), min(height, y1))
    bicubic = Image.Resampling.BICUBIC
    resized = Image.fromarray(picture).resize((size, size), bicubic, box=part)
    return _with(record, np.asarray(resized), way)


def _with(record: Record, picture: np.ndarray, way: Similarity) -> Record:
    """The record with another picture, and all else moved into it."""
    points, parsing, boxes = record.landmarks, record.parsing, record.boxes
    face3d = record.face3d
    if face3d is not None:
        before = decode_picture(record).shape[:2]
        face3d = _moved_head(face3d, way, before, picture.shape[:2])
    if points is not None:
        # `Record` counts from the middle of the first pixel.
        points = np.float32(way.points(np.float64(points) + 0.5) - 0.5)
        if way.mirror:
            points = points[
                schemes.mirrored_points(record.landmark_scheme, len(points))
            ]
    if parsing is not None:
        parsing = way.classes(parsing, picture.shape[:2])
        if way.mirror:
            parsing = schemes.mirrored_classes(record.parsing_scheme)[parsing]
    if boxes is not None:
        boxes = np.float32(way.boxes(boxes))
    words = mirrored_words(record) if way.mirror else record
    return dataclasses.replace(
        words,
        image=picture,
        landmarks=points,
        parsing=parsing,
        boxes=boxes,
        image_ids=None,
        face3d=face3d,
    )


def mirrored_words(record: Record) -> Record:
    """The record with left and right exchanged in its texts and facts.

    Whole words alone: "bright" and "leftover" stay.
    """

    def other(found: re.Match[str]) -> str:
        word = found[0]
        side = "right" if word.lower() == "left" else "left"
        return (
            side.upper()
            if word.isupper()
            else side.title()
            if word[0].isupper()
            else side
        )

    def exchanged(text: str) -> str:
        return re.sub(r"\b(left|right)\b", other, text, flags=re.IGNORECASE)

    return dataclasses.replace(
        record,
        text=exchanged(record.text),
        texts=tuple(map(exchanged, record.texts)),
        facts={name: exchanged(value) for name, value in record.facts.items()},
    )


def _moved_head(
    face3d: Mapping[str, Any], way: Similarity, before: tuple[int, int],
    after: tuple[int, int],
) -> dict[str, Any] | None:  # fmt: skip
    """Pose and light of a head in a picture that a transform made; None in a mirror.

    The head keeps its coefficients; its depth map is left out. None as well where the
    pictures are not square: poses are in half sides.
    """
    square = before[0] == before[1] and after[0] == after[1]
    if way.mirror or not square:
        return None
    pose = np.asarray(face3d["pose"], np.float64)
    middle = (pose[3:5] * [1, -1] + 1) / 2 * before[0]
    shift = (way.points(middle) / after[0] * 2 - 1) * [1, -1]
    scale = pose[5] + math.log(way.scale * before[0] / after[0])
    # Pixels go down: clockwise there is the other way round about the axis of sight.
    turn = rendering.rotation(np.array([0, 0, -math.radians(way.degrees)]))
    vector = rendering.vector_of(turn @ rendering.rotation(pose[:3]))
    moved = {k: v for k, v in face3d.items() if k != "depth"}
    moved["pose"] = np.float32(np.r_[vector, shift, scale])
    moved["sh_light"] = rendering.turned_light(face3d["sh_light"], turn)
    return moved
