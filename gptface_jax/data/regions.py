"""Named regions of a face: by its mesh, by a parsing map, or as boxes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw

from gptface_jax.core.errors import UserError, nearest

# Boxes (left, top, right, bottom) in fractions of a picture of an upright centred face,
# head about 3/4 of the width; several are joined.
_BOXES: dict[str, tuple[tuple[float, float, float, float], ...]] = {
    "mouth": ((0.28, 0.62, 0.72, 0.84),),
    "eyes": ((0.16, 0.34, 0.84, 0.56),),
    "left-eye": ((0.5, 0.34, 0.84, 0.56),),
    "right-eye": ((0.16, 0.34, 0.5, 0.56),),
    "glasses": ((0.1, 0.34, 0.9, 0.6),),
    "eyebrows": ((0.18, 0.28, 0.82, 0.42),),
    "nose": ((0.36, 0.42, 0.64, 0.66),),
    "cheeks": ((0.16, 0.5, 0.38, 0.72), (0.62, 0.5, 0.84, 0.72)),
    "beard": ((0.2, 0.6, 0.8, 0.95),),
    "lower-face": ((0.18, 0.55, 0.82, 0.95),),
    "upper-face": ((0.12, 0.25, 0.88, 0.56),),
    "forehead": ((0.2, 0.15, 0.8, 0.36),),
    "hair": ((0.05, 0.0, 0.95, 0.34), (0.0, 0.2, 0.2, 0.75), (0.8, 0.2, 1.0, 0.75)),
    "hat": ((0.05, 0.0, 0.95, 0.36),),
    "ears": ((0.05, 0.4, 0.22, 0.7), (0.78, 0.4, 0.95, 0.7)),
    "neck": ((0.15, 0.86, 0.85, 1.0),),
    "clothes": ((0.0, 0.9, 1.0, 1.0),),
    "face": ((0.14, 0.2, 0.86, 0.95),),
    "left": ((0.0, 0.0, 0.5, 1.0),),
    "right": ((0.5, 0.0, 1.0, 1.0),),
}
REGIONS = tuple(_BOXES)

# Rows of the face mesh. The subject's right is on the left of the picture.
_RIGHT_EYE = (33, 160, 159, 158, 133, 153, 145, 144)
_LEFT_EYE = (263, 387, 386, 385, 362, 380, 374, 373)
_RIGHT_BROW, _LEFT_BROW = (70, 63, 105, 66, 107, 55), (300, 293, 334, 296, 336, 285)
_TOP, _CHIN = 10, 152
_RIGHT_EAR, _LEFT_EAR = (127, 234, 93, 132), (356, 454, 323, 361)
_FOREHEAD = (21, 54, 103, 67, 109, 10, 338, 297, 332, 284, 251)
_JAW = (58, 172, 136, 150, 149, 176, 148, 152, 377, 400, 378, 379, 365, 397, 288)
_SIDES = (162, 127, 234, 93, 132, 361, 323, 454, 356, 389)
_HEAD = _FOREHEAD + _SIDES + _JAW
_BELOW_HAIR = (21, 68, 108, 337, 298, 251, *_SIDES, *_JAW)
# Regions as convex hulls of such rows, grown to the sides and up and down by shares of
# the distance of the eyes: wide, for a token that is hidden in part changes little.
_HULLS: dict[str, tuple[tuple[tuple[int, ...], tuple[float, float]], ...]] = {
    "mouth": (((61, 40, 37, 0, 267, 270, 291, 321, 314, 17, 84, 91), (0.36, 0.33)),),
    "eyes": ((_RIGHT_EYE, (0.3, 0.25)), (_LEFT_EYE, (0.3, 0.25))),
    "left-eye": ((_LEFT_EYE, (0.3, 0.25)),),
    "right-eye": ((_RIGHT_EYE, (0.3, 0.25)),),
    "glasses": (
        (
            (*_RIGHT_EYE, *_LEFT_EYE, *_RIGHT_BROW, *_LEFT_BROW, 118, 347),
            (0.3, 0.15),
        ),
    ),
    "eyebrows": ((_RIGHT_BROW, (0.15, 0.15)), (_LEFT_BROW, (0.15, 0.15))),
    "nose": (((168, 49, 64, 98, 2, 327, 294, 279), (0.15, 0.1)),),
    "cheeks": (
        ((116, 118, 142, 206, 216, 192, 147, 123), (0.05, 0.05)),
        ((345, 347, 371, 426, 436, 416, 376, 352), (0.05, 0.05)),
    ),
    "beard": (((164, 186, 410, *_JAW), (0.15, 0.2)),),
    "lower-face": (((2, 123, 352, 132, 361, *_JAW), (0.1, 0.1)),),
    "upper-face": (((2, 123, 352, *_FOREHEAD, *_SIDES), (0.05, 0.05)),),
    "forehead": (((*_FOREHEAD, *_RIGHT_BROW[:5], *_LEFT_BROW[:5]), (0.1, 0.1)),),
    "face": ((_HEAD, (0.05, 0.05)),),
}
# The others as polygons along the face's own axes: right and down of the middle of the
# head at the height of the eyes, in distances of the eyes. Of most the face itself is
# left out.
_POLYGONS: dict[str, tuple[tuple[float, float], ...]] = {
    "hair": ((-1.5, 1.3), (-1.75, 0.2), (-1.5, -1.3), (-0.7, -1.9),
             (0.7, -1.9), (1.5, -1.3), (1.75, 0.2), (1.5, 1.3)),
    "hat": ((-1.5, -0.55), (-1.6, -1.4), (-0.9, -2.2), (0.9, -2.2), (1.6, -1.4),
            (1.5, -0.55)),
    "neck": ((-0.8, 1.2), (0.8, 1.2), (1.1, 2.6), (-1.1, 2.6)),
    "clothes": ((-4, 2), (-0.7, 1.7), (0.7, 1.7), (4, 2), (4, 5), (-4, 5)),
    "left": ((-9, -9), (0, -9), (0, 9), (-9, 9)),
    "right": ((9, -9), (0, -9), (0, 9), (9, 9)),
}  # fmt: skip
_WHOLE = ("hat", "left", "right")
_EAR = 0.4  # how far ears stand out, in distances of the eyes
# The least distance of the eyes as a share of forehead to chin: eyes of a head that is
# turned to the side are seen closer together (a face seen from the front has .40).
_LEAST_ACROSS = 0.37
# An ear this close beside its eye lies behind the cheek, in distances of the eyes.
_HIDDEN_EAR = 0.15

_LIPS = ("u_lip", "l_lip")
_BROWS, _EYES = ("l_brow", "r_brow"), ("l_eye", "r_eye")
# Regions as classes of a parsing map, see `schemes.PARSING`: what is seen of them, and
# no more. Eyes are the subject's, their classes the picture's.
CLASSES: Mapping[str, tuple[str, ...]] = {
    "mouth": (*_LIPS, "mouth"),
    "lips": _LIPS,
    "eyes": _EYES,
    "left-eye": ("r_eye",),
    "right-eye": ("l_eye",),
    "glasses": ("eye_g",),
    "eyebrows": _BROWS,
    "nose": ("nose",),
    "hair": ("hair",),
    "hat": ("hat",),
    "ears": ("l_ear", "r_ear"),
    "earrings": ("ear_r",),
    "neck": ("neck", "neck_l"),
    "necklace": ("neck_l",),
    "clothes": ("cloth",),
    "skin": ("skin", "nose"),
    "face": ("skin", "nose", *_BROWS, *_EYES, "eye_g", *_LIPS, "mouth"),
}
_LEAST_SEEN = 0.001  # of the map; less is noise

# The region in which each attribute shows, for editing by attribute.
OF_ATTRIBUTE = {
    "Smiling": "mouth",
    "Mouth_Slightly_Open": "mouth",
    "Wearing_Lipstick": "mouth",
    "Wearing_Mask": "lower-face",
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
      name: one of `REGIONS`, or several, "mouth+eyes".
      size: side in pixels.

    Returns:
      bool [size,size].

    Raises:
      UserError: an unknown name, with the nearest one.
    """
    if "+" in name:
        return np.any([region_mask(one, size) for one in name.split("+")], axis=0)
    _check(name)
    mask = np.zeros((size, size), bool)
    for box in _BOXES[name]:
        left, top, right, bottom = (round(f * size) for f in box)
        mask[top:bottom, left:right] = True
    return mask


def face_region(name: str, mesh: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The region of a face in a photo; what lies beyond the photo is cut off.

    Args:
      name: one of `REGIONS`, or several, "mouth+eyes"; left-eye and right-eye are the
        subject's, left and right halves the picture's.
      mesh: float [468,2], the face mesh in the photo's pixels.
      size: (H, W) of the photo.

    Returns:
      bool [H,W].

    Raises:
      UserError: an unknown name, with the nearest one.
    """
    if "+" in name:
        return np.any([face_region(n, mesh, size) for n in name.split("+")], axis=0)
    _check(name)
    right, left = (mesh[list(eye)].mean(0) for eye in (_RIGHT_EYE, _LEFT_EYE))
    across = left - right
    axes = np.stack([across, [-across[1], across[0]]])  # right and down
    if name in _HULLS:
        hulls = [
            _grown(mesh[list(rows)], margin, axes) for rows, margin in _HULLS[name]
        ]
    else:
        height = np.hypot(*(mesh[_TOP] - mesh[_CHIN]))
        # Distances of the eyes are the unit; a turned head shows them shorter than they
        # are.
        axes = axes * max(1, _LEAST_ACROSS * height / np.hypot(*across))
        ears = mesh[list(_RIGHT_EAR)], mesh[list(_LEFT_EAR)]
        hulls = _ears((right, left), ears, axes) if name == "ears" else []
        if name in _POLYGONS:
            middle = (left + right) / 2
            if name not in ("left", "right"):  # halves of the face, not of the head
                aside = (np.concatenate(ears).mean(0) - middle) @ axes[0]
                middle = middle + aside / (axes[0] @ axes[0]) * axes[0]
            hulls = [middle + np.array(_POLYGONS[name]) @ axes]
    mask = _painted(hulls, size)
    if name == "mouth":  # a broad smile comes near the rim of the face
        mask &= _painted([_grown(mesh[list(_HEAD)])], size)
    if name in _POLYGONS and name not in _WHOLE:
        # Hair may hang over the rim of a face.
        rows = _BELOW_HAIR if name == "hair" else _HEAD
        mask &= ~_painted([_grown(mesh[list(rows)])], size)
    return mask


def parsed_region(
    name: str, parsing: np.ndarray, classes: Sequence[str]
) -> np.ndarray | None:
    """The region as a parsing map shows it; bool [S,S], None where it shows none.

    Args:
      name: one of `CLASSES`; of others a map shows none.
      parsing: uint8 [S,S].
      classes: names of its classes; those that it lacks it does not show.
    """
    wanted = [i for i, c in enumerate(classes) if c in CLASSES.get(name, ())]
    mask = np.isin(parsing, wanted)
    return mask if mask.mean() >= _LEAST_SEEN else None


def _ears(eyes, ears, axes) -> list[np.ndarray]:
    """Hulls of the ears that a head turned to the side does not hide."""
    hulls = []
    for sign, eye, ear in zip((-1, 1), eyes, ears):
        beside = sign * (ear.mean(0) - eye) @ axes[0] / (axes[0] @ axes[0])
        if beside > _HIDDEN_EAR:
            far = ear + sign * _EAR * axes[0]
            hulls.append(_grown(np.concatenate([ear, far]), (0.05, 0.05), axes))
    return hulls


def _grown(
    points: np.ndarray, margin: tuple[float, float] = (0.0, 0.0), axes=None
) -> np.ndarray:
    """Corners of the convex hull of points [N,2], grown along the axes of a face."""
    from scipy.spatial import ConvexHull

    if any(margin):
        signs = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
        # Each point becomes the corners of a box along the face's axes; their hull is
        # grown.
        around = signs * margin @ axes
        points = (points[:, None] + around).reshape(-1, 2)
    return points[ConvexHull(points).vertices]


def _painted(polygons: list[np.ndarray], size: tuple[int, int]) -> np.ndarray:
    """Mask bool [H,W] of polygons whose corners are in pixels."""
    canvas = Image.new("L", size[::-1])
    draw = ImageDraw.Draw(canvas)
    for corners in polygons:  # Pillow counts from the middle of a pixel
        draw.polygon([tuple(p) for p in corners - 0.5], fill=1)
    return np.asarray(canvas).astype(bool)


def _check(name: str) -> None:
    if name in CLASSES and name not in _BOXES:
        raise UserError(
            f"region '{name}' can only be seen, by a perception model: add one "
            "(perception=, --perception), or give one of " + ", ".join(REGIONS)
        )
    if name not in _BOXES:
        raise UserError(
            f"unknown region '{name}'{nearest(name, REGIONS)}; known: "
            + ", ".join(REGIONS)
        )


def box_mask(box: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    """Mask bool [H,W] of a box (x0, y0, x1, y1) in pixels, x1 and y1 excluded.

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
