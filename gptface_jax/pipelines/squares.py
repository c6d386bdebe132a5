"""Squares of a photo: the central one, one around a mask, one that a user gives."""

from __future__ import annotations

from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.data import regions
from gptface_jax.pipelines.views import Box


def central(size: tuple[int, int]) -> Box:
    """The largest square in the middle of a photo (H, W)."""
    y0, x0, side, _ = images.central(size, 1)
    return x0, y0, x0 + side, y0 + side


def square_holding(mask: np.ndarray) -> Box:
    """The square, of the largest in a photo, that holds most of a mask.

    Among equals the one nearest the middle.

    Args:
      mask: bool [H,W].
    """
    side, wide = min(mask.shape), mask.shape[1] >= mask.shape[0]
    # The square is as long as the shorter side, so only one number is to be chosen:
    # sums over a sliding window by differences of running sums.
    sums = np.concatenate([[0], np.cumsum(mask.sum(0 if wide else 1))])
    held = sums[side:] - sums[:-side]  # by where the square starts
    best = np.flatnonzero(held == held.max())
    start = int(min(best, key=lambda i: abs(i - (len(held) - 1) // 2)))
    x0, y0 = (start, 0) if wide else (0, start)
    return x0, y0, x0 + side, y0 + side


def around(mask: np.ndarray, least: int) -> Box:
    """A square with context around what may change.

    The central square where the mask lies in it and is not small (an aligned
    portrait); else three times the mask, within the photo.

    Args:
      mask: bool [H,W], not empty.
      least: smallest side in pixels.

    Raises:
      UserError: no square within the photo holds the mask.
    """
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    extent, side = int(max(bottom - top, right - left)), min(height, width)
    x0, y0, x1, y1 = middle = central(mask.shape)
    held = x0 <= left and right <= x1 and y0 <= top and bottom <= y1
    # A mask that is small beside the square would be few tokens: the model then sees a
    # smaller square, in which it is more.
    if held and 4 * extent >= side:
        return middle
    if extent > side:
        raise UserError(
            f"the mask is {right - left} x {bottom - top}; no square in a photo of "
            f"{width} x {height} holds it: mask less"
        )
    # Three times the mask: a third of the square changes, two thirds are context.
    side = min(side, max(3 * extent, least))

    def start(low, high, length):
        return int(np.clip((low + high - side) // 2, 0, length - side))

    x0, y0 = start(left, right, width), start(top, bottom, height)
    return x0, y0, x0 + side, y0 + side


def checked_crop(crop: Box | None, size: tuple[int, int]) -> Box:
    """A square within a photo (H, W); default the central one.

    Raises:
      UserError: it leaves the photo, or is none.
    """
    if crop is None:
        return central(size)
    x0, y0, x1, y1 = crop = checked_box(crop, "crop")
    regions.box_mask(crop, size)  # refuses a box that does not fit
    if x1 - x0 != y1 - y0:
        raise UserError(
            f"crop {x0},{y0},{x1},{y1} is {x1 - x0} x {y1 - y0}; give a square"
        )
    return crop


def checked_box(values: Any, name: str) -> Box:
    """A box (x0, y0, x1, y1) of whole numbers.

    Raises:
      UserError: it is something else.
    """
    box = tuple(values)
    if len(box) != 4 or not all(isinstance(v, (int, np.integer)) for v in box):
        raise UserError(f"{name} is {values!r}; give (x0, y0, x1, y1), whole numbers")
    return box
