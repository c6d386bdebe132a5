"""Pictures of what a perception model says of a photo."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from gptface_jax.data import image as images
from gptface_jax.pipelines import pictures
from gptface_jax.pipelines.perception import FaceSeen

_CELL = 320  # pixels of a column
_OVERLAY = 0.45
_LISTED = 12  # attributes
_POINT = (60, 220, 90)


def colours(count: int) -> np.ndarray:
    """So many colours that differ, uint8 [count,3]; the first is black."""
    turns = np.arange(count) * 0.618034 % 1.0  # the golden angle
    sector = turns[:, None] * 6 - np.array([0, 2, 4])
    hue = np.clip(np.abs((sector + 3) % 6 - 3) - 1, 0, 1)
    light = np.where(np.arange(count) % 2, 1.0, 0.75)[:, None]
    table = np.uint8(255 * light * (0.25 + 0.75 * (1 - hue)))
    table[0] = 0
    return table


def overlaid(square: np.ndarray, parsing: np.ndarray, classes: int) -> np.ndarray:
    """A picture with the colours of its classes; the background as it is.

    Args:
      square: uint8 [S,S,3].
      parsing: uint8 [s,s].
      classes: how many there are.
    """
    large = enlarged(parsing, len(square))
    tint = colours(max(classes, int(large.max()) + 1))[large]
    mixed = (1 - _OVERLAY) * square + _OVERLAY * tint
    return np.where((large > 0)[..., None], mixed, square).astype(np.uint8)


def enlarged(parsing: np.ndarray, side: int) -> np.ndarray:
    """A map [s,s] at another size, uint8 [side,side]; no class is mixed."""
    at = np.minimum(np.arange(side) * len(parsing) // side, len(parsing) - 1)
    return parsing[at][:, at]


def parts(size: tuple[int, int], faces: Sequence[FaceSeen]) -> np.ndarray:
    """The classes of a photo (H, W) by the maps of its faces, uint8 [H,W].

    0, the background, is where no face's square reaches; of two faces that overlap the
    later one counts.
    """
    result = np.zeros(size, np.uint8)
    for seen in faces:
        if seen.parsing is None:
            continue
        large = enlarged(seen.parsing, seen.view.side)
        for number in np.unique(large[large > 0]):
            result[seen.view.mask_back(large == number, size)] = number
    return result


def face_column(photo: np.ndarray, seen: FaceSeen) -> np.ndarray:
    """The square of a face with its parts and points, uint8 [_CELL,_CELL,3]."""
    square = images.resize(seen.view.picture(photo), (_CELL, _CELL))
    if seen.parsing is not None:
        square = overlaid(square, seen.parsing, len(seen.classes))
    return pointed(square, seen)


def pointed(square: np.ndarray, seen: FaceSeen) -> np.ndarray:
    """The picture uint8 [S,S,3] of a face's square with its landmarks, if any."""
    if seen.landmarks is None:
        return square
    page = Image.fromarray(square)
    draw = ImageDraw.Draw(page)
    scale, radius = len(square) / seen.view.side, max(2, len(square) // 160)
    for x, y in seen.view.way.points(seen.landmarks) * scale:
        ends = x - radius, y - radius, x + radius, y + radius
        draw.ellipse(ends, fill=_POINT)
    return np.asarray(page)


def words(seen: FaceSeen) -> str:
    """Predictions for a face as lines of text, with confidences."""
    lines = [f"face {seen.number}"]
    if seen.age is not None:
        lines.append(f"age {seen.age:.0f} +- {seen.age_spread or 0:.0f}")
    if seen.expression is not None:
        sure = seen.expressions[seen.expression]
        lines.append(f"{seen.expression} {sure:.2f}")
    for name, p in [*seen.present.items()][:_LISTED]:
        lines.append(f"{name.replace('_', ' ').lower()} {p:.2f}")
    return "\n".join(lines)


def sheet(photo: np.ndarray, seen: Sequence[FaceSeen]) -> np.ndarray:
    """The photo with its faces outlined, and a column for each face; uint8."""
    boxes = [one.face.box if one.face else one.view.box for one in seen]
    shown = [pictures.outlined(photo, boxes)]
    shown += [face_column(photo, one) for one in seen]
    captions = ["", *map(words, seen)]
    return pictures.sheet(shown, len(shown), captions, cell=_CELL)
