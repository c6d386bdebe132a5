"""Pictures, depth and classes of a mesh in numpy: how rendered faces are made.

`ops.render` is the differentiable counterpart, with the same camera and light; a test
holds them together. Camera: a rotation vector, a shift and a logarithm of the scale,
`pose` float [6]. A point X mm, turned by the rotation, is seen at

    (x, y) = s (X, Y) / (1 - s Z / focal) + shift,    s = exp(pose[5]) / REACH

in half sides of the picture, y upwards; without a focal length the denominator is 1
(weak perspective). Light: nine real spherical harmonics in R, G, B (Ramamoorthi and
Hanrahan 2001), by which the albedo is multiplied.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from gptface_jax.data.facemodel import surface

REACH = 125.0  # mm of half a picture at scale 1
# Constants of the spherical harmonics 1; y, z, x; xy, yz, 3z^2-1, xz, x^2-y^2.
HARMONICS = np.array(
    [0.28209479, *[0.48860251] * 3, 1.09254843, 1.09254843, 0.31539157, 1.09254843,
     0.54627422], np.float32,
)  # fmt: skip
_NEAREST = 0.05  # of 1 - s Z / focal: what is nearer is behind the camera


def harmonics(normals: np.ndarray) -> np.ndarray:
    """Spherical harmonics [...,9] of unit vectors [...,3]."""
    x, y, z = np.moveaxis(normals, -1, 0)
    one = np.ones_like(x)
    terms = [one, y, z, x, x * y, y * z, 3 * z * z - 1, x * z, x * x - y * y]
    return np.stack(terms, -1) * HARMONICS


def ambient(brightness: float = 0.9) -> np.ndarray:
    """Light [9,3] of one brightness from everywhere."""
    light = np.zeros((9, 3), np.float32)
    light[0] = brightness / HARMONICS[0]
    return light


def rotation(vector: np.ndarray) -> np.ndarray:
    """Rotation matrix [3,3] about a vector [3], by its length in radians."""
    angle = np.linalg.norm(vector)
    x, y, z = vector / max(angle, 1e-12)
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def vector_of(matrix: np.ndarray) -> np.ndarray:
    """The rotation vector [3] of a rotation matrix [3,3]; turns below 180 degrees."""
    axis = np.array([matrix[2, 1] - matrix[1, 2], matrix[0, 2] - matrix[2, 0],
                     matrix[1, 0] - matrix[0, 1]]) / 2  # fmt: skip
    sine, cosine = np.linalg.norm(axis), (np.trace(matrix) - 1) / 2
    return axis * (np.arctan2(sine, cosine) / max(sine, 1e-12))


def turned_light(light: np.ndarray, turn: np.ndarray) -> np.ndarray:
    """Light [9,3] of a scene that was turned by a rotation [3,3]; float32."""
    ways = np.random.default_rng(0).normal(size=(60, 3))
    ways /= np.linalg.norm(ways, axis=1, keepdims=True)
    # Each band of the harmonics is closed under rotations: the fit is exact.
    change, *_ = np.linalg.lstsq(harmonics(ways @ turn.T), harmonics(ways), rcond=None)
    return (change @ light).astype(np.float32)


def projected(
    vertices: np.ndarray, pose: np.ndarray, size: int, focal: float | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Where vertices [V,3] mm are in a picture, and how near they are.

    Returns:
      places [V,2] (x, y) in pixels, pixel centres at integers; nearness [V], larger is
      nearer and linear in the picture, -inf behind the camera.
    """
    turned = vertices @ rotation(np.asarray(pose[:3], np.float64)).T
    scaled = turned * (np.exp(pose[5]) / REACH)
    nearness = scaled[:, 2]
    if focal is not None:
        distance = 1 - scaled[:, 2] / focal
        behind = distance < _NEAREST
        distance = np.where(behind, 1.0, distance)
        scaled, nearness = (
            scaled / distance[:, None],
            np.where(behind, -np.inf, 1 / distance),
        )
    flat = scaled[:, :2] + pose[3:5]
    places = (flat * [1, -1] + 1) / 2 * size - 0.5
    return places, nearness


@dataclasses.dataclass(frozen=True)
class Rendering:
    """Rasterised mesh: triangles and barycentric coordinates by pixel.

    Attributes:
      triangle: int32 [S,S], the nearest triangle, -1 for none.
      barycentric: float32 [S,S,3] of its corners; 0 for none.
      places: float [V,2] of vertices in pixels.
    """

    triangle: np.ndarray
    barycentric: np.ndarray
    places: np.ndarray

    def interpolated(self, values: np.ndarray, triangles: np.ndarray) -> np.ndarray:
        """Values [V,C] of vertices between them, [S,S,C]; 0 where nothing is."""
        corners = values[triangles[np.maximum(self.triangle, 0)]]
        return np.einsum("hwk,hwkc->hwc", self.barycentric, corners)


def rasterise(
    places: np.ndarray, nearness: np.ndarray, triangles: np.ndarray, size: int,
    cull: bool = True,
) -> Rendering:  # fmt: skip
    """The nearest triangle of each pixel.

    Args:
      places, nearness: of the vertices, see `projected`.
      triangles: int [F,3].
      size: S.
      cull: triangles seen from behind are not drawn.
    """
    a, b, c = (places[triangles[:, i]] for i in range(3))
    # Pixels go down: counter-clockwise in space is clockwise here.
    area = (c[:, 0] - a[:, 0]) * (b[:, 1] - a[:, 1]) - (b[:, 0] - a[:, 0]) * (
        c[:, 1] - a[:, 1]
    )
    corners = np.stack([a, b, c], 1)
    low = np.maximum(np.ceil(corners.min(1) - 1e-6), 0)
    high = np.minimum(np.floor(corners.max(1) + 1e-6), size - 1)
    seen = np.isfinite(nearness[triangles]).all(1) & (high >= low).all(1)
    seen &= area > 1e-9 if cull else np.abs(area) > 1e-9
    chosen = np.flatnonzero(seen)
    side = (high - low)[chosen].max(1, initial=0) + 1
    pixels, numbers, depths, shares = [], [], [], []
    reach, done = 1, 0
    while done < len(chosen):
        now = chosen[(side <= reach) & (side > reach // 2)]
        done += len(now)
        # Blocks, so that large triangles take no more memory than small ones.
        for part in np.array_split(now, max(1, len(now) * reach**2 // 400_000)):
            found = _covered(part, reach, low, high, corners, area, size)
            pixels.append(found[0])
            numbers.append(found[1])
            shares.append(found[2])
            depths.append((found[2] * nearness[triangles[found[1]]]).sum(1))
        reach *= 2
    triangle = np.full(size * size, -1, np.int32)
    barycentric = np.zeros((size * size, 3), np.float32)
    if pixels:
        pixel, number, share = map(np.concatenate, (pixels, numbers, shares))
        # The last one that is written stays: the nearest, of equals the first.
        order = np.lexsort([-number, np.concatenate(depths)])
        triangle[pixel[order]] = number[order]
        barycentric[pixel[order]] = share[order]
    return Rendering(
        triangle.reshape(size, size), barycentric.reshape(size, size, 3), places
    )


def _covered(numbers, reach, low, high, corners, area, size):
    """Pixels that triangles cover in a square of `reach` from their lowest one."""
    y, x = np.divmod(np.arange(reach * reach), reach)
    px = low[numbers, 0][:, None] + x
    py = low[numbers, 1][:, None] + y
    inside = (px <= high[numbers, 0][:, None]) & (py <= high[numbers, 1][:, None])
    shares = []
    for i in range(3):
        (ux, uy), (vx, vy) = (
            corners[numbers, (i + k) % 3].T[:, :, None] for k in (1, 2)
        )
        shares.append((vx - px) * (uy - py) - (ux - px) * (vy - py))
    share = np.stack(shares, -1) / area[numbers][:, None, None]
    inside &= (share >= -1e-9).all(-1)
    row, column = np.nonzero(inside)
    pixel = (py * size + px)[row, column].astype(np.int64)
    return pixel, numbers[row], share[row, column]


def shade(
    found: Rendering, vertices: np.ndarray, triangles: np.ndarray, albedo: np.ndarray,
    light: np.ndarray, turn: np.ndarray, nearness: np.ndarray | None = None,
) -> np.ndarray:  # fmt: skip
    """Colours float32 [S,S,3] in 0..1 of a mesh under a light; 0 where nothing is.

    Args:
      found: of `rasterise`.
      vertices, triangles: of the mesh, in its own coordinates.
      albedo: [V,3].
      light: [9,3], in the camera's coordinates.
      turn: rotation matrix [3,3] of the pose.
      nearness: with a pinhole camera its nearness [V], for perspective interpolation.
    """
    if nearness is not None:
        corners = triangles[np.maximum(found.triangle, 0)]
        weight = (
            found.barycentric * np.where(np.isfinite(nearness), nearness, 0)[corners]
        )
        weight /= np.maximum(weight.sum(-1, keepdims=True), 1e-12)
        found = dataclasses.replace(found, barycentric=weight)
    normals = surface.normals(vertices.astype(np.float64), triangles) @ turn.T
    normal = found.interpolated(normals, triangles)
    normal /= np.maximum(np.linalg.norm(normal, axis=-1, keepdims=True), 1e-9)
    lit = harmonics(normal) @ light
    colour = found.interpolated(albedo, triangles) * np.maximum(lit, 0)
    return np.clip(colour, 0, 1).astype(np.float32)
