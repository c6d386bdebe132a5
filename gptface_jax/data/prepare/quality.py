"""How sharp a face is and where it looks, by five points: numbers to filter by."""

from __future__ import annotations

import math

import numpy as np
from PIL import Image

_SIDE = 64  # at which faces of all sizes are compared
# Of the mean head of the ICT face model: how far the tip of the nose stands before the
# line of the eyes, in distances of the eyes.
_NOSE = 0.59


def grey_square(image: np.ndarray, box: np.ndarray, side: int) -> np.ndarray:
    """A box of uint8 [H,W,3] as float32 [side,side] grey, 0 to 255."""
    height, width = image.shape[:2]
    x0, y0 = max(0, int(box[0])), max(0, int(box[1]))
    x1 = min(width, max(x0 + 1, math.ceil(box[2])))
    y1 = min(height, max(y0 + 1, math.ceil(box[3])))
    part = image[min(y0, height - 1) : y1, min(x0, width - 1) : x1]
    grey = Image.fromarray(part).convert("L")
    return np.asarray(grey.resize((side, side), Image.Resampling.BOX), np.float32)


def sharpness(image: np.ndarray, box: np.ndarray) -> float:
    """How sharp a face is: variance of the Laplacian over that of its grey values.

    At 64 x 64 pixels; of a face that is smaller in the picture the missing pixels count
    as blur. The contrast of the light cancels out. (J. L. Pech-Pacheco et al. 2000 use
    the variance alone.)

    Args:
      image: uint8 [H,W,3].
      box: (x0, y0, x1, y1) in pixels.
    """
    grey = grey_square(image, box, _SIDE)
    centre = grey[1:-1, 1:-1]
    around = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    return float((around - 4 * centre).var() / (grey.var() + 1.0))


def pose(points: np.ndarray) -> tuple[float, float]:
    """(yaw, roll) of a face in degrees, by its five points; NaN where they are unknown.

    Yaw is positive where the nose lies right of the middle of the eyes, roll where the
    face is turned clockwise as one sees it. On the mean head of the ICT face model the
    yaw is right to within 2.6 degrees up to 60.

    Args:
      points: float [5,2], see `sample.Faces`.
    """
    right, left, nose = np.asarray(points, np.float64)[:3]
    along = left - right
    squared = float(along @ along)
    if not squared > 0:
        return math.nan, math.nan
    offset = float((nose - (right + left) / 2) @ along) / squared
    yaw = math.degrees(math.atan(offset / _NOSE))
    return yaw, math.degrees(math.atan2(along[1], along[0]))
