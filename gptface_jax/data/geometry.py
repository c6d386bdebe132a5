"""One transform for a picture, its points and its masks (SPEC E.11).

Coordinates are (x, y) in pixels, (0, 0) the outer corner of the first pixel: its middle
is (0.5, 0.5), so that a transform that halves a picture halves coordinates.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from PIL import Image


@dataclasses.dataclass(frozen=True)
class Similarity:
    """Scale, rotation and shift, from the pixels of one picture to another's.

    (x, y) goes to (a x - b y + dx, b x + a y + dy).

    Attributes:
      a, b: scale times cosine and sine of the angle.
      dx, dy: the shift in pixels.
    """

    a: float = 1.0
    b: float = 0.0
    dx: float = 0.0
    dy: float = 0.0

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
        a, b = np.array([self.a, -self.b]) / (self.a**2 + self.b**2)
        back = Similarity(a, b)
        dx, dy = -back.points([self.dx, self.dy])
        return dataclasses.replace(back, dx=dx, dy=dy)

    def scaled(self, factor: float) -> Similarity:
        """The same into a picture `factor` times as large."""
        return self.then(Similarity(factor))

    def then(self, other: Similarity) -> Similarity:
        """This transform followed by another."""
        a = other.a * self.a - other.b * self.b
        b = other.b * self.a + other.a * self.b
        return Similarity(a, b, *other.points([self.dx, self.dy]))

    def points(self, points: np.ndarray) -> np.ndarray:
        """Points [..., 2] where the transform brings them; float64."""
        x, y = np.moveaxis(np.asarray(points, np.float64), -1, 0)
        turned = self.a * x - self.b * y + self.dx, self.b * x + self.a * y + self.dy
        return np.stack(turned, -1)

    def image(self, image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The picture as the transform shows it, its border repeated beyond.

        Bicubic, without aliasing: where it shrinks, pixels are averaged first.

        Args:
          image: uint8 [H,W,3].
          size: (h, w) of the result.

        Returns:
          uint8 [h,w,3].
        """
        step = max(1, int(1 / self.scale))
        held = self.inverse.points(_corners(size))
        # Bicubic looks two cells beyond.
        low = np.floor(held.min(0) - 3 * step).astype(int)
        cells = np.ceil((held.max(0) + 3 * step - low) / step).astype(int)
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
        back = Similarity(step, 0, *low).then(self).inverse
        moved = part.transform(
            size[::-1],
            Image.Transform.AFFINE,
            (back.a, -back.b, back.dx, back.b, back.a, back.dy),
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
        back, (height, width) = self.inverse, size
        rows, columns = np.arange(height)[:, None] + 0.5, np.arange(width) + 0.5
        x = np.floor(back.a * columns - back.b * rows + back.dx).astype(np.int32)
        y = np.floor(back.b * columns + back.a * rows + back.dy).astype(np.int32)
        held = (0 <= x) & (x < mask.shape[1]) & (0 <= y) & (y < mask.shape[0])
        last = np.array(mask.shape) - 1
        return held & mask[np.clip(y, 0, last[0]), np.clip(x, 0, last[1])]

    def mask(self, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """The mask as the transform shows it: no marked pixel is lost.

        Args:
          mask: bool [H,W].
          size: (h, w) of the result.

        Returns:
          bool [h,w], True where a marked pixel lies or comes from.
        """
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
    square = np.sum(x * x + y * y)
    a, b = np.sum(x * u + y * v) / square, np.sum(x * v - y * u) / square
    centred = Similarity(1, 0, -mx, -my).then(Similarity(a, b))
    return centred.then(Similarity(1, 0, tx, ty))


def _corners(size: tuple[int, int]) -> np.ndarray:
    height, width = size
    return np.array([[0, 0], [width, 0], [width, height], [0, height]])
