"""What tells that a picture was edited: its metadata and the token watermark (E.8)."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.data import image_io
from gptface_jax.ops import watermark
from gptface_jax.pipelines import provenance, views
from gptface_jax.pipelines.editing_model import EditingModel, Selection
from gptface_jax.pipelines.squares import checked_crop
from gptface_jax.pipelines.views import View

FALSE_POSITIVES = 1e-3


@dataclasses.dataclass(frozen=True)
class Count:
    """Green codes among those that count; without the mark binomial (tokens, 1/2).

    Attributes:
      green, tokens: numbers of them.
    """

    green: int
    tokens: int

    @property
    def z(self) -> float:
        """Standard deviations above half of them."""
        return (2 * self.green - self.tokens) / math.sqrt(self.tokens)

    @property
    def p_value(self) -> float:
        """Share of random keys that would count as many; exact, for few tokens too."""
        total, ways = 0, math.comb(self.tokens, self.green)
        for n in range(self.green, self.tokens + 1):
            total += ways
            ways = ways * (self.tokens - n) // (n + 1)
        return total / 2**self.tokens

    @property
    def found(self) -> bool:
        """Whether the mark is there, at a false-positive rate of `FALSE_POSITIVES`."""
        return self.p_value < FALSE_POSITIVES


@dataclasses.dataclass(frozen=True)
class Report:
    """Findings in a picture: its watermark and its metadata.

    Attributes:
      source_type: IPTC's digital source type in its XMP, or None.
      details: of the sidecar, else of the XMP, or None.
      details_in: "sidecar", "XMP" or "nothing".
      where: which positions count, in words.
      count: of green codes there.
      same_key: whether the details name this key's digest; None if they name none.
    """

    source_type: str | None
    details: Mapping[str, Any] | None
    details_in: str
    where: str
    count: Count
    same_key: bool | None


def green_codes(image_ids: np.ndarray, key: int, by_left: bool = False) -> np.ndarray:
    """Whether each code int [B,h,w] is of the key's half; bool [B,h,w]."""
    flat = image_ids.reshape(len(image_ids), -1)
    left = watermark.left_neighbours(flat, image_ids.shape[2])
    left = left if by_left else watermark.NONE
    found = watermark.green(key, np.arange(flat.shape[1]), left, flat)
    return np.asarray(found).reshape(image_ids.shape)


def count(
    green: np.ndarray, image_ids: np.ndarray, is_open: np.ndarray, by_left: bool = False
) -> Count:
    """The watermark's counts over one or several pictures, each independent code once.

    Args:
      green: bool [B,h,w], the `green_codes` of the pictures.
      image_ids: int [B,h,w].
      is_open: bool [B,h,w], the positions that count.
      by_left: see `ops.watermark`.
    """
    flat = image_ids.reshape(len(image_ids), -1).astype(np.int64)
    said = np.arange(flat.shape[1]) + flat * flat.shape[1]
    if by_left:
        left = np.asarray(watermark.left_neighbours(flat, image_ids.shape[2]))
        said += (left + 1) * (said.max() + 1)
    _, first = np.unique(said.reshape(is_open.shape)[is_open], return_index=True)
    return Count(green=int(green[is_open][first].sum()), tokens=len(first))


def detect(
    model: EditingModel,
    image: image_io.Source,
    key: int = 0,
    *,
    by_left: bool = False,
    seed: int | None = None,
    **where: Any,
) -> Report:
    """Looks for the marks that this package leaves.

    Args:
      model: the one that edited; the picture is encoded again by its VQGAN.
      image: path, encoded bytes, PIL image or uint8 array [H,W,3].
      key: the watermark's secret.
      by_left: see `DecodeConfig.watermark_left`; the sidecar's word counts more.
      seed: of a region that was chosen by chance; default what the sidecar or the XMP
        says, else 0.
      **where: fields of a `Selection`, such as box: what was edited; default what the
        sidecar or the XMP says, else the whole central square.

    Raises:
      UserError: no picture, no key, or a mask that does not fit.
    """
    try:
        watermark.check_key(key)
    except ValueError as error:
        raise UserError(str(error)) from None
    selection = Selection(**where)
    if selection.is_open and (selection.face is not None or selection.change.any):
        which = str(selection.change) or "face"
        raise UserError(
            f"{which} goes with a mask, box or region; give one, or leave it out"
        )
    photo = image_io.decode(image)
    source_type, details, details_in = _metadata(image)
    grid = model.grid
    squares = _squares(details, photo.shape[:2], grid)
    if not selection.is_open:
        if seed is None:
            seed = (details or {}).get("seed") or 0
        framed, _ = model.select(photo, selection, seed)
        opened = images.pixels_to_tokens(framed.inside, grid)
        squares, where = [(framed.view, opened)], "of the mask"
    elif squares and selection.crop is None:
        where = f"that the {details_in} names"
    else:
        view = View.crop(checked_crop(selection.crop, photo.shape[:2]))
        squares, where = [(view, np.ones(grid, bool))], "of the whole square"
    decode = (details or {}).get("decode")
    decode = decode if isinstance(decode, dict) else {}
    digest = decode.get("watermark_key_digest")
    by_left = decode.get("watermark_left", by_left) is True
    ids = _codes(model, photo, [square for square, _ in squares])
    is_open = np.stack([opened for _, opened in squares])
    return Report(
        source_type=source_type,
        details=details,
        details_in=details_in,
        where=where,
        count=count(green_codes(ids, key, by_left), ids, is_open, by_left),
        same_key=None if digest is None else digest == provenance.key_digest(key),
    )


def _codes(model: EditingModel, photo: np.ndarray, squares: list[View]) -> np.ndarray:
    """Codes int [B,h,w] of B squares of a photo."""
    size = (model.size,) * 2
    parts = [images.resize(view.picture(photo), size) for view in squares]
    return np.asarray(model.editor.image_ids(np.stack(parts)))


def _metadata(image: image_io.Source):
    """(source type, details, where these are) of a picture that can be read."""
    source_type, details = provenance.marks_of(image)
    is_path = isinstance(image, (str, os.PathLike))
    if is_path and (beside := provenance.read_sidecar(image)) is not None:
        return source_type, beside, "sidecar"
    return source_type, details, "nothing" if details is None else "XMP"


def _squares(
    details: Mapping[str, Any] | None, size: tuple[int, int], grid: tuple[int, int]
) -> list[tuple[View, np.ndarray]]:
    """Squares of a photo (H, W) and their open tokens, scaled as the photo was.

    Empty where the details name none that fit.
    """
    try:
        width, height = details["size"]
        scale = size[1] / width
        if abs(scale * height - size[0]) > 1:
            return []
        found = []
        for square in details["squares"]:
            view = views.view_of(square, scale)
            opened = np.array([[c == "1" for c in row] for row in square["open"]])
            if opened.shape != tuple(grid) or not opened.any():
                return []
            x0, y0, x1, y1 = view.box
            if not (0 <= x0 < x1 <= size[1] and 0 <= y0 < y1 <= size[0]):
                return []
            found.append((view, opened))
        return found
    except (KeyError, TypeError, ValueError, ZeroDivisionError, OverflowError):
        return []  # metadata are anybody's
