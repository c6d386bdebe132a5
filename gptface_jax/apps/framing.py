"""Which pixels may change, and which square of the photo the model sees."""

from __future__ import annotations

import hashlib
import os
import pathlib
from typing import Any

import jax
import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.data import regions
from gptface_jax.ops import masking

SHAPES = ("span", "random")
Box = tuple[int, int, int, int]


def central(size: tuple[int, int]) -> Box:
    """The largest square in the middle of a photo (H, W)."""
    height, width = size
    side = min(height, width)
    x0, y0 = (width - side) // 2, (height - side) // 2
    return x0, y0, x0 + side, y0 + side


def holding(mask: np.ndarray) -> Box:
    """Of the largest squares of a photo the one that holds most of a mask.

    Among equals the one nearest the middle.

    Args:
      mask: bool [H,W].
    """
    side, wide = min(mask.shape), mask.shape[1] >= mask.shape[0]
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
    if held and 4 * extent >= side:
        return middle
    if extent > side:
        raise UserError(
            f"the mask is {right - left} x {bottom - top}; no square in a photo of "
            f"{width} x {height} holds it: mask less"
        )
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
    x0, y0, x1, y1 = crop = _box(crop, "crop")
    regions.box_mask(crop, size)  # refuses a box that does not fit
    if x1 - x0 != y1 - y0:
        raise UserError(
            f"crop {x0},{y0},{x1},{y1} is {x1 - x0} x {y1 - y0}; give a square"
        )
    return crop


def hidden_tokens(region: str, grid: tuple[int, int], key: jax.Array) -> np.ndarray:
    """Tokens hidden by chance, as in pre-training (SPEC A.6).

    Args:
      region: "span:0.4", one connected region of 40 % of the tokens, or "random:0.4".
      grid: (h, w) in tokens.
      key: the same one hides the same tokens.

    Returns:
      bool [h,w].

    Raises:
      UserError: another shape, or a share that hides nothing or everything.
    """
    shape, _, share = region.partition(":")
    count = grid[0] * grid[1]
    try:
        budget = round(float(share) * count)
    except (ValueError, OverflowError):
        budget = 0
    if shape not in SHAPES or not 0 < budget < count:
        raise UserError(
            f"region '{region}' hides nothing by chance; give span:0.4 or random:0.4, "
            f"with a share that leaves some of {count} tokens and hides some"
        )
    budgets = np.array([budget])
    if shape == "span":
        hidden = masking.span_mask(grid, budgets, key)
    else:
        hidden = masking.random_mask((1, count), budgets, key)
    return np.asarray(hidden).reshape(grid)


def frame(
    size: tuple[int, int],
    mask: images.Source | None,
    box: Box | None,
    region: str | None,
    crop: Box | None,
    least: int,
    hidden: np.ndarray | None = None,
) -> tuple[np.ndarray, Box, dict[str, Any]]:
    """What may change, what the model sees, and how that was given.

    Args:
      size: (H, W) of the photo.
      mask, box, region: exactly one of them; see `Model.edit`.
      crop: square that the model sees; default the central one for a region, else
        `around` the mask.
      least: smallest side of a square that is chosen here.
      hidden: bool [h,w], the region where its name is not of `data.regions`.

    Returns:
      (mask bool [H,W], square, description for the sidecar).

    Raises:
      UserError: none or several are given, or they do not fit the photo.
    """
    given = [w for w in (mask, box, region) if w is not None]
    if len(given) != 1:
        raise UserError(
            f"{len(given)} of mask, box and region are given; give exactly one"
        )
    if crop is not None or region is not None:
        x0, y0, x1, y1 = crop = checked_crop(crop, size)
    if region is not None:
        result = np.zeros(size, bool)
        if hidden is None:
            inside = regions.region_mask(region, x1 - x0)
        else:
            inside = images.tokens_to_pixels(hidden, (y1 - y0, x1 - x0))
        result[y0:y1, x0:x1] = inside
        said: dict[str, Any] = {"region": region}
    elif box is not None:
        box = _box(box, "box")
        result, said = regions.box_mask(box, size), {"box": [int(v) for v in box]}
    else:
        result = images.decode_mask(mask, size)
        said = {"picture": hashlib.sha256(np.packbits(result)).hexdigest()[:16]}
        if isinstance(mask, (str, os.PathLike)):
            said["file"] = pathlib.Path(mask).name
    if not result.any():
        raise UserError(
            f"region '{region}' holds no pixel of a square of {x1 - x0}; give a larger "
            "photo"
        )
    crop = crop or around(result, least)
    x0, y0, x1, y1 = crop
    inside = result[y0:y1, x0:x1]
    if result.sum() != inside.sum():
        raise UserError(
            f"{int(result.sum() - inside.sum())} masked pixels lie outside the square "
            f"{x0},{y0},{x1},{y1} that the model sees; mask less or give another crop"
        )
    if inside.all():
        raise UserError(
            "the mask covers the whole picture; leave something for the model to fit "
            "the edit to"
        )
    return result, crop, {**said, "pixels": int(result.sum())}


def _box(values: Any, name: str) -> Box:
    box = tuple(values)
    if len(box) != 4 or not all(isinstance(v, (int, np.integer)) for v in box):
        raise UserError(f"{name} is {values!r}; give (x0, y0, x1, y1), whole numbers")
    return box
