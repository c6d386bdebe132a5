"""Readers of ICT-FaceKit: its folder of OBJ files, and the compact .npz of its face.

Both are in centimetres, which become millimetres here. Of the whole head the face area
is used (its first 9,409 vertices: face, ears and the front of the neck). It has no
albedo: colours are those of regions found by the landmarks, with graph-Laplacian modes.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data.facemodel import complexion, head, parts, surface
from gptface_jax.data.facemodel.model import NUM_LANDMARKS, FaceModel
from gptface_jax.data.faces import palette

KEYS = (
    "mean", "identity", "expression", "expression_names", "triangles", "landmarks68",
)  # fmt: skip
NEUTRAL = "generic_neutral_mesh.obj"
_VERTICES, _QUADS = 9409, 9230  # the face area of the whole head
_CENTIMETRE = 10.0
_ALBEDO = (0, 1, 3, 2, 7, 4, 6, 5)  # as in `procedural`
# The iBUG points as vertices of ICT-FaceKit, from its list of indices.
INDICES = "vertex_indices.json"


def from_arrays(arrays: Mapping[str, np.ndarray], name: str = "ict") -> FaceModel:
    """The model of the compact layout: arrays of `KEYS`, lengths in centimetres."""
    try:
        mean, identity, expression = (
            np.asarray(arrays[key], np.float32) * _CENTIMETRE
            for key in ("mean", "identity", "expression")
        )
        names = tuple(str(x) for x in arrays["expression_names"])
    except (TypeError, ValueError) as error:
        raise UserError(
            f"face model '{name}' has arrays of another kind ({error}); get it again"
        ) from None
    return finished(
        name, mean, identity, expression, names, np.asarray(arrays["triangles"]),
        np.asarray(arrays["landmarks68"]),
    )  # fmt: skip


def finished(
    name: str,
    mean: np.ndarray,
    identity: np.ndarray,
    expression: np.ndarray,
    expression_names: tuple[str, ...],
    triangles: np.ndarray,
    landmarks: np.ndarray,
) -> FaceModel:
    """A model of shape alone (mm) with regions, colours, eyeballs and a mouth."""
    _check(name, mean, identity, expression, triangles, landmarks)
    regions = _regions(mean, triangles, landmarks)
    points = mean[landmarks]
    pieces = [
        parts.eyeball(points[list(head.LEFT_EYE)], palette.L_EYE),
        parts.eyeball(points[list(head.RIGHT_EYE)], palette.R_EYE),
        *parts.mouth(points[list(head.INNER_LIPS)]),
    ]
    rings = [landmarks[list(r)] for r in (head.LEFT_EYE, head.RIGHT_EYE)]
    rings += [landmarks[list(head.OUTER_LIPS)]] * 3
    upper, chin = landmarks[[48, 54, 50, 52]], landmarks[8]
    colours = surface.mean_colours(len(mean), triangles, regions)
    vertices, faces, classes = [mean], [triangles], [regions]
    bases, iris, start = [[identity], [expression]], [], len(mean)
    for piece, ring in zip(pieces, rings):
        vertices.append(piece.vertices)
        faces.append(piece.triangles + start)
        classes.append(np.full(len(piece.triangles), piece.region))
        colours = np.concatenate([colours, piece.colours])
        around = ring if piece.centre is not None else upper
        bases[0].append(_moved(piece, identity[:, around].mean(1), identity[:, chin]))
        # Lids and lips move over what does not go with the jaw.
        still = np.zeros((len(expression), 3))
        bases[1].append(_moved(piece, still, expression[:, chin]))
        iris.append(np.flatnonzero(piece.iris) + start)
        start += len(piece.vertices)
    mean = np.concatenate(vertices).astype(np.float32)
    triangles = np.concatenate(faces).astype(np.int32)
    regions = np.concatenate(classes).astype(np.uint8)
    identity, expression = (np.concatenate(b, 1).astype(np.float32) for b in bases)
    material = surface.material_of(len(mean), triangles, regions, np.concatenate(iris))
    # The middle of the head at the origin, about which poses turn it.
    middle = np.array([0, points[27:36, 1].mean(), points[[0, 16], 2].mean()])
    return complexion.standardised(FaceModel(
        name=name,
        mean=(mean - middle).astype(np.float32),
        identity=identity,
        expression=expression,
        albedo_mean=colours.astype(np.float32),
        albedo=surface.albedo_modes(mean, triangles, material, _ALBEDO),
        triangles=triangles,
        regions=regions,
        landmarks=landmarks.astype(np.int32),
        expression_names=expression_names,
    ))  # fmt: skip


def _check(name, mean, identity, expression, triangles, landmarks) -> None:
    """Refuses arrays that do not fit together, or vertices that are not there."""
    count = mean.shape[:1]
    for what, value, shape in (
        ("mean", mean, (*count, 3)),
        ("identity", identity, (*identity.shape[:1], *count, 3)),
        ("expression", expression, (*expression.shape[:1], *count, 3)),
        ("triangles", triangles, (*triangles.shape[:1], 3)),
        ("landmarks", landmarks, (NUM_LANDMARKS,)),
    ):
        if value.shape != shape:
            raise UserError(
                f"face model '{name}': {what} are {list(value.shape)}, not "
                f"{list(shape)}; get it again"
            )
        if value.dtype.kind == "f" and not np.isfinite(value).all():
            raise UserError(
                f"face model '{name}': {what} hold numbers that are not finite; get it "
                "again"
            )
    for what, value in (("triangles", triangles), ("landmarks", landmarks)):
        most = len(mean) - 1
        if value.dtype.kind not in "iu" or not (
            0 <= value.min(initial=0) <= value.max(initial=0) <= most
        ):
            raise UserError(
                f"face model '{name}': {what} are no vertices from 0 to {most}; get it "
                "again"
            )


def _moved(piece: parts.Part, around: np.ndarray, jaw: np.ndarray) -> np.ndarray:
    """Offsets [M,v,3] of a piece, whose lower part goes with the jaw; of both [M,3]."""
    lower = piece.lower[None, :, None]
    return np.where(lower, jaw[:, None], around[:, None])


def _regions(mean: np.ndarray, triangles: np.ndarray, landmarks: np.ndarray):
    """Class uint8 [F] of each triangle, by polygons of landmarks as seen from ahead."""
    points = mean[landmarks]
    middles = mean[triangles].mean(1)
    x, y, z = middles.T
    found = np.full(len(triangles), palette.SKIN, np.uint8)
    chin, ear = points[8], points[[0, 16]].mean(0)
    below = chin[1] - 12 - 0.5 * (chin[2] - z)
    found[(y < below) & (z < chin[2] + 10)] = palette.NECK
    for side, region in ((-1, palette.L_EAR), (1, palette.R_EAR)):
        outside = side * x > 1.04 * np.abs(points[[0, 16], 0]).mean()
        found[outside & (z < ear[2] + 10) & (found == palette.SKIN)] = region
    front = z > ear[2]
    flat, at = middles[:, :2], points[:, :2]

    def mark(polygon, region):
        found[front & head.inside(flat, polygon)] = region

    wing = np.array([4.0, 0])
    mark(np.concatenate([
        at[[27]] + wing, at[[35]] + wing, at[[33]] - [0, 2], at[[31]] - wing,
        at[[27]] - wing,
    ]), palette.NOSE)  # fmt: skip
    mark(at[list(head.OUTER_LIPS)], palette.L_LIP)
    mark(at[np.r_[48:55, 64:59:-1]], palette.U_LIP)
    for brow, region in (
        (range(17, 22), palette.L_BROW),
        (range(22, 27), palette.R_BROW),
    ):
        line = at[list(brow)]
        mark(np.concatenate([line + [0, 2], line[::-1] - [0, 4]]), region)
    return found


def from_folder(path: str | os.PathLike) -> FaceModel:
    """The model of an ICT-FaceKit folder of OBJ files (`FaceXModel`).

    It holds generic_neutral_mesh.obj, identity000.obj and on, one file an expression,
    and vertex_indices.json with the landmarks.

    Raises:
      UserError: files that are missing or of another mesh.
    """
    root = pathlib.Path(path).expanduser()
    for name in (NEUTRAL, INDICES):
        if not (root / name).is_file():
            raise UserError(
                f"'{root}' has no {name}; give the folder FaceXModel of ICT-FaceKit"
            )
    neutral, quads = read_obj(root / NEUTRAL)
    others = sorted(p for p in root.glob("*.obj") if p.name != NEUTRAL)
    identities = [p for p in others if p.stem.startswith("identity")]
    shapes = [p for p in others if p not in identities]
    if not identities or not shapes:
        raise UserError(
            f"'{root}' has {len(identities)} identity and {len(shapes)} expression "
            "files; give the whole folder FaceXModel of ICT-FaceKit"
        )
    faces = [q for q in quads[:_QUADS] if max(q) < _VERTICES]
    triangles = np.array(
        [(q[0], q[i], q[i + 1]) for q in faces for i in range(1, len(q) - 1)], np.int32
    )
    return finished(
        "ict",
        neutral[:_VERTICES] * _CENTIMETRE,
        _offsets(identities, neutral),
        _offsets(shapes, neutral),
        tuple(p.stem for p in shapes),
        triangles,
        _landmarks(root / INDICES),
    )


def _landmarks(path: pathlib.Path) -> np.ndarray:
    """The iBUG points as vertices, of ICT-FaceKit's list."""
    try:
        table = json.loads(path.read_text())
        return np.array(
            table.get("idx_to_landmark_verts") or table["landmarks68"], np.int64
        )
    except (ValueError, KeyError, AttributeError) as error:
        raise UserError(
            f"'{path}' holds no idx_to_landmark_verts ({error}); get it again"
        ) from None


def _offsets(files: list[pathlib.Path], neutral: np.ndarray) -> np.ndarray:
    """How the face area of other files differs from the neutral one, [N,V,3] mm."""
    found = []
    for file in files:
        vertices, _ = read_obj(file)
        if vertices.shape != neutral.shape:
            raise UserError(
                f"'{file}' has {len(vertices)} vertices and {NEUTRAL} has "
                f"{len(neutral)}; get it again"
            )
        found.append((vertices - neutral)[:_VERTICES])
    return (np.stack(found) * _CENTIMETRE).astype(np.float32)


def read_obj(path: str | os.PathLike) -> tuple[np.ndarray, list[list[int]]]:
    """Vertices float32 [V,3] and faces, lists of vertices from 0 on, of an OBJ file.

    Raises:
      UserError: a line that is no vertex or face.
    """
    vertices, faces = [], []
    with open(path, encoding="utf-8", errors="replace") as lines:
        for number, line in enumerate(lines, 1):
            kind, *values = line.split() or [""]
            try:
                if kind == "v":
                    vertices.append([float(v) for v in values[:3]])
                elif kind == "f":
                    faces.append([int(v.split("/")[0]) - 1 for v in values])
            except ValueError:
                raise UserError(
                    f"'{path}' line {number} is no vertex or face: {line.strip()!r}"
                ) from None
    points = np.array(vertices, np.float32).reshape(-1, 3)
    if not len(points) or not np.isfinite(points).all():
        raise UserError(f"'{path}' has no vertices, or some that are not finite")
    return points, faces
