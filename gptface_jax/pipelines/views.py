"""The square of a photo that a model sees: a part of it, or a face upright (E.11)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from gptface_jax.data import image_io
from gptface_jax.data.geometry import Similarity, fitted

Box = tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True)
class View:
    """The square of a photo that a model sees.

    Attributes:
      way: from the photo's pixels to the square's.
      side: of the square in pixels.
      box: (x0, y0, x1, y1), the part of the photo that may show in it.
      face: the square is a face brought upright; else a part of the photo as it is.
    """

    way: Similarity
    side: int
    box: Box
    face: bool = False

    @staticmethod
    def crop(box: Box) -> View:
        """A square part of the photo as it is."""
        return View(Similarity(dx=-box[0], dy=-box[1]), box[2] - box[0], box)

    @staticmethod
    def upright(points: np.ndarray, frame: np.ndarray, size: tuple[int, int]) -> View:
        """A face in the model frame, about as large as it is in the photo.

        Args:
          points: float [5,2] of the face, see `faces.Face.five`.
          frame: float [5,2], where a model expects them, as shares of the side.
          size: (H, W) of the photo.
        """
        way = fitted(np.asarray(points, np.float64), np.asarray(frame, np.float64))
        # As many pixels as the face has in the photo: neither blown up nor thrown away
        # before the model's own size.
        side = max(1, round(1 / way.scale))
        way = way.scaled(side)
        corners = np.array([[0, 0], [side, 0], [side, side], [0, side]])
        held = way.inverse.points(corners)
        limit = np.array(size[::-1])
        low = np.clip(np.floor(held.min(0)), 0, limit - 1).astype(int)
        high = np.clip(np.ceil(held.max(0)), low + 1, limit).astype(int)
        return View(way, side, (*low.tolist(), *high.tolist()), True)

    @property
    def slices(self) -> tuple[slice, slice]:
        """Slices of the photo's rows and columns in the box."""
        x0, y0, x1, y1 = self.box
        return slice(y0, y1), slice(x0, x1)

    @property
    def _from_box(self) -> Similarity:
        return Similarity(dx=self.box[0], dy=self.box[1]).then(self.way)

    def picture(self, photo: np.ndarray) -> np.ndarray:
        """The square uint8 [side,side,3] that is seen of a photo uint8 [H,W,3]."""
        if not self.face:
            return photo[self.slices]
        return self.way.image(photo, (self.side, self.side))

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the photo bool [H,W] in the square; bool [side,side]."""
        if not self.face:
            return mask[self.slices]
        return self._from_box.mask(mask[self.slices], (self.side, self.side))

    def beyond(self, size: tuple[int, int]) -> np.ndarray:
        """Mask bool [side,side] of where the square leaves a photo (H, W)."""
        square = (self.side, self.side)
        x0, y0, x1, y1 = self.box
        if not self.face or 0 < x0 and 0 < y0 and x1 < size[1] and y1 < size[0]:
            return np.zeros(square, bool)
        return ~self.way.lookup(np.ones(size, bool), square)

    def back(self, square: np.ndarray) -> np.ndarray:
        """A picture uint8 [side,side,3] as it lies in the photo; of `box`."""
        if not self.face:
            return square
        x0, y0, x1, y1 = self.box
        return self._from_box.inverse.image(square, (y1 - y0, x1 - x0))

    def mask_back(self, mask: np.ndarray, size: tuple[int, int]) -> np.ndarray:
        """A mask of the square bool [side,side] in a photo (H, W); bool [H,W]."""
        x0, y0, x1, y1 = self.box
        result = np.zeros(size, bool)
        if not self.face:
            result[self.slices] = mask
            return result
        inside = self._from_box.inverse.lookup(mask, (y1 - y0, x1 - x0))
        result[self.slices] = inside
        return result

    def covered(self, size: tuple[int, int]) -> np.ndarray:
        """The pixels of a photo (H, W) that lie in the square; bool [H,W]."""
        return self.mask_back(np.ones((self.side, self.side), bool), size)

    def holds(self, mask: np.ndarray) -> bool:
        """Whether all of a mask of the photo bool [H,W] lies in the square."""
        return not (mask & ~self.covered(mask.shape)).any()

    def described(self) -> dict[str, Any]:
        """The view as JSON types for the sidecar; `view_of` reads it again."""
        found: dict[str, Any] = {"crop": list(self.box)}
        if self.face:
            way = {k: float(v) for k, v in dataclasses.asdict(self.way).items()}
            found["upright"] = {**way, "side": self.side}
        return found


def view_of(details: Mapping[str, Any], scale: float = 1.0) -> View:
    """The View that `View.described` gave.

    Args:
      details: of a sidecar, or one of its "squares".
      scale: of the photo since then.

    Raises:
      KeyError, TypeError, ValueError: the details name none.
    """
    box = tuple(round(scale * v) for v in details["crop"])
    if len(box) != 4 or not (box[0] < box[2] and box[1] < box[3]):
        raise ValueError(f"crop {details['crop']} is no box")
    if "upright" not in details:
        return View.crop(box)
    given, extent = dict(details["upright"]), max(box[2] - box[0], box[3] - box[1])
    before = given.pop("side")
    side = max(1, round(scale * before))
    way = Similarity(*(float(given[k]) for k in ("a", "b", "dx", "dy")))
    # A sidecar is a file that anybody can edit: it must not make us allocate gigabytes.
    # Of faces that are small in the frame the square leaves the photo far behind.
    most = max(image_io.MAX_PIXELS, 9 * extent**2)
    if not (0.5 < way.scale < 2 and side <= 8 * extent and side**2 <= most):
        raise ValueError(f"{details['upright']} is no face of the photo")
    way = Similarity(1 / scale).then(way).scaled(side / before)
    return View(way, side, box, True)
