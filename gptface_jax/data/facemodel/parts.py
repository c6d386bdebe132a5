"""Pieces of a head: eyeballs, teeth and the inside of a mouth, ears."""

from __future__ import annotations

import dataclasses

import numpy as np

from gptface_jax.data.faces import palette

# Rings of an eyeball: angle from its axis in degrees. Pupil and iris are the first.
_RINGS = (0.0, 8.0, 12.0, 25.0, 30.0, 50.0, 72.0, 90.0)
# The last ring is the socket: so many radii wide, and it does not turn with the ball.
_SOCKET = 1.3
_SEGMENTS = 12
_PUPIL = np.array([0.03, 0.025, 0.025])
_IRIS = np.array([0.30, 0.21, 0.13])
_WHITE = np.array([0.90, 0.88, 0.86])
_LINING = np.array([0.50, 0.34, 0.30])
_TEETH = np.array([0.88, 0.85, 0.78])
_INSIDE = np.array([0.22, 0.06, 0.06])


@dataclasses.dataclass(frozen=True)
class Part:
    """A piece of mesh with its colours.

    Attributes:
      vertices: float [v,3] mm.
      triangles: int [f,3], counter-clockwise from outside.
      colours: float [v,3].
      region: class of all its triangles.
      iris: bool [v].
      lower: bool [v], what moves with the lower jaw.
      centre: of an eyeball [3], about which it turns, or of an ear; None of others.
    """

    vertices: np.ndarray
    triangles: np.ndarray
    colours: np.ndarray
    region: int
    iris: np.ndarray
    lower: np.ndarray
    centre: np.ndarray | None = None


def _grid(rows: int, columns: int, closed: bool = False) -> np.ndarray:
    """Triangles of a grid of vertices, row by row; closed: the columns are a ring."""
    cells = []
    for r in range(rows - 1):
        for c in range(columns if closed else columns - 1):
            d = (c + 1) % columns
            a, b = r * columns + c, r * columns + d
            low, far = a + columns, b + columns
            cells += [(a, low, b), (b, low, far)]
    return np.array(cells, np.int32)


def eyeball(contour: np.ndarray, region: int) -> Part:
    """An eyeball behind lids, whose six points [6,3] mm are given.

    Its front is just behind the lids.
    """
    middle = contour.mean(0)
    half = np.linalg.norm(contour[0] - contour[3]) / 2
    radius = 0.93 * half
    centre = np.array([middle[0], middle[1], contour[[1, 2, 4, 5], 2].mean()])
    centre[2] -= radius + 1.0
    rings, turns = np.deg2rad(_RINGS), np.arange(_SEGMENTS) * 2 * np.pi / _SEGMENTS
    axis = np.cos(rings)[:, None] + 0 * turns
    across = np.sin(rings)[:, None] * np.ones_like(turns)
    points = np.stack([across * np.cos(turns), across * np.sin(turns), axis], -1)
    colours = np.empty_like(points)
    for ring, angle in enumerate(_RINGS):
        colours[ring] = _PUPIL if angle < 10 else _IRIS if angle < 28 else _WHITE
    points[-1] *= _SOCKET
    colours[-1] = _LINING
    triangles = _grid(len(rings), _SEGMENTS, closed=True)
    flat = points.reshape(-1, 3)
    # The pole is one vertex for every segment; its triangles without area go.
    triangles = triangles[~((triangles < _SEGMENTS).sum(1) == 2)]
    number = np.arange(len(flat)) // _SEGMENTS
    return Part(
        (centre + radius * flat).astype(np.float64),
        triangles,
        colours.reshape(-1, 3),
        region,
        iris=(number == 2) | (number == 3),
        lower=np.zeros(len(flat), bool),
        centre=centre,
    )


def ear(side: int, region: int, colour) -> Part:
    """An ear on the picture's left (side -1) or right (1) of the procedural head.

    A shell, 62 mm high, with a rim and a hollow.
    """
    rings = np.deg2rad([0, 35, 62, 90, 125, 180])
    turns = np.arange(_SEGMENTS) * 2 * np.pi / _SEGMENTS
    across, along = np.sin(rings)[:, None], np.cos(rings)[:, None]
    hollow = np.array([-0.5, 0.0, 1.15, 0.9, -0.8, -1.2])[:, None]
    # Wider above than at the lobe.
    width = 15 + 4 * np.sin(turns)
    points = np.stack(
        [across * np.cos(turns) * width, across * np.sin(turns) * 31,
         (hollow + 0 * along) * 5 + 0 * turns], -1,
    ).reshape(-1, 3)  # fmt: skip
    # It leans back, and stands off from the head behind.
    out = np.array([0.86, 0.0, 0.51])
    up = np.array([0.10, 0.97, -0.22])
    forward = np.cross(up, out)
    turned = points @ np.stack([forward, up, out / np.linalg.norm(out)])
    centre = np.array([79.0, 8.0, -20.0])
    vertices = (centre + turned) * [side, 1, 1]
    triangles = _grid(len(rings), _SEGMENTS, closed=True)
    triangles = triangles[~((triangles < _SEGMENTS).sum(1) == 2)]
    outermost = triangles >= (len(rings) - 1) * _SEGMENTS
    triangles = triangles[~(outermost.sum(1) == 2)]
    if side < 0:
        triangles = triangles[:, ::-1]
    colours = np.tile(colour, (len(vertices), 1))
    none = np.zeros(len(vertices), bool)
    return Part(vertices, triangles, colours, region, none, none, centre * [side, 1, 1])


def mouth(inner: np.ndarray) -> list[Part]:
    """Teeth and a dark wall behind the inner lips [8,3] mm, points 60 to 67."""
    left, right = inner[0], inner[4]
    middle = inner[[1, 2, 3, 5, 6, 7]].mean(0)
    half = np.linalg.norm(right - left) / 2
    x = np.linspace(-1, 1, 9)

    def strip(top: float, bottom: float, front: float, width: float, rows: int):
        y = np.linspace(top, bottom, rows)
        xs = np.tile(x * width * half, (rows, 1))
        z = middle[2] - front - 11.0 * np.tile(x**2, (rows, 1))
        y = np.tile(y[:, None], (1, len(x))) + middle[1]
        points = np.stack([middle[0] + xs, y, z], -1)
        return points.reshape(-1, 3), _grid(rows, len(x))

    def part(strip, colour, lower):
        vertices, triangles = strip
        return Part(
            vertices, triangles, np.tile(colour, (len(vertices), 1)), palette.MOUTH,
            np.zeros(len(vertices), bool), np.full(len(vertices), lower),
        )  # fmt: skip

    upper_teeth = part(strip(6.0, -3.0, 7.0, 0.85, 2), _TEETH, False)
    lower_teeth = part(strip(-3.5, -9.0, 8.5, 0.75, 2), _TEETH * 0.95, True)
    # The upper half of the wall stays, the lower one goes with the jaw.
    wall = part(strip(22.0, -26.0, 16.0, 1.25, 5), _INSIDE, False)
    lower = np.repeat([0, 0, 0, 1, 1], len(x)).astype(bool)
    return [upper_teeth, lower_teeth, dataclasses.replace(wall, lower=lower)]


def looking(part: Part, right: float, up: float) -> np.ndarray:
    """Displacement [v,3] of an eyeball that turns by degrees to the viewer's right
    and up."""
    yaw, pitch = np.deg2rad([right, -up])
    cy, sy, cp, sp = np.cos(yaw), np.sin(yaw), np.cos(pitch), np.sin(pitch)
    about_y = np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
    about_x = np.array([[1, 0, 0], [0, cp, -sp], [0, sp, cp]])
    offset = part.vertices - part.centre
    radius = np.linalg.norm(offset, axis=1)
    turns = radius < radius[0] * (1 + _SOCKET) / 2
    return turns[:, None] * (offset @ (about_y @ about_x).T - offset)
