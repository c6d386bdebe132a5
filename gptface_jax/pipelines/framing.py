"""Which pixels may change, and which square of the photo the model sees.

A square is a part of the photo as it is, or a face brought upright (SPEC E.11).
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.data import image_io, regions
from gptface_jax.data.geometry import Similarity, fitted
from gptface_jax.ops import masking
from gptface_jax.pipelines.faces import Face, largest

SHAPES = ("span", "random")
NEARLY_SQUARE = 1.2  # longer by shorter side up to which a photo may be a portrait
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
        """Of the photo's rows and columns in the box."""
        x0, y0, x1, y1 = self.box
        return slice(y0, y1), slice(x0, x1)

    @property
    def _from_box(self) -> Similarity:
        return Similarity(dx=self.box[0], dy=self.box[1]).then(self.way)

    def picture(self, photo: np.ndarray) -> np.ndarray:
        """What the model sees of a photo uint8 [H,W,3]; uint8 [side,side,3]."""
        if not self.face:
            return photo[self.slices]
        return self.way.image(photo, (self.side, self.side))

    def mask(self, mask: np.ndarray) -> np.ndarray:
        """A mask of the photo bool [H,W] in the square; bool [side,side]."""
        if not self.face:
            return mask[self.slices]
        return self._from_box.mask(mask[self.slices], (self.side, self.side))

    def beyond(self, size: tuple[int, int]) -> np.ndarray:
        """Where the square leaves a photo (H, W); bool [side,side]."""
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
        """What a sidecar says of it; `view_of` reads it again."""
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
    if not (0.5 < way.scale < 2 and side <= 8 * extent):
        raise ValueError(f"{details['upright']} is no face of the photo")
    way = Similarity(1 / scale).then(way).scaled(side / before)
    return View(way, side, box, True)


def checked_frame(frame: Any) -> np.ndarray | None:
    """A model frame as float32 [5,2], or None.

    Raises:
      UserError: other than five points (x, y), shares of the side.
    """
    if frame is None:
        return None
    try:
        points = np.asarray(frame, np.float32)
    except (TypeError, ValueError):
        points = np.zeros(0)
    if points.shape != (5, 2) or not (np.abs(points - 0.5) < 1).all():
        raise UserError(
            f"frame is {frame!r}; give five points (x, y) as shares of the side: right "
            "eye, left eye, nose, right and left corner of the mouth"
        )
    return points


def chosen_face(
    found: Sequence[Face], face: int | None, size: tuple[int, int]
) -> tuple[Face | None, list[str]]:
    """The face of a photo to work on, and what should be told of the choice.

    Args:
      found: the faces, sorted by their left edge.
      face: its number from 1 on; by default the largest.
      size: (H, W) of the photo.

    Returns:
      (face, notes); None where a photo that is nearly square shows none.

    Raises:
      UserError: no such face, or none in a photo that is not nearly square.
    """
    if not found:
        if face is None and max(size) <= NEARLY_SQUARE * min(size):
            return None, ["no face was found: the middle square is taken for one"]
        raise UserError(
            f"no face was found in this photo of {size[1]} x {size[0]}; give --crop "
            "x0,y0,x1,y1 (crop=), a square that an upright face fills, or --no-align "
            "(align=False) for the middle square"
        )
    if face is not None:
        if isinstance(face, bool) or not isinstance(face, (int, np.integer)):
            raise UserError(f"face is {face!r}; give its number, from 1 on")
        if not 1 <= face <= len(found):
            raise UserError(
                f"face {face} is asked for, but {len(found)} "
                f"{'was' if len(found) == 1 else 'were'} found, numbered from 1 by "
                "their left edge"
            )
        return found[face - 1], []
    best = largest(found)
    notes = []
    if len(found) > 1:
        number = 1 + next(i for i, f in enumerate(found) if f is best)
        notes.append(
            f"{len(found)} faces were found; the largest, number {number} from the "
            "left, is worked on (--face NUMBER or --face all chooses)"
        )
    if best.score < 0.6:
        notes.append(
            f"the face is seen faintly (score {best.score:.2f}); look at the strip"
        )
    return best, notes


def central(size: tuple[int, int]) -> Box:
    """The largest square in the middle of a photo (H, W)."""
    height, width = size
    side = min(height, width)
    x0, y0 = (width - side) // 2, (height - side) // 2
    return x0, y0, x0 + side, y0 + side


def square_holding(mask: np.ndarray) -> Box:
    """Of the largest squares of a photo the one that holds most of a mask.

    Among equals the one nearest the middle.

    Args:
      mask: bool [H,W].
    """
    side, wide = min(mask.shape), mask.shape[1] >= mask.shape[0]
    sums = np.concatenate([[0], np.cumsum(mask.sum(0 if wide else 1))])
    held = sums[side:] - sums[:-side]  # by where the square starts
    best = np.flatnonzero(held == held.max())
    start = int(min(best, key=lambda i: abs(i - (len(held) - 1) // 2)))
    x0, y0 = (start, 0) if wide else (0, start)
    return x0, y0, x0 + side, y0 + side


def around(mask: np.ndarray, least: int) -> Box:
    """A square with context around what may change.

    The central square where the mask lies in it and is not small (an aligned
    portrait); else three times the mask, within the photo.

    Args:
      mask: bool [H,W], not empty.
      least: smallest side in pixels.

    Raises:
      UserError: no square within the photo holds the mask.
    """
    height, width = mask.shape
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    top, bottom, left, right = rows[0], rows[-1] + 1, columns[0], columns[-1] + 1
    extent, side = int(max(bottom - top, right - left)), min(height, width)
    x0, y0, x1, y1 = middle = central(mask.shape)
    held = x0 <= left and right <= x1 and y0 <= top and bottom <= y1
    if held and 4 * extent >= side:
        return middle
    if extent > side:
        raise UserError(
            f"the mask is {right - left} x {bottom - top}; no square in a photo of "
            f"{width} x {height} holds it: mask less"
        )
    side = min(side, max(3 * extent, least))

    def start(low, high, length):
        return int(np.clip((low + high - side) // 2, 0, length - side))

    x0, y0 = start(left, right, width), start(top, bottom, height)
    return x0, y0, x0 + side, y0 + side


def checked_crop(crop: Box | None, size: tuple[int, int]) -> Box:
    """A square within a photo (H, W); default the central one.

    Raises:
      UserError: it leaves the photo, or is none.
    """
    if crop is None:
        return central(size)
    x0, y0, x1, y1 = crop = _box(crop, "crop")
    regions.box_mask(crop, size)  # refuses a box that does not fit
    if x1 - x0 != y1 - y0:
        raise UserError(
            f"crop {x0},{y0},{x1},{y1} is {x1 - x0} x {y1 - y0}; give a square"
        )
    return crop


def hidden_tokens(region: str, grid: tuple[int, int], key: jax.Array) -> np.ndarray:
    """Tokens hidden by chance, as in pre-training (SPEC A.6).

    Args:
      region: "span:0.4", one connected region of 40 % of the tokens, or "random:0.4".
      grid: (h, w) in tokens.
      key: the same one hides the same tokens.

    Returns:
      bool [h,w].

    Raises:
      UserError: another shape, or a share that hides nothing or everything.
    """
    shape, _, share = region.partition(":")
    count = grid[0] * grid[1]
    try:
        budget = round(float(share) * count)
    except (ValueError, OverflowError):
        budget = 0
    if shape not in SHAPES or not 0 < budget < count:
        raise UserError(
            f"region '{region}' hides nothing by chance; give span:0.4 or random:0.4, "
            f"with a share that leaves some of {count} tokens and hides some"
        )
    budgets = np.array([budget])
    if shape == "span":
        hidden = masking.span_mask(grid, budgets, key)
    else:
        hidden = masking.random_mask((1, count), budgets, key)
    return np.asarray(hidden).reshape(grid)


@dataclasses.dataclass(frozen=True)
class Framed:
    """What may change, and what the model sees.

    Attributes:
      mask: bool [H,W], what may change.
      view: the square.
      said: how the mask was given, for the sidecar.
      hidden: bool [h,w] tokens of the square, where the mask was given so.
    """

    mask: np.ndarray
    view: View
    said: Mapping[str, Any]
    hidden: np.ndarray | None = None

    @functools.cached_property
    def inside(self) -> np.ndarray:
        """The mask in the square; bool [side,side]."""
        if self.hidden is None:
            return self.view.mask(self.mask)
        return images.tokens_to_pixels(self.hidden, (self.view.side,) * 2)


@dataclasses.dataclass(frozen=True)
class Change:
    """What is done to a mask that was given, in this order.

    Attributes:
      invert: what it leaves out counts.
      grow, shrink: pixels by which it is enlarged and then made smaller on all sides.
    """

    invert: bool = False
    grow: int = 0
    shrink: int = 0

    def __post_init__(self):
        for name in ("grow", "shrink"):
            value = getattr(self, name)
            whole = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
            if not whole or value < 0:
                raise UserError(
                    f"mask_{name} is {value!r}; give a whole number of pixels from 0 on"
                )

    def __str__(self) -> str:
        said = {"invert_mask": self.invert, "mask_grow": self.grow}
        said["mask_shrink"] = self.shrink
        return " and ".join(name for name, value in said.items() if value)

    @property
    def any(self) -> bool:
        """Whether anything is done."""
        return bool(self.invert or self.grow or self.shrink)

    def of(self, mask: np.ndarray) -> np.ndarray:
        """The changed mask; bool [H,W].

        Raises:
          UserError: nothing is left of it.
        """
        changed = images.grown(mask ^ bool(self.invert), self.grow)
        changed = ~images.grown(~changed, self.shrink)
        if not changed.any():
            raise UserError(
                f"{self} leaves nothing of a mask of {int(mask.sum())} pixels; change "
                "it less"
            )
        return changed


AS_GIVEN = Change()


def frame(
    size: tuple[int, int],
    mask: image_io.Source | None,
    box: Box | None,
    region: str | None,
    crop: Box | None,
    least: int,
    hidden: np.ndarray | None = None,
    faces: Sequence[tuple[Face, View]] = (),
    change: Change = AS_GIVEN,
) -> Framed:
    """What may change, what the model sees, and how that was given.

    Args:
      size: (H, W) of the photo.
      mask, box, region: exactly one of them; see `Model.edit`.
      crop: square that the model sees; default the face's, else the central one for a
        region, else `around` the mask.
      least: smallest side of a square that is chosen here.
      hidden: bool [h,w], the region where its name is not of `data.regions`.
      faces: with their views: the one to take for a region; of a mask or box the first
        on which it lies.
      change: of the mask, box or region; of a region within the square.

    Raises:
      UserError: none or several are given, or they do not fit the photo.
    """
    given = [w for w in (mask, box, region) if w is not None]
    if len(given) != 1:
        raise UserError(
            f"{len(given)} of mask, box and region are given; give exactly one"
        )
    if hidden is not None and change.any:
        raise UserError(f"{change} does not go with the tokens of region '{region}'")
    view = None
    if region is not None:
        face, view = faces[0] if faces else (None, View.crop(checked_crop(crop, size)))
        whole = np.ones((view.side, view.side), bool)
        if hidden is not None:
            inside = images.tokens_to_pixels(hidden, whole.shape)
            result = view.mask_back(inside, size)
        elif face is not None:
            result = regions.face_region(region, face.mesh, size)
            result &= view.mask_back(whole, size)
        else:
            inside = regions.region_mask(region, view.side)
            result = view.mask_back(inside, size)
        said: dict[str, Any] = {"region": region}
    elif box is not None:
        box = _box(box, "box")
        result, said = regions.box_mask(box, size), {"box": [int(v) for v in box]}
    else:
        result = image_io.decode_mask(mask, size)
        said = {"picture": hashlib.sha256(np.packbits(result)).hexdigest()[:16]}
        if isinstance(mask, (str, os.PathLike)):
            said["file"] = pathlib.Path(mask).name
    if not result.any():
        raise UserError(
            f"region '{region}' holds no pixel of a square of {view.side}; give a "
            "larger photo"
            if view is None or not view.face
            else f"region '{region}' of this face lies beyond the photo or beyond what "
            "the model sees of it; give a mask or a box"
        )
    if change.any:
        result = change.of(result)
        if region is not None:
            result &= view.covered(size)
        said |= {k: v for k, v in dataclasses.asdict(change).items() if v}
    if view is None and crop is not None:
        view = View.crop(checked_crop(crop, size))
    if view is None:
        whole = [v for _, v in faces if v.holds(result)]
        view = whole[0] if whole else View.crop(around(result, least))
    outside = int((result & ~view.covered(size)).sum())
    if outside:
        x0, y0, x1, y1 = view.box
        raise UserError(
            f"{outside} masked pixels lie outside the square "
            f"{x0},{y0},{x1},{y1} that the model sees; mask less or give another crop"
        )
    said = {**said, "pixels": int(result.sum())}
    framed = Framed(result, view, said, hidden)
    if (framed.inside | view.beyond(size)).all():
        raise UserError(
            "the mask covers the whole picture; leave something for the model to fit "
            "the edit to"
        )
    return framed


def _box(values: Any, name: str) -> Box:
    box = tuple(values)
    if len(box) != 4 or not all(isinstance(v, (int, np.integer)) for v in box):
        raise UserError(f"{name} is {values!r}; give (x0, y0, x1, y1), whole numbers")
    return box
