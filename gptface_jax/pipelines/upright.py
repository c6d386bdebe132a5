"""Pictures brought into a model frame for training, and the frame measured (E.11)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tqdm

from gptface_jax.core.errors import UserError
from gptface_jax.data import geometry, transforms
from gptface_jax.data.prepare import metadata
from gptface_jax.data.record import Record
from gptface_jax.pipelines import faces
from gptface_jax.pipelines.views import View

# Mean places of right eye, left eye, nose and the corners of the mouth, as shares of
# the side, over lfw_attributes train (docs/results.md): what the bundled model sees.
FRAME = (
    (0.3669, 0.4444),
    (0.6362, 0.4398),
    (0.5033, 0.5850),
    (0.3912, 0.7323),
    (0.6244, 0.7267),
)
NO_FACE, TOO_SMALL, CUT_OFF = "no face", "too small", "cut off"
_TOGETHER = 32  # pictures that are searched at a time


def _searched(
    records: Iterable[Record], asked: Callable[[Record], bool] = lambda record: True
) -> Iterator[tuple[Record, np.ndarray, Any]]:
    """(record, picture, its face or None) of all records in order.

    Args:
      records: with pictures.
      asked: whether a record's face is looked for; else it is None.
    """
    records = iter(records)
    while batch := list(itertools.islice(records, _TOGETHER)):
        pictures = [transforms.decode_picture(record) for record in batch]
        places = [i for i, record in enumerate(batch) if asked(record)]
        found = faces.find_all([pictures[i] for i in places]) if places else ()
        by_place = dict(zip(places, found))
        for i, record in enumerate(batch):
            yield record, pictures[i], meant(record, by_place.get(i, ()))


def _labelled(record: Record) -> bool:
    """Whether a record tells points of its face."""
    return record.landmarks is not None and bool(np.isfinite(record.landmarks).any())


def _fewer_than_68(record: Record) -> bool:
    return not _labelled(record) or len(record.landmarks) < 68


def _five(record: Record) -> np.ndarray | None:
    """The five points that a record's landmarks tell; None where they do not."""
    told = metadata.faces_of_record(record) if _labelled(record) else None
    if told is None or len(told.points) != 1 or not np.isfinite(told.points).all():
        return None
    return told.points[0]


def meant(record: Record, found: Sequence[faces.Face]) -> faces.Face | None:
    """The largest face of a picture; of those where the record's own box or points are,
    if it tells one face."""
    box = None
    if record.boxes is not None and len(record.boxes) == 1:
        box = record.boxes[0]
    elif _labelled(record):
        box = *np.nanmin(record.landmarks, 0), *np.nanmax(record.landmarks, 0)
    if box is not None:
        x0, y0, x1, y1 = box
        found = [
            face
            for face in found
            if x0 <= (face.box[0] + face.box[2]) / 2 <= x1
            and y0 <= (face.box[1] + face.box[3]) / 2 <= y1
        ]
    return faces.largest(found)


def _with_landmarks(record: Record, face: faces.Face, picture: Any) -> Record:
    """The record with this picture and the 68 points of a face that is in it."""
    # `Record` counts from the middle of the first pixel.
    points = np.float32(face.landmarks - 0.5)
    return dataclasses.replace(
        record, image=picture, landmarks=points, landmark_scheme="ibug68"
    )


@dataclasses.dataclass(frozen=True)
class Upright:
    """Records of the faces of records, brought upright into a frame.

    The face is the one whose landmarks or single box a record tells, else the largest.
    Calling it yields a Record with `image` uint8 [size,size,3] and `landmarks`, its own
    or the 68 that are found, or the reason for which a picture is dropped.

    Attributes:
      size: side of the pictures in pixels.
      frame: five points as shares of the side.
      enlarged: times that a face may be enlarged; what is smaller is dropped.
      missing: share of the square that may lie beyond the picture.
    """

    size: int
    frame: Sequence[Sequence[float]] = FRAME
    enlarged: float = 2.0
    missing: float = 0.25

    def __call__(self, records: Iterable[Record]) -> Iterator[Record | str]:
        for record, picture, face in _searched(records, lambda r: _five(r) is None):
            five = _five(record) if face is None else face.five
            if five is None:
                yield NO_FACE
                continue
            frame = np.asarray(self.frame, np.float32)
            view = View.upright(five, frame, picture.shape[:2])
            if view.side * self.enlarged < self.size:
                yield TOO_SMALL
            elif view.beyond(picture.shape[:2]).mean() > self.missing:
                yield CUT_OFF
            else:
                way = view.way.scaled(self.size / view.side)
                if not _labelled(record):
                    record = _with_landmarks(record, face, picture)
                yield geometry.moved(record, way, (self.size, self.size))

    def described(self) -> dict[str, Any]:
        """Description for the manifest."""
        frame = [[float(v) for v in point] for point in self.frame]
        return {"upright": self.size, "frame": frame}


@dataclasses.dataclass(frozen=True)
class WithLandmarks:
    """The records with the 68 landmarks of a face, where there is one.

    It is the face that a record tells, else the largest. Where a record tells as many
    points itself, they stay.
    """

    def __call__(self, records: Iterable[Record]) -> Iterator[Record | str]:
        for record, _, face in _searched(records, _fewer_than_68):
            yield (
                record if face is None else _with_landmarks(record, face, record.image)
            )

    def described(self) -> dict[str, Any]:
        """Description for the manifest."""
        return {"landmarks": "found"}


def measure_frame(records: Sequence[Record], progress: bool = True) -> dict[str, Any]:
    """Mean position of eyes, nose and mouth corners in pictures of one face each.

    Args:
      records: with pictures; what is no square counts by its central one.
      progress: show a bar.

    Returns:
      {"frame": five points (x, y) as shares of the side, means over the pictures;
      "deviation": theirs; "pictures" and "faces": how many}.

    Raises:
      UserError: no face in any picture.
    """
    found, count = [], 0
    bar = tqdm.tqdm(total=len(records), unit="image", disable=not progress)
    items = (records[i] for i in range(len(records)))
    with bar:
        for _, picture, face in _searched(items):
            count += 1
            bar.update(1)
            if face is None:
                continue
            size = np.array(picture.shape[1::-1])
            found.append((face.five - (size - size.min()) / 2) / size.min())
    if not found:
        raise UserError(
            f"no face was found in {count} pictures; give pictures of faces"
        )
    mean, deviation = np.mean(found, axis=0), np.std(found, axis=0)
    return {
        "frame": np.round(mean.astype(float), 4).tolist(),
        "deviation": np.round(deviation.astype(float), 4).tolist(),
        "pictures": count,
        "faces": len(found),
    }
