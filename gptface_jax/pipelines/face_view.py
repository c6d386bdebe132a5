"""The square of a photo that a model sees: its face, brought upright."""

from __future__ import annotations

from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.pipelines import faces as face_finding
from gptface_jax.pipelines import framing, squares
from gptface_jax.pipelines.faces import Face
from gptface_jax.pipelines.views import Box, View

# Nothing tells where its pictures showed eyes and mouth.
UNFRAMED = (
    "this model does not know where in its pictures faces are: the central square was "
    "taken as it is; export its run, or import its checkpoint, with --frame (`gptface "
    "faces --measure` writes one)"
)


class SeesFaces:
    """Base class of models that look at one face of a photo.

    Attributes:
      frame: where the training pictures show eyes, nose and mouth corners, [5,2] as
        shares of the side (`faces.Face.five`): faces are found and brought there. None:
        the model sees the middle square of a photo as it is.
    """

    frame: np.ndarray | None

    @property
    def size(self) -> int:
        """Side in pixels of the squares that the model sees."""
        raise NotImplementedError

    def found_faces(
        self, photo: np.ndarray, face: Any, align: bool, crop: Box | None
    ) -> list[Face] | None:
        """The faces of a photo; None where none is to be looked for."""
        if not align or crop is not None or self.frame is None:
            if face is not None:
                why = "crop" if crop is not None else "align=False (--no-align)"
                if align and crop is None:
                    why = "a model without a frame"
                which = "a face" if isinstance(face, Face) else f"face {face}"
                raise UserError(f"{which} does not go with {why}; give one of them")
            return None
        return [face] if isinstance(face, Face) else face_finding.find(photo)

    def seen(
        self,
        photo: np.ndarray,
        face: int | Face | None = None,
        align: bool = True,
        crop: Box | None = None,
    ) -> tuple[tuple[Face | None, View], list[str]]:
        """The face to work on with the square that the model sees of it, and notes."""
        found, size = self.found_faces(photo, face, align, crop), photo.shape[:2]
        notes: list[str] = []
        if found is not None:
            number = None if isinstance(face, Face) else face
            best, notes = framing.chosen_face(found, number, size)
            if best is not None:
                return (best, self.view_of(best, photo)), notes
        return (None, View.crop(squares.checked_crop(crop, size))), notes

    def face_in(self, view: View, photo: np.ndarray) -> Face | None:
        """The largest face whose middle lies in a square of a photo, or None."""
        x0, y0, x1, y1 = view.box

        def inside(face: Face) -> bool:
            left, top, right, bottom = face.box
            return x0 <= (left + right) / 2 < x1 and y0 <= (top + bottom) / 2 < y1

        found = [face for face in face_finding.find(photo) if inside(face)]
        return max(found, key=lambda face: face.area, default=None)

    def square(
        self, photo: np.ndarray, face: int | Face | None, align: bool
    ) -> tuple[np.ndarray, list[str]]:
        """The square that the model sees, uint8 [1,S,S,3] at its size; notes."""
        (_, view), notes = self.seen(photo, face, align)
        if align and self.frame is None:
            notes = [*notes, UNFRAMED]
        return images.resize(view.picture(photo), (self.size,) * 2)[None], notes

    def view_of(self, face: Face, photo: np.ndarray) -> View:
        """The square of an upright face as the training pictures show it."""
        return View.upright(face.five, self.frame, photo.shape[:2])
