"""The faces of a photo on the page: found once, one of them chosen."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from gptface_jax.apps import api
from gptface_jax.apps.web import work
from gptface_jax.core.errors import UserError
from gptface_jax.pipelines import framing, pictures
from gptface_jax.pipelines.editing_model import Selection
from gptface_jax.pipelines.faces import Face, largest
from gptface_jax.pipelines.views import View


@dataclasses.dataclass(frozen=True)
class Opened:
    """A photo that is edited next.

    Attributes:
      photo: the photo, or the last edit of it.
      faces: from left to right; None where none are looked for.
      face: the chosen one, None where there is none.
    """

    photo: work.Photo
    faces: tuple[Face, ...] | None = None
    face: Face | None = None

    @property
    def pixels(self) -> np.ndarray:
        """Pixels uint8 [H,W,3] of the photo."""
        return work.pixels(self.photo)

    @property
    def several(self) -> bool:
        """Whether there is a choice."""
        return len(self.faces or ()) > 1

    @property
    def number(self) -> int | None:
        """Number of the chosen face where there are several, from 1 on; else None."""
        if not self.several:
            return None
        return 1 + next(i for i, f in enumerate(self.faces) if f is self.face)

    def at(self, point: Sequence[float]) -> Opened:
        """The photo with the face chosen that is nearest to (x, y) of `outlined`."""
        if not self.faces:
            return self
        scale = self.pixels.shape[1] / work.thumbnail(self.pixels).shape[1]
        nearest = _nearest(self.faces, scale * np.array(point))
        return dataclasses.replace(self, face=nearest)


def opened(
    model: api.Model, photo: work.Photo, align: bool = True, before: Face | None = None
) -> Opened:
    """A photo with its faces; the largest is chosen, or the one that was before.

    Args:
      model: one without a frame looks for no faces.
      photo: to look at.
      align: look for faces.
      before: a face that was chosen in the same photo before an edit.
    """
    if not align or model.frame is None:
        return Opened(photo)
    found = tuple(model.faces(photo))
    chosen = largest(found)
    if found and before is not None:
        there = _nearest(found, _middle(before))
        chosen = there if _apart(there, _middle(before)) == 0 else chosen
    return Opened(photo, found, chosen)


def notes(opened: Opened) -> list[str]:
    """Notes on the faces that were found, or not."""
    if opened.faces is None:
        return []
    size = opened.pixels.shape[:2]
    if not opened.faces and max(size) > framing.NEARLY_SQUARE * min(size):
        return [_unfound()]
    return framing.chosen_face([opened.face] if opened.face else [], None, size)[1]


def _unfound() -> str:
    return (
        "no face was found; mark what may change, or untick 'Find faces': the middle "
        "square is then taken for an upright face"
    )


def region(
    model: api.Model, opened: Opened, name: str, perception: Any = None
) -> tuple[np.ndarray, list[str]]:
    """A named region of the chosen face, bool [H,W], and notes.

    Args:
      model, opened: whose face it is.
      name: of the region.
      perception: see `api.Model.edit`.

    Raises:
      UserError: no face was found, or the region lies beyond the photo.
    """
    selection = Selection(region=name, perception=perception, **aim(opened))
    framed, notes = model.select(opened.pixels, selection)
    return framed.mask, notes


def aim(opened: Opened) -> dict[str, Any]:
    """Arguments `face` and `align` of the model's verbs, for the chosen face.

    Raises:
      UserError: no face was found in a photo that is not nearly square.
    """
    if opened.face is not None:
        return {"face": opened.face}
    size = opened.pixels.shape[:2]
    if opened.faces == () and max(size) > framing.NEARLY_SQUARE * min(size):
        raise UserError(_unfound())
    return {"align": False}


def aim_at(model: api.Model, opened: Opened, mask: np.ndarray) -> dict[str, Any]:
    """Options of `Model.edit` for a mask: the chosen face where the mask lies on it.

    Else the largest on which it does, else none, as where no face is named.

    Args:
      model: whose frame it is.
      opened: the photo.
      mask: bool [H,W], what may change.
    """
    others = sorted(opened.faces or (), key=lambda face: -face.area)
    for face in (opened.face, *others):
        if face is not None:
            view = View.upright(face.five, model.frame, mask.shape)
            if view.holds(mask):
                return {"face": face}
    return {"align": False}


def outlined(opened: Opened) -> np.ndarray:
    """The photo, small, with boxes and numbers where there are several faces.

    Returns:
      uint8 [H,W,3].
    """
    shown = work.thumbnail(opened.pixels)
    if opened.several:
        shown = _drawn(shown, opened, opened.faces, opened.number - 1)
    return shown


def canvas(opened: Opened, mask: np.ndarray | None = None) -> dict[str, Any]:
    """A `work.canvas` with the chosen face outlined."""
    value = work.canvas(opened.pixels, mask)
    if opened.face is not None:
        value["background"] = _drawn(value["background"], opened, [opened.face], 0)
    return value


def _drawn(shown, opened, faces, chosen):
    scale = shown.shape[1] / opened.pixels.shape[1]
    boxes = [[scale * v for v in face.box] for face in faces]
    return pictures.outlined(shown, boxes, chosen)


def number(text: str | None) -> int | str | None:
    """The face that a request asks for: a number from 1 on, "all", or None for "".

    Raises:
      UserError: something else.
    """
    text = (text or "").strip()
    if text in ("", "all"):
        return text or None
    if not text.isdecimal() or int(text) < 1:
        raise UserError(f"face is '{text[:20]}'; give a number from 1 on, or all")
    return int(text)


def _middle(face: Face) -> np.ndarray:
    return np.array(face.box).reshape(2, 2).mean(0)


def _apart(face: Face, point: np.ndarray) -> float:
    """Pixels from a point (x, y) to the box of a face, 0 within."""
    low, high = np.array(face.box).reshape(2, 2)
    return float(np.hypot(*np.maximum(np.maximum(low - point, point - high), 0)))


def _nearest(faces: Sequence[Face], point: np.ndarray) -> Face:
    """The face whose box is nearest to a point; of several boxes by the middle."""

    def far(face):
        return _apart(face, point), float(np.hypot(*(_middle(face) - point)))

    return min(faces, key=far)
