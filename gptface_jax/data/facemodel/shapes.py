"""Expression shapes of the procedural head, with ARKit's names.

Each moves lids, brows, lips or the jaw by so many millimetres at weight 1; `_L` and
`_R` are the subject's sides, which are the picture's right and left.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gptface_jax.data.facemodel import head, parts
from gptface_jax.data.facemodel.parts import Part

_CORNER = 21.0  # mm from the middle
_SHEET = 95.0  # mm that a radian of the sheet is about
_JAW_AXIS, _JAW_ANGLE = np.array([0.0, 2.0, -8.0]), 13.0
_GAZE = 22.0  # degrees

# name: (centre, radii, offset) in mm as seen from ahead, for the side x > 0; "upper"
# and "lower" limit it to what is above or below the mouth line.
_SIDES = {
    "browDown": [((34, 37), (24, 13), (-1, -5.5, 1), None)],
    "browInnerUp": [((14, 37), (15, 15), (0, 7, 0.5), None)],
    "browOuterUp": [((47, 37), (17, 15), (0, 7, 0), None)],
    "cheekPuff": [((44, -46), (23, 22), (5, 0, 5), None)],
    "cheekSquint": [((36, -3), (19, 11), (0, 4, 2), None)],
    "mouthDimple": [((27, -56), (12, 11), (3, 0.5, -3), None)],
    "mouthFrown": [((25, -58), (15, 13), (1, -7, 0), None)],
    "mouthLowerDown": [((11, -61), (13, 11), (0.5, -6, 0), "lower")],
    "mouthPress": [
        ((13, -50), (14, 9), (0, -1.6, -1.5), "upper"),
        ((13, -62), (14, 9), (0, 1.8, -1.5), "lower"),
    ],
    "mouthSmile": [
        ((26, -56), (15, 12), (7.5, 9, -4), None),
        ((42, -26), (19, 17), (1, 3.5, 3.5), None),
    ],
    "mouthStretch": [((27, -57), (15, 13), (7.5, -3, -3), None)],
    "mouthUpperUp": [((11, -49), (13, 10), (0, 6, 0.5), "upper")],
    "noseSneer": [
        ((13, -22), (10, 13), (1, 4.5, 0.5), None),
        ((14, 28), (11, 12), (-1, -3, 0.5), None),
    ],
}
_MIDDLE = {
    "mouthClose": [
        ((0, -61), (24, 11), (0, 7, 0), "lower"),
        ((0, -49), (22, 9), (0, -3, 0), "upper"),
    ],
    "mouthFunnel": [
        ((0, -49), (17, 10), (0, 3.5, 7), "upper"),
        ((0, -62), (17, 11), (0, -4, 7), "lower"),
        ((24, -56), (10, 12), (-5, 0, 3), None),
        ((-24, -56), (10, 12), (5, 0, 3), None),
    ],
    "mouthLeft": [((0, -56), (30, 17), (7, 0, 0), None)],
    "mouthRight": [((0, -56), (30, 17), (-7, 0, 0), None)],
    "mouthPucker": [
        ((0, -56), (16, 15), (0, 0, 7), None),
        ((23, -56), (13, 14), (-8, 0, 4), None),
        ((-23, -56), (13, 14), (8, 0, 4), None),
    ],
    "mouthRollLower": [((0, -63), (21, 8), (0, 3.5, -4), "lower")],
    "mouthRollUpper": [((0, -48), (21, 7), (0, -3, -4), "upper")],
    "mouthShrugLower": [((0, -70), (24, 16), (0, 5, 2), "lower")],
    "mouthShrugUpper": [((0, -49), (20, 10), (0, 3, 2.5), "upper")],
}
# lid: (how far the upper one closes, how far the lower one rises, both in 0..1).
_LIDS = {"eyeBlink": (0.92, 0.08), "eyeSquint": (0.3, 0.3), "eyeWide": (-0.42, -0.1)}
# Gaze: (degrees outwards, degrees up, how far the upper lid closes).
_LOOKS = {
    "eyeLookDown": (0, -_GAZE, 0.4), "eyeLookIn": (-_GAZE, 0, 0.0),
    "eyeLookOut": (_GAZE, 0, 0.0), "eyeLookUp": (0, _GAZE, -0.2),
}  # fmt: skip


def _step(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-np.clip(x, -60, 60)))


def below_lips(sheet: np.ndarray) -> np.ndarray:
    """About how far below the line between the lips places of the sheet are, mm [v]."""
    ring = sheet[list(head.INNER_LIPS)]
    line = np.stack([ring[[1, 2, 3]], ring[[7, 6, 5]]]).mean(0)
    line = np.concatenate([ring[[0]], line, ring[[4]]])
    return _SHEET * (np.interp(sheet[:, 0], line[:, 0], line[:, 1]) - sheet[:, 1])


def jaw_weight(skin: np.ndarray, below: np.ndarray) -> np.ndarray:
    """How much each vertex goes with the lower jaw, [v] in 0..1.

    Sharp between the lips, softer the further from the corners of the mouth.
    """
    width = 0.3 + 0.5 * np.maximum(np.abs(skin[:, 0]) - _CORNER, 0)
    share = _step(below / width)
    return share * _step((skin[:, 1] + 118) / 7) * _step((skin[:, 2] - 8) / 9)


def _turned(points: np.ndarray, degrees: float) -> np.ndarray:
    """Displacement of points that turn about the axis of the jaw, downwards."""
    angle = np.deg2rad(degrees)
    c, s = np.cos(angle), np.sin(angle)
    offset = points - _JAW_AXIS
    y, z = offset[:, 1], offset[:, 2]
    return np.stack([0 * y, c * y - s * z - y, s * y + c * z - z], 1)


class _Face:
    """The skin and the pieces, and fields over both."""

    def __init__(self, skin: np.ndarray, sheet: np.ndarray, pieces: Sequence[Part]):
        self.skin, self.pieces = skin, pieces
        self.layout, below = _SHEET * sheet, below_lips(sheet)
        self.jaw = jaw_weight(skin, below)
        self.upper = 1 - _step(below / 0.3)
        self.front = _step(skin[:, 2] / 8)

    def whole(self, skin: np.ndarray, *moved) -> np.ndarray:
        """Offsets of all vertices: of the skin, and of pieces that move."""
        given = {id(piece): offset for piece, offset in moved}
        rest = [given.get(id(p), np.zeros_like(p.vertices)) for p in self.pieces]
        return np.concatenate([skin, *rest])

    def bumps(self, bumps, sign: int = 1) -> np.ndarray:
        total = np.zeros_like(self.skin)
        x, y = self.skin[:, 0], self.skin[:, 1]
        limits = {None: 1.0, "upper": self.upper, "lower": 1 - self.upper}
        for (cx, cy), (rx, ry), offset, limit in bumps:
            weight = np.exp(-(((x - sign * cx) / rx) ** 2) - ((y - cy) / ry) ** 2)
            weight = weight * limits[limit] * self.front
            total += weight[:, None] * (np.array([sign, 1, 1]) * offset)
        return total

    def with_jaw(self, offset) -> np.ndarray:
        """An offset of the lower jaw with its teeth: of points -> [.,3]."""
        moved = [
            (p, p.lower[:, None] * offset(p.vertices))
            for p in self.pieces
            if p.lower.any()
        ]
        return self.whole(self.jaw[:, None] * offset(self.skin), *moved)

    def lids(self, ring: Sequence[int], closed: float, raised: float) -> np.ndarray:
        """Lids of one eye that close by shares of the way to each other."""
        line, place = self.layout[list(ring)], self.skin[list(ring)]
        order = np.argsort(line[[0, 1, 2, 3], 0])
        upper, lower = [0, 1, 2, 3], [0, 5, 4, 3]
        low, high = line[[0, 3], 0].min(), line[[0, 3], 0].max()
        x, y = self.layout[:, 0], self.layout[:, 1]

        def across(values, numbers):
            at = line[numbers][order, 0]
            along = values[numbers][order].T
            return np.stack([np.interp(x, at, column) for column in along], 1)

        gap = across(place, lower) - across(place, upper)
        gap[:, 2] += np.abs(gap[:, 1]) / 10  # over the eyeball
        top, bottom = (across(line, n)[:, 1] for n in (upper, lower))
        within = np.clip((x - low) / 4, 0, 1) * np.clip((high - x) / 4, 0, 1)
        within = np.where((x >= low) & (x <= high), np.minimum(1, within + 0.35), 0)
        middle = (top + bottom) / 2
        above = (y >= middle) * np.exp(-((np.maximum(y - top, 0) / 8) ** 2))
        below = (y < middle) * np.exp(-((np.maximum(bottom - y, 0) / 8) ** 2))
        weight = within * self.front
        total = closed * (above * weight)[:, None] * gap
        return total - raised * (below * weight)[:, None] * gap


def expressions(
    skin: np.ndarray, sheet: np.ndarray, pieces: Sequence[Part]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Offsets [E,V,3] mm at weight 1, and the shapes' names in alphabetical order.

    Args:
      skin: [v,3] mm.
      sheet: [v,2], see `head`.
      pieces: eyeballs, the picture's left one first, and what is inside the mouth.
    """
    face, found = _Face(skin, sheet, pieces), {}
    for name, bumps in _MIDDLE.items():
        found[name] = face.whole(face.bumps(bumps))
    for suffix, sign, ring, ball in (
        ("_R", -1, head.LEFT_EYE, pieces[0]), ("_L", 1, head.RIGHT_EYE, pieces[1])
    ):  # fmt: skip
        for name, bumps in _SIDES.items():
            found[name + suffix] = face.whole(face.bumps(bumps, sign))
        for name, (closed, raised) in _LIDS.items():
            found[name + suffix] = face.whole(face.lids(ring, closed, raised))
        for name, (out, up, closed) in _LOOKS.items():
            turned = parts.looking(ball, sign * out, up)
            found[name + suffix] = face.whole(
                face.lids(ring, closed, 0), (ball, turned)
            )
    found["jawOpen"] = face.with_jaw(lambda x: _turned(x, _JAW_ANGLE))
    for name, way in (
        ("jawForward", (0, 0, 6)), ("jawLeft", (7, 0, 0)), ("jawRight", (-7, 0, 0))
    ):  # fmt: skip
        found[name] = face.with_jaw(lambda x, way=way: np.tile(way, (len(x), 1)) * 1.0)
    names = sorted(found)
    return np.stack([found[name] for name in names]), tuple(names)
