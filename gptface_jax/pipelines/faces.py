"""Faces in any photograph: boxes, points, and the way upright (SPEC E.11).

BlazeFace looks at a pyramid of sizes of the whole picture, coarse to fine; what it
finds is turned upright by the line of the eyes and given to the mesh, which says
whether it is a face at all. Finding a face is not knowing whose it is: nothing here
compares faces.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gptface_jax.data.geometry import Similarity
from gptface_jax.data.schemes import five_points
from gptface_jax.pipelines import face_networks
from gptface_jax.pipelines.face_networks import EYE_CORNERS

SCORE, SECOND_SCORE = 0.6, 0.3
_SMALLEST = 25  # pixels of a face that BlazeFace still sees
_MOST = 64  # faces in a photo
# Rows of the mesh in the order of the 68 points of iBUG 300-W.
LANDMARKS_68 = np.array(
    "162 234 93 58 172 136 149 148 152 377 378 365 397 288 323 454 389 71 63 105 66 "
    "107 336 296 334 293 301 168 197 5 4 75 97 2 326 305 33 160 158 133 153 144 362 "
    "385 387 263 373 380 61 39 37 0 267 269 291 405 314 17 84 181 78 82 13 312 308 317 "
    "14 87".split(),
    int,
)


@dataclasses.dataclass(frozen=True)
class Face:
    """A face in a photo; coordinates are the photo's pixels.

    Attributes:
      box: (x0, y0, x1, y1), from the brows to the chin; may leave the photo.
      score: how sure the detector is, 0 to 1.
      presence: how sure the mesh is, 0 to 1; little of a face under a face mask.
      points: float32 [6,2], right eye, left eye, nose, mouth, right ear, left ear (the
        subject's sides).
      mesh: float32 [468,2], the points of the face mesh.
      roll: degrees by which the face is turned clockwise in the picture.
    """

    box: tuple[float, float, float, float]
    score: float
    presence: float
    points: np.ndarray
    mesh: np.ndarray
    roll: float

    @property
    def landmarks(self) -> np.ndarray:
        """The 68 points of iBUG 300-W; float32 [68,2]."""
        return self.mesh[LANDMARKS_68]

    @property
    def five(self) -> np.ndarray:
        """Right and left eye, tip of the nose, corners of the mouth; float32 [5,2]."""
        return five_points(self.landmarks)

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        x0, y0, x1, y1 = self.box
        return (x1 - x0) * (y1 - y0)

    def described(self) -> dict[str, Any]:
        """The face as JSON types, pixels to a hundredth."""
        arrays = {"points": self.points, "landmarks": self.landmarks, "mesh": self.mesh}
        return {
            "box": [round(v, 2) for v in self.box],
            "score": round(self.score, 4),
            "presence": round(self.presence, 4),
            "roll": round(self.roll, 2),
            **{k: np.round(v.astype(float), 2).tolist() for k, v in arrays.items()},
        }


def largest(faces: Sequence[Face]) -> Face | None:
    """The face with the largest box, or None."""
    return max(faces, key=lambda face: face.area, default=None)


@dataclasses.dataclass(frozen=True)
class _Stage:
    """Sizes and turns that are searched together, and when a detection is a face.

    Attributes:
      turned: at the right angles but the upright one.
      levels: (pixels of a canvas's longer side, share of it that the picture takes:
        less than all of it for faces that fill the picture).
      few: least presence of a face.
      many: of one that many anchors see, turned by _ROLL at most.
      apart: most distance between the detector's eyes and the mesh's, in distances of
        the mesh's eyes.
    """

    turned: bool
    levels: tuple[tuple[int, float], ...]
    few: float
    many: float
    apart: float = math.inf

    def takes(self, row: np.ndarray, rows: np.ndarray, face: Face) -> bool:
        """Whether it is a face.

        Args:
          row: of the detector, which the face was found by.
          rows: all of the photo.
          face: what the mesh makes of it.
        """
        same, _ = face_networks.overlapping(row, rows)
        seen = rows[same & (rows[:, 0] >= SECOND_SCORE), 0]
        many = seen.sum() >= _MANY and abs(face.roll) <= _ROLL
        eyes = face.five[:2]
        apart = np.hypot(*(face.points[:2] - eyes).T).max()
        sure = face.presence >= (self.many if many else self.few)
        return sure and apart <= self.apart * np.hypot(*(eyes[0] - eyes[1]))


def _faces(
    images: Sequence[np.ndarray],
    rows: Sequence[np.ndarray],
    score: float,
    stage: _Stage,
) -> list[list[Face]]:
    """Candidates of each photo that the mesh takes for faces.

    Args:
      images: uint8 [H,W,3] each.
      rows: of each photo, see `face_networks.candidates`.
      score: from which one is a candidate.
      stage: says how sure the mesh must be.
    """
    found = [
        (i, row)
        for i, own in enumerate(rows)
        for row in face_networks.merged(own[own[:, 0] >= score])
    ]
    meshes = face_networks.meshes([(images[i], row) for i, row in found])
    faces: list[list[Face]] = [[] for _ in images]
    for (i, row), (mesh, presence) in zip(found, meshes):
        along = mesh[EYE_CORNERS[1]] - mesh[EYE_CORNERS[0]]
        face = Face(
            box=tuple(float(v) for v in row[1:5]),
            score=float(row[0]),
            presence=presence,
            points=row[5:].reshape(6, 2).astype(np.float32),
            mesh=mesh.astype(np.float32),
            roll=math.degrees(math.atan2(along[1], along[0])),
        )
        if stage.takes(row, rows[i], face):
            faces[i].append(face)
    return faces


_COARSE = ((128, 0.75), (128, 1.0), (256, 1.0))
# Enlarged further than this a picture does not show more faces, only more that looks
# like one. The coarse levels are looked at in any case.
_ENLARGED = 2
# Sum of the scores of the anchors that see a face, from which they are many: 15 and
# more of the portraits' faces, less than 6 of most cloth, wheels and leaves.
_MANY = 6.0
_ROLL = 45.0  # degrees; what the mesh is not sure of may not be turned further
# The mesh is little sure of a face under a face mask, which the detector sees well. A
# fine level has many places where something may look like a face.
_STAGES = (
    _Stage(False, _COARSE, few=0.9, many=0.1),
    _Stage(False, ((512, 1.0),), few=0.5, many=0.5, apart=0.4),
    _Stage(False, ((768, 1.0),), few=0.5, many=0.5, apart=0.4),
    _Stage(True, _COARSE, few=0.9, many=0.9),
    _Stage(True, ((512, 1.0),), few=0.9, many=0.9, apart=0.4),
)
_UPRIGHT = 3  # the first so many of them
# What is looked at again with the second score: only what many anchors see.
_SECOND = dataclasses.replace(_STAGES[0], few=math.inf, many=0.05)
# Score and presence below which a face may be seen the wrong way round: eyes and mouth
# of one that is upside down look like mouth and eyes to the mesh.
_SURE = 0.85, 0.95


def find(image: np.ndarray, **options: Any) -> list[Face]:
    """The faces of a photo, sorted by their left edge; see `find_all`.

    Args:
      image: uint8 [H,W,3].
      **options: of `find_all`.
    """
    return find_all([image], **options)[0]


def find_all(
    images: Sequence[np.ndarray],
    *,
    any_roll: bool = False,
    score: float = SCORE,
    second_score: float = SECOND_SCORE,
) -> list[list[Face]]:
    """The faces of each of many photos, sorted by their left edge.

    From a thirtieth of a photo's longer side, and about twelve pixels, up to one that
    fills it, turned by up to 45 degrees; where none is found so, at the right angles
    too, and then of less score.
    Photos are looked at together where they have one shape.

    Args:
      images: uint8 [H,W,3] each.
      any_roll: look at every right angle even where faces are found upright.
      score: least score of a face.
      second_score: least score in a photo that has none of that score.
    """
    photos = [np.asarray(image) for image in images]
    found: list[list[Face]] = [[] for _ in photos]
    first: list[np.ndarray] = []
    everyone = left = list(range(len(photos)))
    for stage in _STAGES:
        if stage is _STAGES[_UPRIGHT]:
            left = [i for i in everyone if not _surely(found[i])]
        active = everyone if any_roll and stage.turned else left
        chosen = [photos[i] for i in active]
        rows = _look(chosen, stage, min(score, second_score, SECOND_SCORE))
        first = first or rows
        for i, faces in zip(active, _faces(chosen, rows, score, stage)):
            found[i] = _distinct([*found[i], *faces])
        finest = stage.levels[-1][0]
        left = [i for i in left if not _settled(found[i], photos[i], finest)]
    none = [i for i in range(len(photos)) if not found[i]]
    again = [photos[i] for i in none], [first[i] for i in none]
    for i, faces in zip(none, _faces(*again, second_score, _SECOND)):
        found[i] = _distinct(faces)
    return [sorted(faces, key=lambda face: face.box[0]) for faces in found]


def _look(images, stage: _Stage, least: float) -> list[np.ndarray]:
    """Detections of each photo at a stage, see `face_networks.candidates`."""
    looks: dict[tuple, list] = {}
    for i, image in enumerate(images):
        finest = max(_COARSE[-1][0], _ENLARGED * max(image.shape))
        levels = [(level, share) for level, share in stage.levels if level <= finest]
        for turn in (1, 3, 2) if stage.turned else (0,):
            for level, share in levels:
                canvas, way = face_networks.canvas_of(
                    np.rot90(image, turn), level, share
                )
                way = _turned(image.shape, turn).then(way)
                looks.setdefault(canvas.shape, []).append((i, canvas, way))
    rows: list[list] = [[np.zeros((0, 17))] for _ in images]
    for shape, same in looks.items():
        answers = face_networks.detections([canvas for _, canvas, _ in same])
        for (i, _, way), (boxes, scores) in zip(same, answers):
            rows[i].append(
                face_networks.candidates(boxes, scores, shape[:2], least, way)
            )
    return [np.concatenate(r) for r in rows]


def _settled(faces: Sequence[Face], image: np.ndarray, level: int) -> bool:
    """Whether finer levels need not be looked at.

    Where a face is hardly larger than what the level just sees, they may show its
    smaller neighbours.
    """
    if not faces:
        return False
    seen = _SMALLEST / level * max(image.shape)
    return min(face.area for face in faces) ** 0.5 > 1.5 * seen


def _surely(faces: Sequence[Face]) -> bool:
    """Whether one of them is so sure that it is not seen the wrong way round."""
    score, presence = _SURE
    return any(f.score >= score and f.presence >= presence for f in faces)


def _distinct(faces: Sequence[Face]) -> list[Face]:
    """Faces whose middle does not lie close to that of a surer one; surest first."""
    kept: list[Face] = []
    for face in sorted(faces, key=lambda face: -face.score * face.presence):
        middle, radius = face.mesh.mean(0), np.ptp(face.mesh, axis=0).max() / 2
        if all(np.hypot(*(middle - other.mesh.mean(0))) > radius for other in kept):
            kept.append(face)
    return kept[:_MOST]


def _turned(shape, turn: int) -> Similarity:
    """The way from a picture's pixels to those of `np.rot90`, by that many turns."""
    height, width = shape[:2]
    return (
        Similarity(),
        Similarity(0, -1, 0, width),
        Similarity(-1, 0, width, height),
        Similarity(0, 1, height, 0),
    )[turn]
