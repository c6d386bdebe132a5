"""Which pixels may change, and which square of the photo the model sees."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import os
import pathlib
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.data import image_io, regions
from gptface_jax.ops import masking
from gptface_jax.pipelines import squares
from gptface_jax.pipelines.faces import Face, largest
from gptface_jax.pipelines.views import Box, View

SHAPES = ("span", "random")
NEARLY_SQUARE = 1.2  # longer by shorter side up to which a photo may be a portrait


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
    """The face of a photo to work on, and notes on the choice.

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
    """The part of a photo that may change, and the square that the model sees.

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
    """Changes of a mask that was given, made in this order.

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
        # To shrink is to grow what is outside; the border of the photo is not outside.
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
    seen: Mapping[str, np.ndarray] = MappingProxyType({}),
) -> Framed:
    """The `Framed` of a mask, box or region: what may change and what the model sees.

    Args:
      size: (H, W) of the photo.
      mask, box, region: exactly one of them; see `Model.edit`.
      crop: square that the model sees; default the face's, else the central one for a
        region, else one `around` the mask.
      least: smallest side of a square that is chosen here.
      hidden: bool [h,w], the region where its name is not of `data.regions`.
      faces: with their views: the one to take for a region; of a mask or box the first
        on which it lies.
      change: of the mask, box or region; of a region within the square.
      seen: name -> bool [H,W], regions that are known of this very photo.

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
        face, view = faces[0] if faces else (None, None)
        view = view or View.crop(squares.checked_crop(crop, size))
        result = _region_mask(region, size, face, view, hidden, seen)
        said: dict[str, Any] = {"region": region}
    else:
        result, said = _given_mask(mask, box, size)
    if change.any:
        result = change.of(result)
        if region is not None:
            # Grown, a region of a face may leave the square; a mask of a user's may
            # not, and is refused below.
            result &= view.covered(size)
        said |= {k: v for k, v in dataclasses.asdict(change).items() if v}
    if view is None:
        view = _view_of_mask(result, crop, faces, least)
    _check_within(view, result)
    said = {**said, "pixels": int(result.sum())}
    framed = Framed(result, view, said, hidden)
    check_not_whole(framed.inside | view.beyond(size))
    return framed


def check_not_whole(hidden: np.ndarray) -> None:
    """Raises where a mask, bool [h,w], leaves nothing of what the model sees."""
    if hidden.all():
        raise UserError(
            "the mask covers the whole picture; leave something for the model to fit "
            "the edit to"
        )


def _view_of_mask(
    mask: np.ndarray, crop: Box | None, faces: Sequence[tuple[Face, View]], least: int
) -> View:
    """The square for a mask or box: the crop, a face's, or one around it."""
    if crop is not None:
        return View.crop(squares.checked_crop(crop, mask.shape))
    # Faces come largest first. A mask that no face's square holds is edited without
    # one.
    whole = [view for _, view in faces if view.holds(mask)]
    return whole[0] if whole else View.crop(squares.around(mask, least))


def _check_within(view: View, mask: np.ndarray) -> None:
    """Raises where a mask of a photo, bool [H,W], leaves the square."""
    outside = int((mask & ~view.covered(mask.shape)).sum())
    if outside:
        x0, y0, x1, y1 = view.box
        raise UserError(
            f"{outside} masked pixels lie outside the square "
            f"{x0},{y0},{x1},{y1} that the model sees; mask less or give another crop"
        )


def _region_mask(
    region: str,
    size: tuple[int, int],
    face: Face | None,
    view: View,
    hidden: np.ndarray | None,
    seen: Mapping[str, np.ndarray],
) -> np.ndarray:
    """The pixels of a photo (H, W) in a named region of a square; bool [H,W]."""
    if hidden is not None:
        square = (view.side, view.side)
        result = view.mask_back(images.tokens_to_pixels(hidden, square), size)
    else:
        masks = [
            seen[name] if name in seen else default_region(name, size, face, view)
            for name in region.split("+")
        ]
        result = np.logical_or.reduce(masks) & view.covered(size)
    if not result.any():
        raise UserError(
            f"region '{region}' of this face lies beyond the photo or beyond what "
            "the model sees of it; give a mask or a box"
            if view.face
            else f"region '{region}' holds no pixel of a square of {view.side}; give a "
            "larger photo"
        )
    return result


def default_region(
    name: str, size: tuple[int, int], face: Face | None, view: View
) -> np.ndarray:
    """A region of a photo (H, W) by the mesh of a face, else of its square; bool [H,W].

    Raises:
      UserError: an unknown name.
    """
    if face is not None:
        return regions.face_region(name, face.mesh, size)
    return view.mask_back(regions.region_mask(name, view.side), size)


def _given_mask(
    mask: image_io.Source | None, box: Box | None, size: tuple[int, int]
) -> tuple[np.ndarray, dict[str, Any]]:
    """The mask bool [H,W] of a box or a file, and how it was given."""
    if box is not None:
        box = squares.checked_box(box, "box")
        return regions.box_mask(box, size), {"box": [int(v) for v in box]}
    result = image_io.decode_mask(mask, size)
    said = {"picture": hashlib.sha256(np.packbits(result)).hexdigest()[:16]}
    if isinstance(mask, (str, os.PathLike)):
        said["file"] = pathlib.Path(mask).name
    return result, said
