"""A photo's own face with another expression or turn, by the mesh of a head (SPEC D).

A head is fitted to the face's landmarks, changed, and the photo is bent as its surface
moves. What was not to be seen before, the inside of a mouth that opens or skin that an
ear or the nose hid, is left to a model that draws.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping

import numpy as np

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import facemodel, rendering
from gptface_jax.data import image as images
from gptface_jax.data.facemodel import FaceModel, surface
from gptface_jax.data.faces import palette as p
from gptface_jax.pipelines.faces import Face
from gptface_jax.pipelines.faces3d import Head3D
from gptface_jax.pipelines.views import View

LIMIT = 1.0  # of an expression
DEGREES = 20.0  # of a turn: beyond, half a face would have to be invented
ANGLES = ("yaw", "pitch", "roll")

# Hair, ears and neck of a mesh are not where those of a photo are: they are bent along.
_FACE = (
    p.SKIN, p.L_BROW, p.R_BROW, p.L_EYE, p.R_EYE, p.NOSE, p.U_LIP, p.L_LIP,
)  # fmt: skip
_SIDE = 512  # of the square in which the mesh is drawn, in pixels, at most
_SQUARELY = 0.45  # cosine: what is seen more at a slant is bent along as well
_BEYOND = 0.5  # of the face's size: how far around it the photo is bent along
_BORDER = 0.1  # of the side: towards the square's border nothing moves
_HIDDEN = 4.0  # mm behind the nearest surface: was not to be seen
_MOVED = 0.004  # of the side: what moves less stays the photo's
_LEAST = 12  # pixels of what is revealed


@dataclasses.dataclass(frozen=True)
class Moved:
    """A square of a photo, bent as a head moves.

    Attributes:
      picture: uint8 [S,S,3]; where something is revealed a guess in plain colours.
      moved: bool [S,S], what is another pixel of the photo than before.
      revealed: bool [S,S], of it what was not to be seen before.
    """

    picture: np.ndarray
    moved: np.ndarray
    revealed: np.ndarray


@functools.cache
def face_model() -> FaceModel:
    """The bundled face model."""
    return facemodel.open_model()


def expressions(model: FaceModel) -> dict[str, list[int]]:
    """Name -> rows of the expression shapes: "mouthSmile" is both sides' at once."""
    found: dict[str, list[int]] = {}
    for row, name in enumerate(model.expression_names):
        found.setdefault(name, []).append(row)
        if name.endswith(("_L", "_R")):
            found.setdefault(name[:-2], []).append(row)
    return found


def checked(
    expression: Mapping[str, float] | None, turn: Mapping[str, float] | None
) -> tuple[dict[str, float], dict[str, float]]:
    """(expression, turn) without what is 0, each known and within its limits.

    Raises:
      UserError: an unknown name, or a number beyond the limits.
    """
    if not (expression or turn):  # the model of heads need not be made
        return {}, {}
    known = {
        "expression": (expression, [*expressions(face_model())], LIMIT),
        "turn": (turn, [*ANGLES], DEGREES),
    }
    found = []
    for what, (given, names, limit) in known.items():
        for name, value in (given or {}).items():
            if name not in names:
                raise UserError(
                    f"no {what} '{name}'{nearest(name, names)}; known are "
                    + ", ".join(names)
                )
            if not (math.isfinite(value) and abs(value) <= limit):
                raise UserError(
                    f"the {what} '{name}' is {value}; use {-limit:g} to {limit:g}"
                )
        found.append({k: float(v) for k, v in (given or {}).items() if v})
    return found[0], found[1]


def head_of(face: Face, view: View) -> Head3D:
    """The head whose landmarks lie on those of a face, in the square of a photo."""
    from gptface_jax.pipelines import landmark_fit

    points = view.way.points(face.landmarks) / view.side
    found = landmark_fit.fit(face_model(), np.float32(points)[None])
    return Head3D({name: x[0] for name, x in found.items()}, face_model())


def changed(
    head: Head3D, expression: Mapping[str, float], turn: Mapping[str, float]
) -> Head3D:
    """The head with shapes added to its expression, and turned by degrees."""
    weights = np.array(head.coeffs["exp_coeffs"])
    rows = expressions(head.model)
    for name, value in expression.items():
        weights[rows[name]] += value
    moved = head.changed(exp_coeffs=weights)
    if not turn:
        return moved
    angles = moved.angles
    return moved.posed(*(angles[name] + turn.get(name, 0.0) for name in ANGLES))


def bend(square: np.ndarray, before: Head3D, after: Head3D) -> Moved:
    """A square of a photo with the head moved.

    Each pixel of the moved head takes the photo's at the same place of the surface;
    around it the photo is bent along, less and less.

    Args:
      square: uint8 [S,S,3].
      before, after: heads of one model, their poses in the square.
    """
    side = len(square)
    size = min(side, _SIDE)
    model, triangles = before.model, before.model.triangles
    places, near = rendering.projected(before.vertices, before.coeffs["pose"], size)
    target = rendering.projected(after.vertices, after.coeffs["pose"], size)
    shown = rendering.rasterise(places, near, triangles, size)
    drawn = rendering.rasterise(*target, triangles, size)
    of = model.regions[np.maximum(drawn.triangle, 0)]
    facing = np.column_stack([_facing(before), _facing(after)])
    facing = drawn.interpolated(facing, triangles).min(-1) > _SQUARELY
    inside = (drawn.triangle >= 0) & (of == p.MOUTH)
    head = (drawn.triangle >= 0) & np.isin(of, _FACE) & facing | inside
    along = drawn.interpolated(np.column_stack([places, near]), triangles)
    grid = np.stack(np.meshgrid(np.arange(size), np.arange(size)), -1)
    offset = np.where(head[..., None], along[..., :2] - grid, 0)
    offset = _continued(offset, head)
    was = shown.triangle >= 0
    was_inside = was & (model.regions[np.maximum(shown.triangle, 0)] == p.MOUTH)
    depth = shown.interpolated(near[:, None], triangles)[..., 0]
    x, y = np.clip(np.rint(along[..., :2]), 0, size - 1).astype(int).transpose(2, 0, 1)
    surface = np.where(was, depth, -np.inf)[y, x]
    behind = _HIDDEN * np.exp(before.coeffs["pose"][5]) / rendering.REACH
    hidden = head & (along[..., 2] < surface - behind) & np.isfinite(surface)
    # Eyes and mouth lie behind lids and lips, and what a photo shows there goes along.
    hidden &= ~np.isin(of, (p.L_EYE, p.R_EYE, p.MOUTH))
    revealed = hidden | (inside & ~was_inside[y, x])
    moved = np.linalg.norm(offset, axis=-1) > _MOVED * size
    revealed &= moved
    if revealed.sum() < _LEAST * (size / 128) ** 2:
        revealed[:] = False
    picture = _sampled(square, _enlarged(offset, side) * (side / size))
    if revealed.any():
        colours = images.resize(after.render(size)[0], (side, side))
        there = _enlarged(revealed.astype(np.float32)[..., None], side)[..., 0]
        picture = np.where((there > 0.5)[..., None], colours, picture)
    return Moved(picture, _larger(moved, side), _larger(revealed, side))


def _facing(head: Head3D) -> np.ndarray:
    """How squarely each vertex faces the viewer, the cosine [V]."""
    turn = rendering.rotation(head.coeffs["pose"][:3].astype(np.float64))
    return surface.normals(head.vertices, head.model.triangles) @ turn[2]


def _continued(offset: np.ndarray, head: np.ndarray) -> np.ndarray:
    """Offsets [S,S,2] that go on beyond a face and fade with the distance."""
    from scipy import ndimage

    if not head.any():
        return offset
    distance, (rows, columns) = ndimage.distance_transform_edt(
        ~head, return_indices=True
    )
    reach = _BEYOND * math.sqrt(head.sum())
    share = np.clip(1 - distance / reach, 0, 1)
    beyond = offset[rows, columns] * (share**2 * (3 - 2 * share))[..., None]
    smooth = ndimage.gaussian_filter(beyond, (reach / 12, reach / 12, 0))
    whole = np.where(head[..., None], offset, smooth)
    at = np.minimum(np.arange(len(head)), np.arange(len(head))[::-1])
    rim = np.clip(np.minimum.outer(at, at) / (_BORDER * len(head)), 0, 1)
    return whole * rim[..., None]


def _enlarged(values: np.ndarray, side: int) -> np.ndarray:
    """Values [s,s,C] at [side,side,C], linearly between them."""
    from scipy import ndimage

    if len(values) == side:
        return values
    at = (np.arange(side) + 0.5) * len(values) / side - 0.5
    rows = np.stack(np.meshgrid(at, at, indexing="ij"))
    planes = np.moveaxis(values, -1, 0)
    return np.stack(
        [ndimage.map_coordinates(p, rows, order=1, mode="nearest") for p in planes], -1
    )


def _sampled(square: np.ndarray, offset: np.ndarray) -> np.ndarray:
    """The picture at each pixel's place plus its offset (x, y), cubic between."""
    from scipy import ndimage

    side = len(square)
    y, x = np.mgrid[:side, :side]
    at = np.stack([y + offset[..., 1], x + offset[..., 0]])
    planes = np.moveaxis(square.astype(np.float32), -1, 0)
    found = [ndimage.map_coordinates(p, at, order=3, mode="nearest") for p in planes]
    return np.uint8(np.clip(np.rint(np.stack(found, -1)), 0, 255))


def _larger(mask: np.ndarray, side: int) -> np.ndarray:
    return _enlarged(mask.astype(np.float32)[..., None], side)[..., 0] > 0.5
