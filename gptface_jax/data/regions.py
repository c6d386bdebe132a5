"""Named regions of an aligned face: upright, centred, head about 3/4 of the width."""

from __future__ import annotations

import numpy as np

from gptface_jax.core.errors import UserError, nearest

# Boxes (left, top, right, bottom) in fractions of the picture; several are joined.
_BOXES: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "mouth": ((0.28, 0.62, 0.72, 0.84),),
    "eyes": ((0.16, 0.34, 0.84, 0.56),),
    "eyebrows": ((0.18, 0.28, 0.82, 0.42),),
    "nose": ((0.36, 0.42, 0.64, 0.66),),
    "beard": ((0.2, 0.6, 0.8, 0.95),),
    "lower-face": ((0.18, 0.55, 0.82, 0.95),),
    "upper-face": ((0.12, 0.25, 0.88, 0.56),),
    "forehead": ((0.2, 0.15, 0.8, 0.36),),
    "hair": ((0.05, 0.0, 0.95, 0.34), (0.0, 0.2, 0.2, 0.75), (0.8, 0.2, 1.0, 0.75)),
    "hat": ((0.05, 0.0, 0.95, 0.36),),
    "ears": ((0.05, 0.4, 0.22, 0.7), (0.78, 0.4, 0.95, 0.7)),
    "neck": ((0.15, 0.86, 0.85, 1.0),),
    "face": ((0.14, 0.2, 0.86, 0.95),),
    "left": ((0.0, 0.0, 0.5, 1.0),),
    "right": ((0.5, 0.0, 1.0, 1.0),),
}
REGIONS = tuple(_BOXES)

# The region in which each attribute shows, for editing by attribute.
OF_ATTRIBUTE = {
    "Smiling": "mouth",
    "Mouth_Slightly_Open": "mouth",
    "Wearing_Lipstick": "mouth",
    "Big_Lips": "mouth",
    "Eyeglasses": "eyes",
    "Narrow_Eyes": "eyes",
    "Bushy_Eyebrows": "eyebrows",
    "Arched_Eyebrows": "eyebrows",
    "Big_Nose": "nose",
    "Mustache": "lower-face",
    "Goatee": "beard",
    "No_Beard": "lower-face",
    "Bald": "hair",
    "Bangs": "forehead",
    "Black_Hair": "hair",
    "Blond_Hair": "hair",
    "Brown_Hair": "hair",
    "Gray_Hair": "hair",
    "Wavy_Hair": "hair",
    "Straight_Hair": "hair",
    "Wearing_Hat": "hat",
    "Wearing_Necktie": "neck",
    "Wearing_Earrings": "ears",
    "Male": "face",
}


def region_mask(name: str, size: int) -> np.ndarray:
    """The region as a mask of an aligned square picture.

    Args:
      name: one of `REGIONS`.
      size: side in pixels.

    Returns:
      bool [size,size].

    Raises:
      UserError: an unknown name, with the nearest one.
    """
    if name not in _BOXES:
        raise UserError(
            f"unknown region '{name}'{nearest(name, REGIONS)}; known: "
            + ", ".join(REGIONS)
        )
    mask = np.zeros((size, size), bool)
    for box in _BOXES[name]:
        left, top, right, bottom = (round(f * size) for f in box)
        mask[top:bottom, left:right] = True
    return mask


def box_mask(box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """(x0, y0, x1, y1) in pixels, x1 and y1 excluded -> bool [H,W].

    Raises:
      UserError: a box that is empty or leaves the picture.
    """
    x0, y0, x1, y1 = box
    height, width = size
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise UserError(
            f"box {x0},{y0},{x1},{y1} does not fit a picture of {width} x {height}; "
            "give x0,y0,x1,y1 with 0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height"
        )
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask
