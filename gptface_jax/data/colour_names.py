"""Names of colours (SPEC B.7.2): 188,143,142 is "rosy brown".

The chart is that of CSS, its 140 names split into words. Two pairs of them are one
colour, aqua and cyan, fuchsia and magenta: the first of each is written.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from PIL import ImageColor

from gptface_jax.core.errors import UserError, nearest

SPACES = ("rgb", "lab")

NAMES = tuple(
    """alice blue, antique white, aqua, aquamarine, azure, beige, bisque, black,
    blanched almond, blue, blue violet, brown, burly wood, cadet blue, chartreuse,
    chocolate, coral, cornflower blue, cornsilk, crimson, cyan, dark blue, dark cyan,
    dark goldenrod, dark gray, dark green, dark khaki, dark magenta, dark olive green,
    dark orange, dark orchid, dark red, dark salmon, dark sea green, dark slate blue,
    dark slate gray, dark turquoise, dark violet, deep pink, deep sky blue, dim gray,
    dodger blue, fire brick, floral white, forest green, fuchsia, gainsboro,
    ghost white, gold, goldenrod, gray, green, green yellow, honeydew, hot pink,
    indian red, indigo, ivory, khaki, lavender, lavender blush, lawn green,
    lemon chiffon, light blue, light coral, light cyan, light goldenrod yellow,
    light gray, light green, light pink, light salmon, light sea green, light sky blue,
    light slate gray, light steel blue, light yellow, lime, lime green, linen, magenta,
    maroon, medium aquamarine, medium blue, medium orchid, medium purple,
    medium sea green, medium slate blue, medium spring green, medium turquoise,
    medium violet red, midnight blue, mint cream, misty rose, moccasin, navajo white,
    navy, old lace, olive, olive drab, orange, orange red, orchid, pale goldenrod,
    pale green, pale turquoise, pale violet red, papaya whip, peach puff, peru, pink,
    plum, powder blue, purple, red, rosy brown, royal blue, saddle brown, salmon,
    sandy brown, sea green, sea shell, sienna, silver, sky blue, slate blue, slate gray,
    snow, spring green, steel blue, tan, teal, thistle, tomato, turquoise, violet,
    wheat, white, white smoke, yellow, yellow green""".replace("\n    ", " ").split(
        ", "
    )
)


def value(name: str) -> tuple[int, int, int]:
    """The sRGB values 0..255 of one of `NAMES`.

    Raises:
      UserError: another name, with the nearest one.
    """
    if name not in NAMES:
        raise UserError(f"no colour '{name}'{nearest(name, NAMES)} in the CSS chart")
    return ImageColor.getrgb(name.replace(" ", ""))[:3]


def nearest_name(rgb: Sequence[int] | str, space: str = "rgb") -> str:
    """The name of the colour that is nearest, the first of equally near ones.

    Args:
      rgb: sRGB values 0..255, or a text of them, "188,143,142".
      space: where the distance is squared: "rgb" (as stored, gamma and all) or "lab"
        (CIELAB, white D65; CIE 1976 distance).

    Raises:
      UserError: no such values, or no such space.
    """
    if space not in SPACES:
        raise UserError(f"colour space '{space}'; use {' or '.join(SPACES)}")
    try:
        parts = rgb.split(",") if isinstance(rgb, str) else rgb
        colour = np.array([float(part) for part in parts])
    except ValueError:
        colour = np.zeros(0)
    if colour.shape != (3,) or not ((colour >= 0) & (colour <= 255)).all():
        raise UserError(f"{rgb!r} is no colour; give three numbers from 0 to 255")
    at = _lab(colour) if space == "lab" else colour
    return NAMES[int(np.argmin(np.sum((_chart(space) - at) ** 2, axis=1)))]


@functools.cache
def _chart(space: str) -> np.ndarray:
    """float64 [140,3] of `NAMES`."""
    table = np.array([value(name) for name in NAMES], float)
    return _lab(table) if space == "lab" else table


# Linear sRGB -> XYZ (IEC 61966-2-1), and the XYZ of its white.
_TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def _lab(rgb: np.ndarray) -> np.ndarray:
    """sRGB 0..255 -> CIELAB, [...,3] (CIE 15:2004)."""
    share = rgb / 255
    linear = np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)
    xyz = linear @ _TO_XYZ.T / _TO_XYZ.sum(axis=1)
    low = (6 / 29) ** 3
    root = np.where(xyz > low, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    x, y, z = np.moveaxis(root, -1, 0)
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], axis=-1)
