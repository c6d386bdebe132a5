"""Pictures brought into a model frame for training, and the frame measured (E.11)."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tqdm

from gptface_jax.core.errors import UserError
from gptface_jax.data import geometry, transforms
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


def _searched(records: Iterable[Record]) -> Iterator[tuple[Record, np.ndarray, Any]]:
    """(record, picture, its largest face or None) of all records in order."""
    records = iter(records)
    while batch := list(itertools.islice(records, _TOGETHER)):
        pictures = [transforms.decode_picture(record) for record in batch]
        found = map(faces.largest, faces.find_all(pictures))
        yield from zip(batch, pictures, found)


def _with_landmarks(record: Record, face: faces.Face, picture: Any) -> Record:
    """The record with this picture and the 68 points of a face that is in it."""
    # `Record` counts from the middle of the first pixel.
    points = np.float32(face.landmarks - 0.5)
    return dataclasses.replace(
        record, image=picture, landmarks=points, landmark_scheme="ibug68"
    )


@dataclasses.dataclass(frozen=True)
class Upright:
    """Records of the largest faces of records, brought upright into a frame.

    Calling it yields a Record with `image` uint8 [size,size,3] and `landmarks`, or the
    reason for which a picture is dropped.

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
        for record, picture, face in _searched(records):
            if face is None:
                yield NO_FACE
                continue
            frame = np.asarray(self.frame, np.float32)
            view = View.upright(face.five, frame, picture.shape[:2])
            if view.side * self.enlarged < self.size:
                yield TOO_SMALL
            elif view.beyond(picture.shape[:2]).mean() > self.missing:
                yield CUT_OFF
            else:
                way = view.way.scaled(self.size / view.side)
                found = _with_landmarks(record, face, picture)
                yield geometry.moved(found, way, (self.size, self.size))

    def described(self) -> dict[str, Any]:
        """Description for the manifest."""
        frame = [[float(v) for v in point] for point in self.frame]
        return {"upright": self.size, "frame": frame}


@dataclasses.dataclass(frozen=True)
class WithLandmarks:
    """The records with the 68 landmarks of the largest face, where there is one."""

    def __call__(self, records: Iterable[Record]) -> Iterator[Record | str]:
        for record, _, face in _searched(records):
            if face is None:
                yield dataclasses.replace(record, landmarks=None)
            else:
                yield _with_landmarks(record, face, record.image)

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
