"""Puts one face together, back to front."""

from __future__ import annotations

import dataclasses

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data.faces import dress
from gptface_jax.data.faces.canvas import Canvas
from gptface_jax.data.faces.factors import Factors
from gptface_jax.data.faces.head import Head
from gptface_jax.data.faces.shape import Shape

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


def render(factors: Factors, size: int) -> Face:
    """Draws the face of `factors`; equal arguments give equal arrays.

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
    outfit = dress.Outfit(canvas, shape, factors, head)
    outfit.background()
    outfit.hair_behind()
    head.neck()
    outfit.clothes()
    head.ears()
    head.skin_area()
    head.nose()
    head.eyes()
    head.brows()
    head.mouth()
    outfit.facial_hair()
    outfit.hair_front()
    outfit.hat()
    outfit.earrings()
    outfit.glasses()
    outfit.occluder()
    outfit.grain()
    picture = np.clip(np.rint(canvas.rgb * 255), 0, 255).astype(np.uint8)
    points = canvas.place(shape.landmarks()) * size - 0.5
    return Face(picture, points.astype(np.float32), canvas.classes)


def edit_mask(before: Factors, after: Factors, size: int) -> np.ndarray:
    """The pixels in which two faces differ: bool [size,size]."""
    pair = render(before, size).image, render(after, size).image
    return (pair[0] != pair[1]).any(axis=2)
