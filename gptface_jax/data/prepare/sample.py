"""What goes from stage to stage: a picture with all that is known of it, or why not."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data.record import Record

# Why a picture is rejected; what a reason is about stands before the colon.
OPTED_OUT = "opted out"
DUPLICATE_KEY = "source: key there twice"
NO_PICTURE = "source: no picture"
NO_FILE = "source: no regular file"
COMPRESSED = "source: compressed tar"
UNSAFE_NAME = "source: name leads out of the folder"
ENDS_EARLY = "source: ends early"
UNREADABLE = "source: cannot be read"
NO_METADATA = "source: metadata cannot be read"
NO_ROW = "source: not one row of metadata"
OTHER_KEY = "source: metadata of another key"
NO_ADDRESS = "source: no address"
ROW_ALONE = "source: metadata of no picture"
WRONG_TYPE = "source: wrong type"
BAD_ROW = "source: row that cannot be used"
TOO_MANY_BYTES = "picture: too many bytes"
TOO_MANY_PIXELS = "picture: too many pixels"
EMPTY = "picture: empty file"
NOT_A_PICTURE = "picture: none that can be read"
DAMAGED = "picture: damaged"
TOO_SMALL = "picture: too small"
UNSAFE_SCORE = "score: {} too high"
OTHER_WORD = "score: {} not among those allowed"
NO_FACE = "face: none"
SMALL_FACE = "face: too small"
BLURRED = "face: blurred"
TURNED = "face: turned away"
CUT_OFF = "face: cut off"
NO_TEXT = "text: none"
NOT_UTF8 = "text: no UTF-8"
LONG_TEXT = "text: too long"
SHORT_TEXT = "text: too short"
LANGUAGE = "text: another language"
CRASHED = "error: ends the process that reads it"
FAILED = "error: {}"  # what nobody thought of; the name of the exception
EXACT = "duplicate: same bytes"
NEAR = "duplicate: looks the same"


@dataclasses.dataclass(frozen=True)
class Faces:
    """Faces of a picture.

    Attributes:
      boxes: float32 [N,4] (x0, y0, x1, y1) in pixels, borders as of `Record`.
      points: float32 [N,5,2], right and left eye (the subject's), nose, corners of the
        mouth, in the same pixels; NaN where they are not known.
      scores: float32 [N], how sure it is, 0 to 1.
    """

    boxes: np.ndarray
    points: np.ndarray
    scores: np.ndarray


@dataclasses.dataclass(frozen=True)
class Sample:
    """A picture on its way.

    Attributes:
      key: its name within its unit.
      record: what a shard will hold; `image` is bytes, and pixels once decoded.
      url: where it was, "" where that is not known.
      row: columns of its metadata, as they came.
      faces: that came with it, or were found; None where nobody has looked.
      digest: of the bytes it came as; 32 hex digits, "" before they are read.
      text_fault: why a text that came with it was not read; "" for none.
    """

    key: str
    record: Record
    url: str = ""
    row: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    faces: Faces | None = None
    digest: str = ""
    text_fault: str = ""

    def rejected(self, reason: str) -> Rejected:
        """This picture with why it is none of the set."""
        return Rejected(self.key, reason, self.record)


@dataclasses.dataclass(frozen=True)
class Rejected:
    """A picture that is none of the set.

    Attributes:
      key: its name within its unit.
      reason: one of the above.
      record: as far as it was read.
    """

    key: str
    reason: str
    record: Record | None = None


class Fault(UserError):
    """A sample is none of the set; the message is one of the reasons above."""


def guarded(key: str, make: Callable[[], Sample | Rejected]) -> Sample | Rejected:
    """What `make` makes of the sample `key`, or why it could not.

    One record is no reason to stop a job, whatever is in it.
    """
    try:
        return make()
    except Fault as fault:
        return Rejected(key, str(fault))
    except UserError:
        return Rejected(key, WRONG_TYPE)
    except Exception as error:
        return Rejected(key, failed(error))


def failed(error: Exception) -> str:
    """The reason of an exception that nobody thought of."""
    return FAILED.format(type(error).__name__)
