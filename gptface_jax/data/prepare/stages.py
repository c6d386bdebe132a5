"""From samples to records: each stage a function from a sample to a sample or a reason.

Nothing here knows how many machines there are. Cheap stages come first, so that what
nobody may have is not decoded, and no face is looked for in what has no text.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from PIL import Image

from gptface_jax.core.errors import UserError
from gptface_jax.data import geometry, image_io, tables
from gptface_jax.data.geometry import Similarity
from gptface_jax.data.prepare import duplicates, quality, sample
from gptface_jax.data.prepare.opt_out import OptOut
from gptface_jax.data.prepare.sample import Faces, Rejected, Sample
from gptface_jax.data.prepare.settings import Config, CropOptions
from gptface_jax.data.prepare.texts import Texts
from gptface_jax.data.record import Record

# Pictures in which faces are searched at a time, and pixels after which no other joins.
_TOGETHER, _PIXELS = 16, 32_000_000

Find = Callable[[Sequence[np.ndarray]], Sequence[Faces]]
# (five points [5,2], (H, W)) -> way into a square of side 1, side of the square in
# pixels of the picture, share of it that lies beyond.
Upright = Callable[[np.ndarray, tuple[int, int]], tuple[Similarity, float, float]]


@dataclasses.dataclass(frozen=True)
class Kept:
    """A record of the set, as long as no copy of it is found.

    Attributes:
      record: with its picture as a file.
      hash: of the picture, see `duplicates.perceptual_hash`.
      digest: of what it was made of; 32 hex digits.
      lot: decides its split, see `lot_of`.
    """

    record: Record
    hash: int
    digest: str
    lot: int


@dataclasses.dataclass
class Stages:
    """Function from the samples of a unit to what becomes of each, in order.

    Attributes:
      config: of the set.
      find: faces of pictures; needed unless every picture comes with its own.
      upright: needed where `crop.mode` is "upright".
      texts, opt_out: see there.
    """

    config: Config
    texts: Texts
    find: Find | None = None
    upright: Upright | None = None
    opt_out: OptOut = OptOut()

    def __post_init__(self):
        # Of damaged files; what matters is counted. Not around each of them: filters
        # are the process's, whose threads would put back one another's.
        warnings.filterwarnings("ignore", module="PIL")

    def __call__(
        self, samples: Iterable[Sample | Rejected]
    ) -> Iterator[Rejected | tuple[Kept, ...]]:
        """Why each sample is rejected, or its records: one a face."""
        for batch in _batches(self.before_faces(item) for item in samples):
            searched = iter(self._searched(batch))
            for item in batch:
                yield item if isinstance(item, Rejected) else next(searched)

    def before_faces(self, item: Sample | Rejected) -> Sample | Rejected:
        """The sample with clean texts, pixels and its digest."""
        for stage in (self.asked, self.scored, self.worded, self.decoded):
            if isinstance(item, Rejected):
                break
            try:
                item = stage(item)
            except UserError:
                raise  # of the config
            except Exception as error:  # one record is no reason to stop a job
                item = item.rejected(sample.failed(error))
        return item

    def asked(self, item: Sample) -> Sample | Rejected:
        """Samples that were not opted out."""
        data = item.record.image
        data = data if isinstance(data, bytes) else data.tobytes()
        if self.opt_out.holds(item.url, data):
            return item.rejected(sample.OPTED_OUT)
        return dataclasses.replace(item, digest=duplicates.digest(data))

    def scored(self, item: Sample) -> Sample | Rejected:
        """Samples that no score or word of their metadata forbids."""
        limits = self.config.filters
        for name, most in limits.max_scores.items():
            cell = tables.given(item.row.get(name))
            if cell is not None and _score(cell) > most:
                return item.rejected(sample.UNSAFE_SCORE.format(name))
        for name, words in limits.allowed.items():
            cell = tables.given(item.row.get(name))
            if cell is not None and cell not in words:
                return item.rejected(sample.OTHER_WORD.format(name))
        return item

    def worded(self, item: Sample) -> Sample | Rejected:
        """The sample with the texts that are kept."""
        record = item.record
        given = record.texts or ((record.text,) if record.text else ())
        kept = self.texts(given)
        if isinstance(kept, str):
            if self.config.texts.required:
                return item.rejected(item.text_fault or kept)
            kept = ()
        record = dataclasses.replace(
            record, text=next(iter(kept), ""), texts=kept if len(kept) > 1 else ()
        )
        return dataclasses.replace(item, record=record)

    def decoded(self, item: Sample) -> Sample | Rejected:
        """The sample with pixels uint8 [H,W,3]."""
        record = item.record
        if isinstance(record.image, bytes) and not record.image:
            return item.rejected(sample.EMPTY)
        try:
            pixels = image_io.decode(record.image, self.config.decoding.max_pixels)
        except image_io.TooLarge:
            return item.rejected(sample.TOO_MANY_PIXELS)
        except image_io.Damaged:
            return item.rejected(sample.DAMAGED)
        except UserError:
            return item.rejected(sample.NOT_A_PICTURE)
        except Exception:  # of a hostile file anything may come
            return item.rejected(sample.DAMAGED)
        item = dataclasses.replace(
            item, record=dataclasses.replace(record, image=pixels)
        )
        small = min(pixels.shape[:2]) < self.config.filters.min_side
        return item.rejected(sample.TOO_SMALL) if small else item

    def _searched(
        self, batch: Sequence[Sample | Rejected]
    ) -> Iterator[Rejected | tuple[Kept, ...]]:
        whole = self.config.crop.mode == "whole"
        open_ones = [item for item in batch if isinstance(item, Sample)]
        unknown = [
            i
            for i, item in enumerate(open_ones)
            if not (whole or self._knows(item.faces))
        ]
        found = self._found([open_ones[i].record.image for i in unknown])
        by_place = dict(zip(unknown, found))
        for i, item in enumerate(open_ones):
            try:
                if whole:
                    record = geometry.squared(item.record, self.config.crop.size)
                    yield (self._kept(item, record, 0),)
                    continue
                faces = by_place.get(i, item.faces)
                if isinstance(faces, Exception):
                    raise faces
                yield self.cropped(item, faces)
            except UserError:
                raise
            except Exception as error:  # one record is no reason to stop a job
                yield item.rejected(sample.failed(error))

    def _found(self, pictures: Sequence[np.ndarray]) -> Sequence[Faces | Exception]:
        """The faces of each picture, or what the finder raised at it."""
        if not pictures:
            return ()
        if self.find is None:
            raise UserError("no face finder is given, and no faces are known")
        try:
            return self.find(pictures)
        except UserError:
            raise
        except Exception as error:
            if len(pictures) == 1:
                return [error]
            # One of them may be to blame, which then is rejected alone.
            return [found for picture in pictures for found in self._found([picture])]

    def _knows(self, faces: Faces | None) -> bool:
        """Whether a picture came with all that is needed of its faces."""
        if faces is None or not self.config.faces.known:
            return False
        upright = self.config.crop.mode == "upright"
        return not upright or bool(np.isfinite(faces.points).all())

    def cropped(self, item: Sample, faces: Faces) -> Rejected | tuple[Kept, ...]:
        """A record of the largest face that is good enough, or of each."""
        order = np.argsort(-np.prod(faces.boxes[:, 2:] - faces.boxes[:, :2], axis=1))
        reason = sample.NO_FACE
        kept = []
        for place, number in enumerate(order):
            found = self._face(item, faces, number)
            if not isinstance(found, str):
                kept.append(self._kept(item, found, place))
            elif place == 0:
                reason = found
            if not self.config.faces.every:
                break  # a stranger behind the one of whom the text speaks is no record
        return tuple(kept) or item.rejected(reason)

    def _face(self, item: Sample, faces: Faces, number: int) -> Record | str:
        """The crop of a face, or why it is none."""
        limits, picture = self.config.filters, item.record.image
        box, points = faces.boxes[number], faces.points[number]
        height, width = picture.shape[:2]
        middle_ = (box[:2] + box[2:]) / 2
        if faces.scores[number] < self.config.faces.min_score:
            return sample.NO_FACE
        if not (0 <= middle_[0] < width and 0 <= middle_[1] < height):
            return sample.NO_FACE  # boxes of another picture
        if math.sqrt(np.prod(box[2:] - box[:2])) < limits.min_face:
            return sample.SMALL_FACE
        yaw, roll = quality.pose(points)
        if abs(yaw) > limits.max_yaw or abs(roll) > limits.max_roll:
            return sample.TURNED
        if limits.min_sharpness > 0:
            if quality.sharpness(picture, box) < limits.min_sharpness:
                return sample.BLURRED
        options = self.config.crop
        way, side, beyond = self._square(box, points, picture.shape[:2])
        if side * options.enlarged < options.size:
            return sample.SMALL_FACE
        if beyond > options.beyond:
            return sample.CUT_OFF
        record = dataclasses.replace(item.record, boxes=box[None])
        if record.landmarks is None and np.isfinite(points).all():
            # `Record` counts from the middle of the first pixel.
            five = np.float32(points - 0.5)
            record = dataclasses.replace(record, landmarks=five, landmark_scheme="five")
        if way.b == 0 and not way.mirror:
            low = way.inverse.points([0, 0])
            return geometry.cut(record, [*low, *(low + side)], options.size)
        return geometry.moved(
            record, way.scaled(options.size), (options.size, options.size)
        )

    def _square(self, box, points, size) -> tuple[Similarity, float, float]:
        if self.config.crop.mode == "context":
            return around(box, size, self.config.crop.context)
        return self.upright(points, size)

    def _kept(self, item: Sample, record: Record, place: int) -> Kept:
        pixels = record.image
        grey = quality.grey_square(pixels, np.array([0, 0, *pixels.shape[1::-1]]), 32)
        digest = item.digest if not place else duplicates.digest(
            f"{item.digest} {place}".encode()
        )  # fmt: skip
        record = dataclasses.replace(record, image=encoded(pixels, self.config.crop))
        limits = self.config.filters
        # Copies that stay must be on one side, whatever their addresses.
        alone = limits.exact_duplicates or limits.near_duplicates >= 0
        key = (alone and item.url) or item.digest
        return Kept(
            record,
            duplicates.perceptual_hash(grey),
            digest,
            lot_of(key, self.config.split.salt),
        )


def _score(cell: Any) -> float:
    """A cell as a number; what is none counts as too high."""
    try:
        number = float(cell)
    except (TypeError, ValueError, OverflowError):
        return math.inf
    return math.inf if math.isnan(number) else number


def lot_of(key: str, salt: str) -> int:
    """A number of 64 bits drawn by a key: the same one on every machine."""
    data = f"{salt}\0{key}".encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "big")


def _batches(
    items: Iterable[Sample | Rejected],
) -> Iterator[list[Sample | Rejected]]:
    """Items a few at a time: fewer where their pictures are large."""
    batch: list[Sample | Rejected] = []
    pixels = 0
    for item in items:
        batch.append(item)
        picture = item.record.image if item.record is not None else None
        if isinstance(picture, np.ndarray):  # also of what was rejected once decoded
            pixels += picture.size // 3
        if len(batch) == _TOGETHER or pixels > _PIXELS:
            yield batch
            batch, pixels = [], 0
    if batch:
        yield batch


def around(
    box: np.ndarray, size: tuple[int, int], context: float
) -> tuple[Similarity, float, float]:
    """The square around a face as it stands, moved into the picture where it can be.

    Args:
      box: (x0, y0, x1, y1).
      size: (H, W) of the picture.
      context: side of the square in sides of the box.

    Returns:
      (way from the picture's pixels into a square of side 1, its side in pixels, share
      of it that lies beyond the picture).
    """
    height, width = size
    face = math.sqrt(np.prod(np.asarray(box[2:]) - box[:2]))
    # One that holds the whole picture shows no more context, only a border.
    side = min(context * face, max(min(height, width), face))
    centre = (np.asarray(box[:2], float) + box[2:]) / 2
    low = centre - side / 2
    limit = np.array([width, height]) - side
    low = np.where(limit >= 0, np.clip(low, 0, np.maximum(limit, 0)), low)
    inside = np.minimum(low + side, [width, height]) - np.maximum(low, 0)
    beyond = 1 - float(np.prod(np.maximum(inside, 0))) / side**2
    return Similarity(dx=-low[0], dy=-low[1]).scaled(1 / side), side, beyond


def encoded(pixels: np.ndarray, options: CropOptions) -> bytes:
    """A picture as a file, which holds pixels and nothing else."""
    buffer = io.BytesIO()
    if options.encoding == "jpeg":
        Image.fromarray(pixels).save(buffer, "JPEG", quality=options.quality)
    else:
        Image.fromarray(pixels).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()
