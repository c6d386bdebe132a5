"""Geometry of one picture: sizes, crops, token grids (SPEC A.10).

Inside the package a picture is either uint8 [H,W,3] sRGB ("array") or float32
[H,W,3] in [-1,1] ("unit range"). Masks are bool [H,W], True = to be changed.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from PIL import Image


def to_unit_range(image: np.ndarray) -> np.ndarray:
    """Pixels float32 in [-1,1] of uint8 0..255."""
    return image.astype(np.float32) / np.float32(127.5) - np.float32(1.0)


def from_unit_range(image: Any) -> np.ndarray:
    """Pixels uint8 of floats in [-1,1], clipped; inverse of `to_unit_range`."""
    scaled = (np.asarray(image, np.float32) + 1.0) * 127.5
    return np.clip(np.round(scaled), 0, 255).astype(np.uint8)


def resize(image: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The picture uint8 [H,W,3] at another size, antialiased (Lanczos)."""
    height, width = size
    if image.shape[:2] == (height, width):
        return image
    filtered = Image.fromarray(image).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(filtered)


def central(size: tuple[int, int], ratio: float) -> tuple[int, int, int, int]:
    """The window (top, left, h, w) that `crop_to` keeps of (H, W)."""
    height, width = size
    h = max(1, min(height, round(width / ratio)))
    w = max(1, min(width, round(height * ratio)))
    return (height - h) // 2, (width - w) // 2, h, w


def crop_to(image: np.ndarray, ratio: float) -> np.ndarray:
    """The largest central part of an image [H,W,3] of a width-to-height ratio."""
    top, left, h, w = central(image.shape[:2], ratio)
    return image[top : top + h, left : left + w]


def fit(image: np.ndarray, size: int) -> np.ndarray:
    """The central square of uint8 [H,W,3], resized; uint8 [size,size,3]."""
    return resize(crop_to(image, 1), (size, size))


def pixels_to_tokens(mask: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Token mask bool [h,w] of bool [H,W]: masked where any pixel of the cell is.

    Sides need not be multiples of the grid: a pixel on a cell border counts for
    both cells.
    """

    def reduce(rows: np.ndarray, cells: int) -> np.ndarray:
        n = rows.shape[0]
        return np.stack(
            [
                rows[
                    math.floor(i * n / cells) : max(
                        math.ceil((i + 1) * n / cells), math.floor(i * n / cells) + 1
                    )
                ].any(axis=0)
                for i in range(cells)
            ]
        )

    return reduce(reduce(mask, grid[0]).T, grid[1]).T


def tokens_to_pixels(tokens: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Pixel mask bool [H,W] of a token mask bool [h,w], every cell as a block."""
    rows = np.arange(size[0]) * tokens.shape[0] // size[0]
    columns = np.arange(size[1]) * tokens.shape[1] // size[1]
    return tokens[rows[:, None], columns[None, :]]


def dilate(mask: np.ndarray, steps: int = 1) -> np.ndarray:
    """Grows a bool mask by `steps` cells in the 8 directions."""
    for _ in range(steps):
        padded = np.pad(mask, 1)
        rows = padded[:-2] | padded[1:-1] | padded[2:]
        mask = rows[:, :-2] | rows[:, 1:-1] | rows[:, 2:]
    return mask


def grown(mask: np.ndarray, pixels: int) -> np.ndarray:
    """A bool mask [H,W] with all that lies within so many pixels of it, as a disc."""
    from scipy import ndimage

    if not pixels or not mask.any():
        return mask
    return ndimage.distance_transform_edt(~mask) <= pixels
