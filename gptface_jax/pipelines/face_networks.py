"""BlazeFace and the face mesh on pictures: detections and points in photos' pixels.

What is searched for at which size, and what counts as a face, is `pipelines.faces`'.
A row is a detection, float [17]: score, box (x0, y0, x1, y1) and six points.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from gptface_jax.data.geometry import Similarity
from gptface_jax.interop import mediapipe
from gptface_jax.nn import face_finder
from gptface_jax.ops import pictures
from gptface_jax.pipelines import batching

OVERLAP = 0.3  # intersection over union from which two boxes are one face
EYE_CORNERS = (33, 263)  # rows of the mesh: outer corners of right and left eye
_BATCHES = (1, 2, 4, 16)  # pictures or faces at a time: few shapes are compiled


@jax.jit
def _detect(params, images):
    """(regressors [B,A,16], scores [B,A]) of the anchors of uint8 [B,H,W,3]."""
    pixels = pictures.to_unit_range(images)
    boxes, logits = face_finder.BlazeFace().apply({"params": params}, pixels)
    return boxes, jax.nn.sigmoid(logits)


@jax.jit
def _mesh(params, images):
    """(points [B,468,3], presence [B]) of face crops uint8 [B,192,192,3]."""
    pixels = images.astype(jnp.float32) / 255
    points, logits = face_finder.FaceMesh().apply({"params": params}, pixels)
    return points, jax.nn.sigmoid(logits)


@functools.cache
def _params(name: str) -> Any:
    return mediapipe.read(name)


def _in_batches(function, name: str, items: Sequence[np.ndarray]) -> list[tuple]:
    """Results of function(parameters of a network, items), one an item.

    Batches are filled up to one of a few sizes.
    """
    if not len(items):
        return []

    def answer(stacked):
        return function(_params(name), stacked)

    def size(count: int) -> int:
        return next(size for size in _BATCHES if size >= count)

    return list(zip(*batching.run(answer, [np.stack(items)], _BATCHES[-1], size)))


def detections(canvases: Sequence[np.ndarray]) -> list[tuple]:
    """(regressors [A,16], scores [A]) of the anchors of each canvas uint8 [h,w,3]."""
    return _in_batches(_detect, "blazeface", canvases)


def canvas_of(
    image: np.ndarray, level: int, share: float
) -> tuple[np.ndarray, Similarity]:
    """(the picture on black, its longer side `share * level`; the way there).

    The canvas's shorter side is a quarter, half, three quarters or the whole of the
    level: few shapes have to be compiled.
    """
    height, width = image.shape[:2]
    scale = share * level / max(height, width)
    w, h = (max(1, round(scale * n)) for n in (width, height))
    quarter = level // 4
    rows, columns = (-(-round(n / share) // quarter) * quarter for n in (h, w))
    step = max(1, int(0.5 / scale))
    small = Image.fromarray(image).reduce(step) if step > 1 else Image.fromarray(image)
    # What the last cells of `reduce` hold beyond the picture is not part of it.
    box = (0, 0, width / step, height / step)
    small = small.resize((w, h), Image.Resampling.BILINEAR, box)
    top, left = (rows - h) // 2, (columns - w) // 2
    canvas = np.zeros((rows, columns, 3), np.uint8)
    canvas[top : top + h, left : left + w] = small
    return canvas, Similarity(scale, 0, left, top)


def candidates(boxes, scores, size, least: float, way: Similarity) -> np.ndarray:
    """Detections of one canvas, in the photo's pixels.

    Args:
      boxes, scores: of `detections`, one picture's.
      size: (h, w) of the canvas.
      least: score from which an anchor counts.
      way: from the photo to the canvas.

    Returns:
      float [N,17], rows of score, box (x0, y0, x1, y1) and six points.
    """
    kept = scores >= least
    found = boxes[kept].astype(np.float64)
    points = np.concatenate([found[:, :2], found[:, 4:]], 1).reshape(-1, 7, 2)
    points = points + face_finder.anchors(*size)[kept, None]
    half = found[:, None, 2:4] / 2
    points = np.concatenate(
        [points[:, :1] - half, points[:, :1] + half, points[:, 1:]], 1
    )
    points = way.inverse.points(points)
    corners = np.concatenate([points[:, :2].min(1), points[:, :2].max(1)], 1)
    return np.concatenate(
        [scores[kept, None], corners, points[:, 2:].reshape(-1, 12)], 1
    )


def merged(rows: np.ndarray) -> np.ndarray:
    """Rows of which each is a face: means over overlapping ones, weighed by scores.

    As BlazeFace does within a pass; here across passes as well. A box that lies almost
    wholly within a better one is a part of the same face.

    Args:
      rows: float [N,17], score, box, six points.

    Returns:
      float [M,17], best first; the score is the best one's.
    """
    rows, found = rows[np.argsort(-rows[:, 0], kind="stable")], []
    while len(rows):
        same, part = overlapping(rows[0], rows)
        same[0] = True
        mean = np.average(rows[same, 1:], axis=0, weights=rows[same, 0])
        found.append(np.concatenate([rows[:1, 0], mean]))
        rows = rows[~(same | part)]
    return np.array(found).reshape(-1, 17)


def overlapping(row: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(rows that are the same face as a row, rows that lie in it or around it).

    Both bool [N]; boxes are the same face from `OVERLAP` intersection over union on.
    """
    (x0, y0, x1, y1), boxes = row[1:5], rows[:, 1:5].T
    width = np.minimum(x1, boxes[2]) - np.maximum(x0, boxes[0])
    height = np.minimum(y1, boxes[3]) - np.maximum(y0, boxes[1])
    common = np.maximum(width, 0) * np.maximum(height, 0)
    own, areas = (x1 - x0) * (y1 - y0), (boxes[2] - boxes[0]) * (boxes[3] - boxes[1])
    same = common > OVERLAP * (areas + own - common)
    return same, common > 0.7 * np.minimum(areas, own)


def _square(centre, extent: float, along) -> Similarity:
    """The way from a photo to the square that the mesh reads.

    Args:
      centre: of the face, pixels.
      extent: of the face; the square is half as large again.
      along: direction from right to left eye, which becomes the horizontal one.
    """
    along = np.asarray(along) / max(np.hypot(*along), 1e-9)
    size = face_finder.MESH_SIZE
    scale = size / (1.5 * max(extent, 1e-9))
    turn = Similarity(scale * along[0], -scale * along[1])
    dx, dy = size / 2 - turn.points(centre)
    return dataclasses.replace(turn, dx=dx, dy=dy)


def _around_row(row: np.ndarray) -> Similarity:
    """The way to the mesh's square by a row of the detector."""
    low, high, right, left = row[1:9].reshape(4, 2)
    return _square((low + high) / 2, max(high - low), left - right)


def _around_mesh(points: np.ndarray) -> Similarity:
    """The way to the mesh's square by points of the mesh itself, float [468,2]."""
    along = points[EYE_CORNERS[1]] - points[EYE_CORNERS[0]]
    upright = Similarity(along[0], -along[1])  # and scaled
    turned = upright.points(points)
    low, high = turned.min(0), turned.max(0)
    centre = upright.inverse.points((low + high) / 2)
    return _square(centre, max(high - low) / upright.scale, along)


def meshes(found: Sequence[tuple[np.ndarray, np.ndarray]]) -> list[tuple]:
    """Points of the mesh float [468,2] in the photo, and presence, of each detection.

    Twice: the second time around what was found the first time, for the detector's box
    is rough and the mesh was trained on faces that fill its square evenly.

    Args:
      found: (photo uint8 [H,W,3], row of the detector) each.
    """
    ways = [_around_row(row) for _, row in found]
    size = (face_finder.MESH_SIZE,) * 2
    for _ in range(2):
        squares = [way.image(image, size) for way, (image, _) in zip(ways, found)]
        answers = _in_batches(_mesh, "face_mesh", squares)
        points = [w.inverse.points(p[:, :2]) for w, (p, _) in zip(ways, answers)]
        ways = [_around_mesh(p) for p in points]
    return [(p, float(presence)) for p, (_, presence) in zip(points, answers)]
