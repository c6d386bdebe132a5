"""What stands beside a picture on the web: columns to a `Sample`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import schemes, tables
from gptface_jax.data.prepare.sample import Faces, Sample
from gptface_jax.data.record import Record

URL = ("url", "URL", "image_url")
_TEXT = ("TEXT", "alt_text", "alt")  # besides `tables.TEXT_COLUMNS`
_FACES = ("faces", "face_detections")
_BOXES = ("boxes", "face_bboxes", "bboxes")
FACES = (*_FACES, *_BOXES, "points", "face_scores")


def sample_of(
    key: str,
    image: bytes,
    row: Mapping[str, Any],
    source: str,
    texts: Sequence[str] = (),
    facts: Sequence[str] = (),
    **fields: Any,
) -> Sample:
    """The sample of a row of metadata; names of columns as img2dataset and LAION have
    them.

    Args:
      key: its name within its unit.
      image: the file.
      row: column -> cell.
      source: where it came from.
      texts: further texts, which come before those of the row.
      facts: columns whose cells become `Record.facts`.
      **fields: of `Sample`.

    Raises:
      UserError: a cell that is not what its column holds.
    """
    found = [*texts, *_texts(row)]
    unique = tuple(dict.fromkeys(t for t in found if t))
    record = Record(
        image=image,
        text=next(iter(unique), ""),
        texts=unique if len(unique) > 1 else (),
        **tables.fields_from(row, facts),
        source=source,
    )
    faces = fields.pop("faces", None) or faces_of(row) or faces_of_record(record)
    return Sample(key, record, url_of(row), row, faces, **fields)


def joined(row: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """A row with further columns, whose cells come first where they are not empty."""
    told = {k: v for k, v in more.items() if tables.given(v) is not None}
    return {**more, **row, **told}


def url_of(row: Mapping[str, Any]) -> str:
    """The address that a row tells, or "".

    Raises:
      UserError: it is no text.
    """
    url = next((row[name] for name in URL if tables.given(row.get(name))), "")
    if not isinstance(url, str):
        raise UserError(f"url is {url!r}; give a text")
    return url


def _texts(row: Mapping[str, Any]) -> tuple[str, ...]:
    texts = tables.texts_from(row)
    for name in _TEXT if not texts else ():
        texts = texts or tables.texts_from(row, name)
    return texts


def faces_of(row: Mapping[str, Any]) -> Faces | None:
    """The faces that a row tells; None where it does not say whether there are any.

    Either `faces`, a list of [box, points, score] as LAION-FACE has them, or `boxes`
    with `points` and `scores`. A box is (x0, y0, x1, y1) in pixels, points are right
    eye, left eye, nose, right and left corner of the mouth.

    Raises:
      UserError: other shapes, or numbers that are none.
    """
    found = next((row[name] for name in _FACES if row.get(name) is not None), None)
    if found is not None:
        try:
            return faces_from(*zip(*found)) if len(found) else faces_from((), (), ())
        except (TypeError, ValueError, OverflowError) as error:
            raise UserError(f"faces are no [box, points, score] ({error})") from None
    boxes = next((row[name] for name in _BOXES if row.get(name) is not None), None)
    if boxes is None:
        return None
    points, scores = row.get("points"), row.get("face_scores")
    try:
        return faces_from(boxes, points, scores)
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"boxes are no (x0, y0, x1, y1) ({error})") from None


def faces_from(boxes: Any, points: Any = None, scores: Any = None) -> Faces:
    """Faces of nested lists or arrays; what is no box in a picture goes.

    Points that cannot be those of the face in the box (eyes less than a pixel apart,
    anything further away than the box is large) are unknown.

    Raises:
      TypeError, ValueError, OverflowError: other shapes, or no numbers.
    """
    with np.errstate(invalid="ignore", over="ignore"):
        box = np.asarray(boxes, np.float32).reshape(-1, 4)
        count = len(box)
        point = np.full((count, 5, 2), np.nan, np.float32)
        if points is not None and len(points):
            point = np.array(points, np.float32).reshape(count, 5, 2)
        score = np.ones(count, np.float32)
        if scores is not None and len(scores):
            score = np.nan_to_num(np.asarray(scores, np.float32).reshape(count))
        sides = box[:, 2:] - box[:, :2]
        good = np.isfinite(box).all(1) & (sides >= 1).all(1)
        good &= (np.abs(box) < 1e6).all(1)
        away = np.abs(point - (box[:, None, :2] + box[:, None, 2:]) / 2).max((1, 2))
        apart = np.hypot(*(point[:, 1] - point[:, 0]).T)
        point[~((away <= sides.max(1)) & (apart >= 1))] = np.nan  # also of NaN
    return Faces(box[good], point[good], score[good])


def faces_of_record(record: Record) -> Faces | None:
    """The faces that the boxes or the landmarks of a record tell; else None."""
    points = None
    if record.landmarks is not None:
        # `Record` counts from the middle of the first pixel.
        landmarks = np.asarray(record.landmarks, np.float32) + 0.5
        five = schemes.five_of(landmarks, record.landmark_scheme)
        if five is not None and np.isfinite(landmarks).all():
            points = five[None]
    if record.boxes is not None:
        single = points is not None and len(record.boxes) == 1
        return faces_from(record.boxes, points if single else None)
    if points is None:
        return None
    low, high = landmarks.min(0), landmarks.max(0)
    if record.landmark_scheme == "five":  # which end before brows and chin
        reach = 1.1 * np.hypot(*(landmarks[1] - landmarks[0]))
        low, high = (low + high) / 2 - reach, (low + high) / 2 + reach
    return faces_from([[*low, *high]], points)
