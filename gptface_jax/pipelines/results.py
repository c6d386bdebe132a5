"""Finished pictures with what is said of them: edits, samples, sidecars."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from gptface_jax.core import files
from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io
from gptface_jax.data import photo as photos
from gptface_jax.pipelines import pictures, provenance, strength


@dataclasses.dataclass(frozen=True)
class Edit:
    """A finished edit.

    Attributes:
      image: the photo at its own resolution, edited; PIL image in sRGB, with the
        photo's transparency where it has any.
      before: the photo as decoded (orientation applied); PIL image.
      mask: bool [H,W], what was allowed to change.
      committed_at: int32 [h,w], iteration that drew a token of the square
        `details["crop"]`, -1 for known ones; of several squares the last one's.
      text: the sentence, "" for inpainting.
      itm_log_prob: log p(q=1) before each iteration (empty without guidance).
      final_log_prob: log p(q=1) of the finished tokens.
      details: what the sidecar holds: seed, options, model digest, ...
      photo: what was given first, with what `save` keeps of its file.
    """

    image: Image.Image
    before: Image.Image
    mask: np.ndarray
    committed_at: np.ndarray
    text: str
    itm_log_prob: tuple[float, ...]
    final_log_prob: float
    details: Mapping[str, Any]
    photo: photos.Photo | None = None

    def losses(self, path: str | os.PathLike) -> list[str]:
        """Notes on what the file's format cannot hold of the photo and the details."""
        flat = pictures.check(path) == "JPEG" and self.image.mode == "RGBA"
        notes = ["JPEG has no transparency: the photo lies on white"] if flat else []
        return [*notes, *_left_out(path, self.details)]

    def save(
        self, path: str | os.PathLike, *, strip: bool = True
    ) -> list[pathlib.Path]:
        """Writes the picture, a before/mask/after strip and a JSON sidecar.

        The picture is marked as edited in its metadata, and has the photo's colour
        profile, resolution, camera and date; its place only with `keep_location`. An
        earlier edit of the same name is replaced; nothing else is.

        Args:
          path: FILE.png (exact), FILE.jpg or FILE.webp.
          strip: write the strip too.

        Returns:
          The paths: FILE.png, FILE.strip.png where it is written, FILE.json.

        Raises:
          UserError: the files cannot be written, or hold something else.
        """
        path, beside, sidecar = outputs(path)
        notes = [*self.details.get("notes", ()), *self.losses(path)]
        details = {**self.details, "notes": notes} if notes else self.details
        written = self.photo.as_stored(self.image) if self.photo else self.image
        if not strip:
            save_with_sidecar(written, path, details)
            return [path, sidecar]
        after, before = image_io.decode(self.image), np.asarray(self.before)
        names = ("strength", "expression", "turn")
        turned = [pair for n in names for pair in details.get(n, {}).items()]
        said = strength.asked_for(self.text, dict(turned))
        shown = pictures.before_mask_after(before, self.mask, after, said)
        also = {beside: pictures.saver(shown, beside, details)}
        save_with_sidecar(written, path, details, also)
        return [path, beside, sidecar]


class Samples(list):
    """Pictures out of nothing, PIL images [S,S].

    Attributes:
      details: what the sidecar holds: seed, options, model digest, ...
    """

    def __init__(self, images: Sequence[Image.Image], details: Mapping[str, Any]):
        super().__init__(images)
        self.details = details

    def save(self, path: str | os.PathLike, columns: int = 8) -> list[pathlib.Path]:
        """Writes them on one sheet, marked as drawn, and a JSON sidecar.

        Returns:
          The two paths: FILE.png, FILE.json. What of the details FILE.jpg has no room
          for is told by a warning.

        Raises:
          UserError: the files cannot be written, or hold something else.
        """
        path, _, sidecar = outputs(path)
        columns = min(columns, len(self))
        drawn = [np.asarray(image) for image in self]
        sheet = pictures.sheet(drawn, columns)
        everywhere = bit_rows(np.ones(self.details["grid"], bool))
        places = pictures.cells(len(self), columns)
        squares = [{"crop": list(box), "open": everywhere} for box in places]
        size = list(sheet.shape[1::-1])
        details = {**self.details, "size": size, "squares": squares}
        for note in _left_out(path, details):
            warnings.warn(note, stacklevel=2)
        save_with_sidecar(sheet, path, details)
        return [path, sidecar]


def _left_out(path: str | os.PathLike, details: Mapping[str, Any]) -> list[str]:
    """A note on the details that are in the sidecar alone, if there are any."""
    names = " and ".join(pictures.left_out(path, details))
    return [f"JPEG holds 64 KB of XMP: {names} in the sidecar alone"] if names else []


def save_with_sidecar(
    image: np.ndarray | Image.Image,
    path: pathlib.Path,
    details: Mapping[str, Any],
    also: Mapping[pathlib.Path, Callable[[str], Any]] | None = None,
) -> None:
    """Writes a picture that a model made, its sidecar beside it, and what `also` says:
    see `pictures.write_together`."""
    details = {"file": path.name, **details}
    text = json.dumps(details, indent=2) + "\n"
    # The sidecar first: whatever stops this, the rest may be written again.
    pictures.write_together(
        {
            provenance.beside(path)[1]: lambda name: pathlib.Path(name).write_text(
                text
            ),
            path: pictures.saver(image, path, details),
            **(also or {}),
        }
    )


def outputs(path: str | os.PathLike) -> tuple[pathlib.Path, ...]:
    """Paths FILE.png, FILE.strip.png and FILE.json, which `Edit.save` writes.

    The two have FILE.png for FILE where FILE.json is of FILE.jpg.

    Raises:
      UserError: FILE.json is no sidecar of ours, FILE exists without one, an ending
        that is no format, or a folder that cannot be written.
    """
    path = pathlib.Path(path)
    pictures.check(path)
    strip, sidecar = provenance.beside(path)
    ours = provenance.read_sidecar(path) is not None
    for taken in (sidecar, path, strip):
        if taken.exists() and not ours:
            raise UserError(
                f"'{taken}' exists and is not of an earlier edit; write to another name"
            )
    try:
        files.check_place(path)
    except OSError as error:
        raise UserError(
            f"cannot write '{path}': {error.strerror} ('{error.filename}'); write to "
            "another folder"
        ) from None
    return path, strip, sidecar


def joined(
    edits: Sequence[Edit],
    photo: np.ndarray,
    said: Mapping[str, Any],
    also: np.ndarray | None = None,
) -> Edit:
    """Edits that followed one another on one photo, as one.

    Args:
      edits: at least one.
      photo: uint8 [H,W,3] before the first.
      said: how the mask was given.
      also: bool [H,W], what was changed besides.
    """
    masks = [e.mask for e in edits] + ([] if also is None else [also])
    mask = np.logical_or.reduce(masks)
    details = {**edits[-1].details, "mask": {**said, "pixels": int(mask.sum())}}
    details["tokens"] = sum(e.details["tokens"] for e in edits)
    details["squares"] = [s for e in edits for s in e.details["squares"]]
    details["notes"] = [*dict.fromkeys(n for e in edits for n in e.details["notes"])]
    before = Image.fromarray(photo)
    return dataclasses.replace(edits[-1], before=before, mask=mask, details=details)


def bit_rows(open_tokens: np.ndarray) -> list[str]:
    """The rows of bool [h,w] as h strings of 0 and 1."""
    return ["".join("01"[x] for x in row) for row in open_tokens.astype(int)]
