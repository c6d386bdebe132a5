"""Contact sheets and before/mask/after strips."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from gptface_jax.core.errors import UserError

_TEXT, _PAPER, _LINE = (20, 20, 20), (255, 255, 255), 15
# Stored in every edited picture, readable by anybody who opens it.
MARK = "Edited with gptface_jax: this picture has been changed by a generative model"


def _font(size: int = 12):
    return ImageFont.load_default(size)


def _wrap(text: str, width: int, font) -> list[str]:
    if "\n" in text:
        return [line for part in text.split("\n") for line in _wrap(part, width, font)]
    lines, line = [], ""
    for word in text.split():
        longer = f"{line} {word}".strip()
        if line and font.getlength(longer) > width:
            lines.append(line)
            line = word
        else:
            line = longer
    return [*lines, line] if line else lines


def sheet(
    images: Sequence[np.ndarray],
    columns: int,
    captions: Sequence[str] | None = None,
    cell: int = 160,
    gap: int = 8,
) -> np.ndarray:
    """Pictures in rows, each with its caption below.

    Args:
      images: uint8 [H,W,3], any sizes; each is fitted into a square cell.
      columns: in a row.
      captions: one for each picture, wrapped; lines of their own stay apart.
      cell: side of a cell in pixels.
      gap: between cells.

    Returns:
      uint8 [H,W,3].
    """
    font = _font()
    wrapped = [_wrap(c, cell, font) for c in captions or [""] * len(images)]
    rows = math.ceil(len(images) / columns)
    heights = [
        _LINE * max(len(w) for w in wrapped[r * columns : (r + 1) * columns])
        for r in range(rows)
    ]
    width = columns * (cell + gap) + gap
    page = Image.new(
        "RGB", (width, sum(heights) + rows * (cell + 2 * gap) + gap), _PAPER
    )
    draw = ImageDraw.Draw(page)
    top = gap
    for r in range(rows):
        for c in range(columns):
            i = r * columns + c
            if i >= len(images):
                break
            left = gap + c * (cell + gap)
            page.paste(_fitted(images[i], cell), (left, top))
            for n, line in enumerate(wrapped[i]):
                place = (left, top + cell + 3 + n * _LINE)
                draw.text(place, line, fill=_TEXT, font=font)
        top += cell + heights[r] + 2 * gap
    return np.asarray(page)


def _fitted(image: np.ndarray, cell: int) -> Image.Image:
    picture = Image.fromarray(image)
    scale = cell / max(picture.size)
    size = [max(1, round(s * scale)) for s in picture.size]
    smooth = Image.Resampling.BICUBIC if scale > 1 else Image.Resampling.LANCZOS
    square = Image.new("RGB", (cell, cell), _PAPER)
    corner = ((cell - size[0]) // 2, (cell - size[1]) // 2)
    square.paste(picture.resize(size, smooth), corner)
    return square


def shade(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Shows a mask: the masked part of the picture in red."""
    red = np.array([220, 40, 40], np.float32)
    mixed = (0.45 * image + 0.55 * red).astype(np.uint8)
    return np.where(mask[..., None], mixed, image)


def before_mask_after(
    before: np.ndarray, mask: np.ndarray, after: np.ndarray, text: str
) -> np.ndarray:
    """Three pictures side by side; uint8 [H,W,3]."""
    captions = ["before", "may change", f"edited: {text}" if text else "edited"]
    return sheet([before, shade(before, mask), after], 3, captions, cell=256)


def save(
    image: np.ndarray, path: str | os.PathLike, info: dict[str, str] | None = None
) -> None:
    """Writes a PNG (or JPEG, WebP by the ending), complete or not at all.

    Args:
      image: uint8 [H,W,3].
      path: its folder must exist.
      info: stored as PNG text (JPEG and WebP: the values as EXIF description).

    Raises:
      UserError: an ending that is no picture format, no such folder, disk full.
    """
    path = os.fspath(path)
    ending = os.path.splitext(path)[1].lower()
    formats = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
    if ending not in formats:
        raise UserError(
            f"'{path}' ends in '{ending}'; write a .png (exact), .jpg or .webp"
        )
    picture, options = Image.fromarray(image), {}
    if formats[ending] == "PNG":
        chunks = PngImagePlugin.PngInfo()
        for name, value in (info or {}).items():
            chunks.add_text(name, value)
        options["pnginfo"] = chunks
    elif info:
        exif = Image.Exif()
        exif[0x010E] = "; ".join(info.values())  # ImageDescription
        options |= {"exif": exif, "quality": 95}
    write(path, lambda partial: picture.save(partial, formats[ending], **options))


def write(path: str | os.PathLike, writer: Callable[[str], Any]) -> None:
    """Writes a file, complete or not at all.

    Args:
      path: its folder must exist.
      writer: writes the file of the name it is given.

    Raises:
      UserError: no such folder, disk full, or what the format cannot hold.
    """
    partial = f"{os.fspath(path)}.partial"
    try:
        writer(partial)
        os.replace(partial, path)
    except (OSError, ValueError) as error:
        if os.path.exists(partial):
            os.unlink(partial)
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot write '{path}': {reason}; check the folder, the free space and "
            "the picture's size"
        ) from error
