"""Puts one face together, back to front."""

from __future__ import annotations

import dataclasses

import numpy as np
from PIL import Image

from gptface_jax.core.errors import UserError
from gptface_jax.data.faces.canvas import Canvas
from gptface_jax.data.faces.clothes import Clothes
from gptface_jax.data.faces.factors import Factors
from gptface_jax.data.faces.hair import Hair
from gptface_jax.data.faces.head import Head
from gptface_jax.data.faces.palette import hsv
from gptface_jax.data.faces.shape import Shape
from gptface_jax.data.faces.worn import Worn

SIZES = (32, 512)
# Leaves room for the shoulders: the chin comes to about 0.85 of the height.
_ZOOM, _LIFT = 0.95, 0.028


@dataclasses.dataclass(frozen=True)
class Face:
    """One drawn face.

    Attributes:
      image: uint8 [S,S,3] sRGB.
      landmarks: float32 [68,2] iBUG points (x, y) in pixels, pixel centres at
        integers; also where something hides them.
      parsing: uint8 [S,S] CelebAMask-HQ classes of what is seen; l_ and r_ are
        the picture's left and right. Glasses cover the eyes (eye_g, lenses
        included), a surgical mask counts as cloth, a hand as background.
    """

    image: np.ndarray
    landmarks: np.ndarray
    parsing: np.ndarray


def _background(canvas: Canvas, factors: Factors) -> None:
    rng = np.random.default_rng([factors.noise_seed, 2])
    hue, value = factors.background_hue, factors.background_value
    first = hsv(hue, 0.08 + 0.4 * rng.random(), value)
    second = hsv(hue + 0.13, 0.05 + 0.35 * rng.random(), 0.3 + 0.45 * value)
    cells = 9
    if factors.background == "gradient":
        ramp = np.linspace(0, 1, cells)
        part = 0.6 * ramp[:, None] + 0.4 * ramp[None]
    elif factors.background == "blobs":
        part = rng.random((cells, cells)) ** 1.5
    else:
        part = np.repeat(rng.random((1, cells)), cells, axis=0)
    small = first + part[..., None] * (second - first)
    sheet = Image.fromarray((small * 255).astype(np.uint8))
    size = (canvas.size, canvas.size)
    full = np.asarray(sheet.resize(size, Image.Resampling.BICUBIC), np.float32)
    canvas.rgb[:] = full / np.float32(255)


def _grain(canvas: Canvas, factors: Factors) -> None:
    rng = np.random.default_rng([factors.noise_seed, 3])
    shape = (canvas.size, canvas.size, 1)
    canvas.rgb += rng.standard_normal(shape, np.float32) * np.float32(0.008)


def render(factors: Factors, size: int) -> Face:
    """The drawn face of `factors`; equal arguments give equal arrays.

    Args:
      factors: what to draw.
      size: side in pixels, 32..512.

    Returns:
      Picture, landmarks and parsing map.

    Raises:
      UserError: a size out of range.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise UserError(
            f"picture size {size} is out of range; give {SIZES[0]} to {SIZES[1]} pixels"
        )
    shift = (factors.shift_x, factors.shift_y - _LIFT)
    canvas = Canvas(size, shift, _ZOOM * factors.scale, factors.rotation)
    shape = Shape(factors)
    head = Head(canvas, shape, factors)
    hair = Hair(canvas, shape, factors, head)
    worn = Worn(canvas, shape, factors, head)
    _background(canvas, factors)
    hair.behind()
    head.neck()
    Clothes(canvas, factors, head).draw()
    head.ears()
    head.skin_area()
    head.nose()
    head.eyes()
    head.brows()
    head.mouth()
    hair.beard()
    hair.front()
    worn.hat()
    worn.earrings()
    worn.glasses()
    worn.occluder()
    _grain(canvas, factors)
    picture = np.clip(np.rint(canvas.rgb * 255), 0, 255).astype(np.uint8)
    points = canvas.to_picture(shape.landmarks()) * size - 0.5
    return Face(picture, points.astype(np.float32), canvas.classes)


def edit_mask(before: Factors, after: Factors, size: int) -> np.ndarray:
    """The pixels in which two faces differ: bool [size,size]."""
    pair = render(before, size).image, render(after, size).image
    return (pair[0] != pair[1]).any(axis=2)
