"""A small drawing surface: soft polygons, ribbons and glows on a float picture.

Points are in face units: the picture is 1 wide and 1 high, (0.5, 0.5) its centre,
y down. A pose (shift, scale, rotation) maps face units to the picture.
"""

from __future__ import annotations

import functools
import math

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

_CENTRE = np.array([0.5, 0.55])
Box = tuple[slice, slice]
# One polygon [N,2] or several, drawn together.
Points = np.ndarray | list[np.ndarray]


@functools.lru_cache(maxsize=8)
def _grid(size: int) -> tuple[np.ndarray, np.ndarray]:
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size
    return np.meshgrid(axis, axis)


class Canvas:
    """The picture being drawn.

    Attributes:
      size: side in pixels.
      rgb: float32 [S,S,3] in 0..1.
      classes: uint8 [S,S], CelebAMask-HQ classes.
      x, y: float32 [S,S], the face units of every pixel centre.
    """

    def __init__(
        self,
        size: int,
        shift: tuple[float, float] = (0.0, 0.0),
        scale: float = 1.0,
        rotation: float = 0.0,
    ) -> None:
        self.size = size
        self.rgb = np.zeros((size, size, 3), np.float32)
        self.classes = np.zeros((size, size), np.uint8)
        self.fine = 4 if size <= 160 else 2
        cos, sin = math.cos(math.radians(rotation)), math.sin(math.radians(rotation))
        self._turn = scale * np.array([[cos, -sin], [sin, cos]])
        self._origin = _CENTRE + np.array(shift)
        self._scale = scale
        back = np.linalg.inv(self._turn).astype(np.float32)
        u, v = _grid(size)
        u, v = u - np.float32(self._origin[0]), v - np.float32(self._origin[1])
        self.x = back[0, 0] * u + back[0, 1] * v + np.float32(_CENTRE[0])
        self.y = back[1, 0] * u + back[1, 1] * v + np.float32(_CENTRE[1])

    def to_picture(self, points: np.ndarray) -> np.ndarray:
        """Picture units [N,2] (0..1, y down) of face units [N,2]."""
        return (np.asarray(points) - _CENTRE) @ self._turn.T + self._origin

    def mask(self, points: Points, blur: float = 0.0) -> tuple[Box, np.ndarray] | None:
        """Coverage of a polygon, or of several together.

        Args:
          points: face units [N,2], or a list of such.
          blur: standard deviation of the soft edge in face units.

        Returns:
          The box of rows and columns and float32 coverage in it, or None when
          the polygon lies outside the picture.
        """
        shapes = points if isinstance(points, list) else [points]
        spots = self.to_picture(np.concatenate(shapes)) * self.size
        sigma = blur * self._scale * self.size
        margin = 1 + 2.5 * sigma
        low = np.floor(spots.min(0) - margin).astype(int)
        high = np.ceil(spots.max(0) + margin).astype(int)
        left, top = np.maximum(low, 0)
        right, bottom = np.minimum(high, self.size)
        if left >= right or top >= bottom:
            return None
        fine = self.fine if sigma < 2 else 1
        # A blurred shape may reach in from outside the picture.
        pad = math.ceil(margin) if sigma else 0
        width, height = right - left + 2 * pad, bottom - top + 2 * pad
        sheet = Image.new("L", (width * fine, height * fine))
        local = ((spots - (left - pad, top - pad)) * fine - 0.5).ravel().tolist()
        pen, start = ImageDraw.Draw(sheet), 0
        for shape in shapes:
            pen.polygon(local[start : start + 2 * len(shape)], fill=255)
            start += 2 * len(shape)
        if fine > 1:
            sheet = sheet.reduce(fine)
        if sigma > 0.3:
            sheet = sheet.filter(ImageFilter.GaussianBlur(sigma))
        bytes_ = np.frombuffer(sheet.tobytes(), np.uint8).reshape(height, width)
        cover = bytes_ * np.float32(1 / 255)
        cover = cover[pad : pad + bottom - top, pad : pad + right - left]
        return (slice(top, bottom), slice(left, right)), cover

    def layer(self, points: Points, blur: float = 0.0) -> np.ndarray:
        """Coverage of a polygon over the whole picture: float32 [S,S]."""
        whole = np.zeros((self.size, self.size), np.float32)
        part = self.mask(points, blur)
        if part is not None:
            whole[part[0]] = part[1]
        return whole

    def blend(
        self,
        box: Box,
        cover: np.ndarray,
        colour: np.ndarray,
        number: int | None = None,
    ) -> None:
        """Lays a colour ([3] or [h,w,3]) over a box with the given coverage."""
        target = self.rgb[box]
        target += cover[..., None] * (np.asarray(colour, np.float32) - target)
        if number is not None:
            self.classes[box][cover > 0.5] = number

    def paint(
        self,
        points: Points,
        colour: np.ndarray,
        alpha: float = 1.0,
        blur: float = 0.0,
        number: int | None = None,
        clip: np.ndarray | None = None,
    ) -> None:
        """Fills a polygon, or several at once.

        Args:
          points: face units [N,2], or a list of such.
          colour: [3] in 0..1.
          alpha: opacity.
          blur: softness of the edge in face units.
          number: parsing class of the covered pixels, or None to leave it.
          clip: float32 [S,S] that the coverage is multiplied with.
        """
        part = self.mask(points, blur)
        if part is None:
            return
        box, cover = part
        if clip is not None:
            cover = cover * clip[box]
        self.blend(box, cover if alpha == 1 else cover * np.float32(alpha), colour)
        if number is not None:
            self.classes[box][cover > 0.5] = number

    def line(
        self,
        points: np.ndarray,
        width: float | np.ndarray,
        colour: np.ndarray,
        alpha: float = 1.0,
        blur: float = 0.0,
        number: int | None = None,
        clip: np.ndarray | None = None,
    ) -> None:
        """A ribbon along points [N,2]; `width` one number or [N]."""
        self.paint(ribbon(points, width), colour, alpha, blur, number, clip)

    def glow(
        self,
        centre: tuple[float, float],
        spread: tuple[float, float],
        colour: np.ndarray,
        alpha: float,
        clip: np.ndarray | None = None,
    ) -> None:
        """A Gaussian spot of a colour, cut off at 2.5 standard deviations."""
        reach = 2.5 * max(spread)
        corners = np.array(centre) + reach * np.array(
            [[-1, -1], [1, -1], [1, 1], [-1, 1]]
        )
        spots = self.to_picture(corners) * self.size
        left, top = np.maximum(np.floor(spots.min(0)).astype(int), 0)
        right, bottom = np.minimum(np.ceil(spots.max(0)).astype(int), self.size)
        if left >= right or top >= bottom:
            return
        box = (slice(top, bottom), slice(left, right))
        far = ((self.x[box] - np.float32(centre[0])) * np.float32(1 / spread[0])) ** 2
        far += ((self.y[box] - np.float32(centre[1])) * np.float32(1 / spread[1])) ** 2
        # Falls to exactly 0 at the rim, so that nothing beyond changes.
        cover = np.maximum(np.exp(far * np.float32(-0.5)) - np.float32(0.0439), 0)
        cover *= np.float32(alpha)
        if clip is not None:
            cover *= clip[box]
        self.blend(box, cover, colour)


def ribbon(points: np.ndarray, width: float | np.ndarray) -> np.ndarray:
    """The outline [2N,2] of a line through points [N,2] of the given width."""
    points = np.asarray(points, np.float64)
    along = np.empty_like(points)
    along[1:-1] = points[2:] - points[:-2]
    along[0], along[-1] = points[1] - points[0], points[-1] - points[-2]
    across = along[:, ::-1] * [-1, 1]
    length = np.sqrt(across[:, 0] ** 2 + across[:, 1] ** 2)
    half = np.asarray(width, np.float64) / (2 * np.maximum(length, 1e-9))
    side = half[:, None] * across
    return np.concatenate([points + side, (points - side)[::-1]])


def oval(
    centre: tuple[float, float], radius: tuple[float, float], count: int = 24
) -> np.ndarray:
    """An ellipse as points [count,2]."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack(
        [centre[0] + radius[0] * np.cos(angle), centre[1] + radius[1] * np.sin(angle)],
        axis=1,
    )


def smooth(points: np.ndarray, closed: bool = True, steps: int = 5) -> np.ndarray:
    """A Catmull-Rom curve through points [N,2]."""
    points = np.asarray(points, np.float64)
    if closed:
        around = np.concatenate([points[-1:], points, points[:2]])
    else:
        around = np.concatenate([points[:1], points, points[-1:]])
    weights = _catmull_rom(steps)
    before, start, end, after = around[:-3], around[1:-2], around[2:-1], around[3:]
    corners = np.stack([before, start, end, after], axis=1)  # [N-1,4,2]
    curve = (weights @ corners).reshape(-1, 2)
    return curve if closed else np.concatenate([curve, points[-1:]])


@functools.lru_cache(maxsize=8)
def _catmull_rom(steps: int) -> np.ndarray:
    t = np.arange(steps) / steps
    return 0.5 * np.stack(
        [
            -t + 2 * t**2 - t**3,
            2 - 5 * t**2 + 3 * t**3,
            t + 4 * t**2 - 3 * t**3,
            -(t**2) + t**3,
        ],
        axis=1,
    )


def mirror(right: np.ndarray) -> np.ndarray:
    """The whole of a right half, mirrored around x 0.5."""
    right = np.asarray(right, np.float64)
    return np.concatenate([right, (right * [-1, 1])[::-1]]) + [0.5, 0]
