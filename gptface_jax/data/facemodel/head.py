"""The surface of the procedural head: control points, a planar layout, a mesh.

The head is a sheet laid out flat around the face, with slits for eyes and mouth. It
passes through control points whose places are typical proportions of adult faces, and
is smooth between them (thin plate splines of their distance to an ellipsoid).
"""

from __future__ import annotations

import numpy as np

from gptface_jax.data import schemes
from gptface_jax.data.faces import palette

_AXES = np.array([76.0, 112.0, 92.0])  # of the ellipsoid, mm
_REACH = 2.9  # radians of the sheet, from straight ahead to behind

# The iBUG points of the picture's left half and of the middle: x, y, z in mm.
_LEFT = {
    0: (-72, 14, 0), 1: (-72, -8, 5), 2: (-70, -28, 12), 3: (-65, -47, 22),
    4: (-56, -64, 36), 5: (-44, -79, 52), 6: (-30, -90, 67), 7: (-15, -97, 77),
    8: (0, -99, 81),
    17: (-57, 31, 62), 18: (-49, 38, 74), 19: (-38, 41, 82), 20: (-26, 40, 87),
    21: (-14, 35, 89),
    27: (0, 20, 89), 28: (0, 7, 95), 29: (0, -6, 103), 30: (0, -19, 111),
    31: (-13, -28, 89), 32: (-7, -31, 94), 33: (0, -32.5, 97),
    36: (-46, 14.5, 69), 37: (-38.5, 19.5, 76), 38: (-28, 19.5, 78),
    39: (-19, 13, 75), 40: (-28, 9.5, 76.5), 41: (-38.5, 10, 74.5),
    48: (-26, -56, 80), 49: (-17, -50, 89), 50: (-6.5, -46.5, 95), 51: (0, -48, 95.5),
    57: (0, -66, 92), 58: (-8, -65, 91), 59: (-17, -61.5, 88),
    60: (-22, -55.8, 82), 61: (-9, -54.6, 91), 62: (0, -55, 93), 66: (0, -55.8, 92),
    67: (-9, -55.5, 90),
}  # fmt: skip
# Further points of the face: place, and on the sheet the direction if another.
_FACE = [
    (-9, 7, 88), (-12, -8, 88), (-8, -19, 104), (-15.5, -22, 92), (-20, -30, 84),
    (-9, 20, 85), (0, 30, 91), (0, 44, 93), (0, 62, 89), (0, 80, 75), (-24, 62, 84),
    (-24, 80, 68), (-45, 60, 66), (-42, 78, 52), (-60, 46, 42), (-64, 30, 38),
    (-33, 29, 78), (-45, 25, 70), (-20, 27, 81), (-33, 0, 77), (-48, 2, 67),
    (-22, 0, 79), (-57, 12, 54), (-36, -16, 78), (-26, -14, 80), (-50, -16, 64),
    (-60, -10, 44), (-66, -18, 22), (-40, -32, 75), (-56, -34, 50), (-29, -38, 80),
    (-40, -52, 69), (-50, -52, 56), (-33, -68, 68), (-14, -40, 89), (-4, -38, 91.5),
    (-4, -43, 94), (0, -37, 93), (0, -75, 86), (-16, -75, 80), (0, -87, 88),
    (-14, -87, 82), (-24, -82, 74), (-31, -57, 75),
]  # fmt: skip
# Cranium, neck: (place, direction on the sheet).
_BACK = [
    ((-75, 36, 10), None), ((-70, 62, 14), None), ((-50, 92, 18), None),
    ((0, 100, 48), None), ((-28, 97, 46), None), ((0, 114, 0), None),
    ((-30, 108, 0), None), ((-78, 40, -25), None), ((-68, 70, -25), None),
    ((-45, 96, -30), None), ((0, 108, -45), None), ((-74, 40, -60), None),
    ((-60, 60, -70), None), ((0, 88, -82), None), ((-35, 84, -75), None),
    ((0, 40, -103), None), ((-40, 40, -95), None), ((0, 10, -104), None),
    ((-42, 0, -92), None), ((-68, 0, -52), None), ((-72, 10, -25), None),
    ((-40, -38, -74), None), ((0, -42, -84), None), ((-60, -38, -35), None),
    ((-63, -44, -8), None), ((-58, -62, 4), None), ((-46, -80, 22), None),
    ((-30, -96, 44), None), ((0, -104, 58), None), ((0, -108, 38), (0, -1, 0.36)),
    ((-28, -102, 26), (-0.35, -0.9, 0.25)),
    ((0, -122, 26), (0, -1, 0.2)), ((-28, -118, 16), (-0.35, -0.92, 0.1)),
    ((-52, -92, -4), (-0.62, -0.78, -0.02)), ((-54, -112, -16), (-0.56, -0.8, -0.25)),
    ((0, -150, 22), (0, -1, -0.04)), ((-32, -148, 10), (-0.34, -0.94, -0.1)),
    ((-56, -142, -22), (-0.48, -0.76, -0.44)), ((-40, -100, -58), (-0.4, -0.66, -0.64)),
    ((0, -96, -68), (0, -0.7, -0.72)), ((-42, -140, -60), (-0.3, -0.6, -0.74)),
    ((0, -140, -72), (0, -0.62, -0.8)),
]  # fmt: skip
# Where the slit of the mouth is on the sheet: wider open than lips are.
_OPEN = {61: (-9, -53.5), 62: (0, -53.3), 66: (0, -57.6), 67: (-9, -57.4)}
# Depths in mm at which eyes and mouth are laid out, flat.
_FLAT = {range(36, 48): 76.0, range(48, 68): 88.0}
LEFT_EYE, RIGHT_EYE = range(36, 42), range(42, 48)  # as the picture has them
OUTER_LIPS, INNER_LIPS = range(48, 60), range(60, 68)
_MIRROR = schemes.LANDMARKS["ibug68"]


def landmarks() -> np.ndarray:
    """The 68 points float [68,3] mm."""
    points = np.full((68, 3), np.nan)
    for number, place in _LEFT.items():
        points[number] = place
        points[_MIRROR[number]] = np.multiply(place, (-1, 1, 1))
    return points


def on_sheet(places: np.ndarray) -> np.ndarray:
    """Where directions or places [N,3] are on the sheet, [N,2]: radians from ahead."""
    d = places / _AXES
    d = d / np.linalg.norm(d, axis=1, keepdims=True)
    angle = np.arccos(np.clip(d[:, 2], -1, 1))
    across = np.hypot(d[:, 0], d[:, 1])
    return d[:, :2] * (angle / np.maximum(across, 1e-9))[:, None]


def ellipsoid(sheet: np.ndarray) -> np.ndarray:
    """Points [N,3] mm of the ellipsoid at places of the sheet [N,2]."""
    angle = np.linalg.norm(sheet, axis=1)
    along = sheet * np.sinc(angle / np.pi)[:, None]
    return np.concatenate([along, np.cos(angle)[:, None]], 1) * _AXES


def _with_mirror(places: np.ndarray) -> np.ndarray:
    beside = places[np.abs(places[:, 0]) > 1e-6]
    return np.concatenate([places, beside * np.r_[-1, np.ones(places.shape[1] - 1)]])


def contours() -> tuple[np.ndarray, np.ndarray]:
    """The landmarks, and points half-way along eyes and lips.

    Returns:
      places on the sheet [N,2] and in space [N,3]; the first 68 are the landmarks.
    """
    points = landmarks()
    flat = points.copy()
    for numbers, depth in _FLAT.items():
        flat[list(numbers), 2] = depth
    for number, (x, y) in _OPEN.items():
        flat[number, :2], flat[_MIRROR[number], :2] = (x, y), (-x, y)
    sheet = on_sheet(flat)
    rings = [list(r) for r in (LEFT_EYE, RIGHT_EYE, OUTER_LIPS, INNER_LIPS)]
    both = np.concatenate([sheet, points], 1)
    halves = [(both[r] + both[r[1:] + r[:1]]) / 2 for r in rings]
    # None beside the corners of the mouth: they would cut off the ends of its slit.
    halves[2] = halves[2][[1, 2, 3, 4, 7, 8, 9, 10]]
    both = np.concatenate([both, *halves])
    return both[:, :2], both[:, 2:]


def controls() -> tuple[np.ndarray, np.ndarray]:
    """Places on the sheet [N,2] and in space [N,3] that the head passes through."""
    sheet, points = contours()
    face = np.array(_FACE, float)
    back = np.array([place for place, _ in _BACK], float)
    ways = np.array(
        [p if d is None else np.multiply(d, _AXES) for p, d in _BACK], float
    )
    more = np.concatenate(
        [np.concatenate([face, back]), np.concatenate([face, ways])], 1
    )
    beside = more[np.abs(more[:, 0]) > 1e-6]
    more = np.concatenate([more, beside * [-1, 1, 1, -1, 1, 1]])
    sheet = np.concatenate([sheet, on_sheet(more[:, 3:])])
    return sheet, np.concatenate([points, more[:, :3]])


def on_head(sheet: np.ndarray) -> np.ndarray:
    """Positions [N,3] mm on the head of points [N,2] of the sheet."""
    from scipy.interpolate import RBFInterpolator

    at, wanted = controls()
    spline = RBFInterpolator(at, wanted - ellipsoid(at), smoothing=1e-9)
    return ellipsoid(sheet) + spline(sheet)


def sheet_points(spacing: float = 0.09) -> np.ndarray:
    """Vertices on the sheet [N,2]; the first 68 are the landmarks.

    Args:
      spacing: of those of the face, in radians; behind it they are further apart.
    """
    at, _ = contours()
    lines = [at]
    for brow in (range(17, 22), range(22, 27)):
        upper = at[list(brow)]
        # Brows are bands: thick within, thin at their outer ends.
        inner = np.linspace(0.02, 0.042, 5)[:: 1 if upper[0, 0] < 0 else -1]
        lower = upper - np.stack([0 * inner, inner], 1)
        middle = (upper + lower) / 2
        lines += [lower, middle]
        lines += [(line[1:] + line[:-1]) / 2 for line in (upper, middle, lower)]
    nose = np.array([p for p in _FACE if abs(p[0]) < 16 and p[1] < 21], float)
    lines.append(on_sheet(_with_mirror(nose)))
    fixed = np.concatenate(lines)
    rings, radius = [np.zeros((1, 2))], 0.0
    while radius < _REACH:
        coarser = 0.3 * np.clip((radius - 0.95) / 0.3, 0, 1)
        coarser += 1.8 * np.clip((radius - 1.8) / 0.4, 0, 1)
        step = spacing * (1 + coarser)
        radius += step
        count = max(6, int(2 * np.pi * min(radius, np.pi - radius + 0.55) / step))
        turn = (np.arange(count) + 0.5 * (len(rings) % 2)) * 2 * np.pi / count
        rings.append(radius * np.stack([np.sin(turn), np.cos(turn)], 1))
    loose = np.concatenate(rings)
    loose = _with_mirror(loose[loose[:, 0] >= -1e-9])
    from scipy.spatial import cKDTree

    near, _ = cKDTree(fixed).query(loose)
    return np.concatenate([fixed, loose[near > 0.62 * spacing]])


def inside(points: np.ndarray, polygon: np.ndarray) -> np.ndarray:
    """Which points [N,2] lie in a polygon [M,2]; bool [N]."""
    x, y = points.T
    result = np.zeros(len(points), bool)
    for (x0, y0), (x1, y1) in zip(polygon, np.roll(polygon, -1, 0)):
        if y0 == y1:
            continue
        crossing = x0 + (y - y0) * (x1 - x0) / (y1 - y0)
        result ^= ((y0 > y) != (y1 > y)) & (x < crossing)
    return result


def triangulated(sheet: np.ndarray) -> np.ndarray:
    """Triangles int [F,3] of the sheet without its slits, counter-clockwise."""
    from scipy.spatial import Delaunay

    found = Delaunay(sheet).simplices
    a, b, c = (sheet[found[:, i]] for i in range(3))
    turn = np.cross(np.c_[b - a, 0 * a[:, :1]], np.c_[c - a, 0 * a[:, :1]])[:, 2]
    found[turn < 0] = found[turn < 0][:, ::-1]
    middle = (a + b + c) / 3
    cut = np.abs(turn) < 1e-9
    for ring in (LEFT_EYE, RIGHT_EYE, INNER_LIPS):
        cut |= inside(middle, sheet[list(ring)])
    return np.concatenate([found[~cut], _cap(sheet)]).astype(np.int32)


def _cap(sheet: np.ndarray) -> np.ndarray:
    """Triangles that close the sheet's border, behind the head."""
    radius = np.linalg.norm(sheet, axis=1)
    rim = np.flatnonzero(radius > radius.max() - 1e-6)
    rim = rim[np.argsort(np.arctan2(*sheet[rim].T))]
    return np.array([(rim[0], a, b) for a, b in zip(rim[1:-1], rim[2:])])


def above_hairline(points: np.ndarray) -> np.ndarray:
    """mm [N] by which points [N,3] are above the hairline, in y.

    It goes over the forehead, above the ears and down to the nape.
    """
    x, y, z = points.T
    front = np.interp(np.abs(x), [0, 30, 50, 62, 70], [79, 77, 66, 46, 34])
    behind = np.interp(z, [-62, -34, -22, 4, 20], [-66, -30, 36, 36, 34])
    return y - np.where(z > 20, front, behind)


def regions(middles: np.ndarray, sheet: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Class uint8 [F] of triangles by their middles, in space and on the sheet.

    Args:
      middles: [F,3] mm.
      sheet: [F,2].
      at: the landmarks on the sheet [68,2].
    """
    x, y, z = middles.T
    found = np.full(len(middles), palette.SKIN, np.uint8)
    found[(y < -100) | ((y < -62) & (z < 0.9 * (-y - 62) - 20))] = palette.NECK
    found[(above_hairline(middles) > 0) & (found == palette.SKIN)] = palette.HAIR
    nose = inside(sheet, np.concatenate([
        at[[27]], on_sheet(np.array([(9.0, 6, 88), (13, -10, 88), (18, -25, 90)])),
        at[[35, 34, 33, 32, 31]],
        on_sheet(np.array([(-18.0, -25, 90), (-13, -10, 88), (-9, 6, 88)])),
    ]))  # fmt: skip
    found[nose] = palette.NOSE
    lips = inside(sheet, at[list(OUTER_LIPS)])
    upper = np.r_[48:55, 64:59:-1]
    found[lips] = palette.L_LIP
    found[inside(sheet, at[upper])] = palette.U_LIP
    for brow, region in (
        (range(17, 22), palette.L_BROW),
        (range(22, 27), palette.R_BROW),
    ):
        line = at[list(brow)]
        inner = np.linspace(0.02, 0.042, 5)[:: 1 if line[0, 0] < 0 else -1]
        band = np.concatenate([line, (line - np.stack([0 * inner, inner], 1))[::-1]])
        found[inside(sheet, band)] = region
    return found
