"""See faces in a few lines; what `load` of a perception model gives."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from gptface_jax.apps import verbs
from gptface_jax.core import files
from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io
from gptface_jax.experiments import faceptor_run
from gptface_jax.pipelines import perception_pictures, pictures
from gptface_jax.pipelines.faces import Face
from gptface_jax.pipelines.perception import FaceSeen, PerceptionModel
from gptface_jax.pipelines.rows import Steps
from gptface_jax.pipelines.views import Box


@dataclasses.dataclass(frozen=True)
class Seen:
    """Predictions for the faces of a photo.

    Attributes:
      photo: uint8 [H,W,3], as decoded.
      faces: one entry each, by their left edge.
      model: digest of the weights.
      notes: what should be known of the result.
    """

    photo: np.ndarray
    faces: tuple[FaceSeen, ...]
    model: str = ""
    notes: tuple[str, ...] = ()

    @property
    def image(self) -> Image.Image:
        """The photo, and beside it a column for each face."""
        return Image.fromarray(perception_pictures.sheet(self.photo, self.faces))

    @property
    def parts(self) -> Image.Image:
        """The classes of all pixels of the photo, mode "P" with a colour each; their
        names, by number, are `classes` in `described`.

        Raises:
          UserError: the model tells no parts.
        """
        if not self.classes:
            raise UserError(
                "no parts are told here; ask for a parsing task of the model, or take "
                "a model that has one"
            )
        numbers = perception_pictures.parts(self.photo.shape[:2], self.faces)
        image = Image.fromarray(numbers, "P")
        image.putpalette(perception_pictures.colours(256).tobytes())
        return image

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of `parts`; () where none are told."""
        return next((face.classes for face in self.faces if face.classes), ())

    def described(self) -> dict[str, Any]:
        """The predictions as JSON types."""
        named = {"classes": list(self.classes)} if self.classes else {}
        return {
            "size": list(self.photo.shape[1::-1]),
            "model": self.model,
            "faces": [face.described() for face in self.faces],
            **named,
            "notes": list(self.notes),
        }

    def save(self, path: str | os.PathLike) -> list[pathlib.Path]:
        """Writes `image`, and FILE.json beside it with what is said.

        Args:
          path: FILE.png, .jpg or .webp; or FILE.json for the second alone.

        Returns:
          The paths that were written.

        Raises:
          UserError: another ending, or a place that cannot be written.
        """
        path = pathlib.Path(path)
        beside = path.with_suffix(".json")
        text = files.json_text(self.described())
        if path.suffix != ".json":
            pictures.check(path)
        pictures.write(beside, lambda name: pathlib.Path(name).write_text(text))
        if path.suffix == ".json":
            return [beside]
        pictures.save(np.asarray(self.image), path)
        return [path, beside]


class Perceiver(verbs.Facade, PerceptionModel):
    """A trained perception model and all that it does; see `PerceptionModel`."""

    @verbs.in_steps
    def perceive(
        self, image: image_io.Source, *, tasks: Sequence[str] | None = None,
        face: int | Face | None = None, align: bool = True, crop: Box | None = None,
    ) -> Steps[Seen]:  # fmt: skip
        """Landmarks, parts, age, expression and attributes of the faces of a photo.

        Guesses by appearance, and no facts about a person.

        Args:
          image: path, encoded bytes, PIL image or uint8 array [H,W,3].
          tasks: names of the model's tasks, one of a family; default the first of each.
          face: a face, from 1 on by their left edge, or one of `faces`; default all.
          align: find faces and bring them upright; otherwise the central square is
            taken for an upright face.
          crop: (x0, y0, x1, y1), a square that an upright face fills.

        Raises:
          UserError: a picture without a face, or an argument that cannot be used.
        """
        photo = image_io.decode(image)
        found, notes = yield from self.perceived(photo, face, align, crop, tasks)
        return Seen(photo, tuple(found), self.digest, tuple(notes))


def open_model(path: pathlib.Path, tokenizer: Any, dtype: str | None) -> Perceiver:
    """A perception model from a folder; arguments as of `load`.

    Raises:
      UserError: damaged files, or a tokenizer that is missing or not needed.
    """
    return faceptor_run.open_model(Perceiver, path, tokenizer, dtype)


__all__ = ["Perceiver", "Seen", "open_model"]
