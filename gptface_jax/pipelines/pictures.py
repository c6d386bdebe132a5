"""Contact sheets, before/mask/after strips, and how tokens came one after another."""

from __future__ import annotations

import contextlib
import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, PngImagePlugin

from gptface_jax.core import files
from gptface_jax.core.errors import UserError
from gptface_jax.data.image import tokens_to_pixels
from gptface_jax.data.image_io import over_white
from gptface_jax.pipelines import provenance
from gptface_jax.pipelines.faces import Face
from gptface_jax.pipelines.views import View

_FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP"}
_WRITTEN = ("exif", "icc_profile", "dpi")  # of a picture's info
_DESCRIPTION = 0x010E  # EXIF ImageDescription
_MOST_XMP = {"JPEG": 65_000}  # bytes of a packet
_ALWAYS = ("edited", "software")  # what a packet needs
_TEXT, _PAPER, _LINE = (20, 20, 20), (255, 255, 255), 15
_FACE, _CHOSEN = (40, 120, 240), (235, 120, 0)


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
                corner = (left, top + cell + 3 + n * _LINE)
                draw.text(corner, line, fill=_TEXT, font=font)
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


def cells(
    count: int, columns: int, cell: int = 160, gap: int = 8
) -> list[tuple[int, int, int, int]]:
    """Squares (x0, y0, x1, y1) in which `sheet` puts pictures without captions."""
    corners = [
        (gap + i % columns * (cell + gap), gap + i // columns * (cell + 2 * gap))
        for i in range(count)
    ]
    return [(x, y, x + cell, y + cell) for x, y in corners]


def shade(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Shows a mask: the masked part of the picture in red."""
    red = np.array([220, 40, 40], np.float32)
    mixed = (0.45 * image + 0.55 * red).astype(np.uint8)
    return np.where(mask[..., None], mixed, image)


def heat(image: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Shows weights [h,w] from 0 on over a picture: the largest red, none dark."""
    size = image.shape[:2]
    share = weights / max(float(weights.max()), 1e-9)
    smooth = Image.fromarray(share.astype(np.float32)).resize(
        size[::-1], Image.Resampling.BICUBIC
    )
    share = np.clip(np.asarray(smooth), 0, 1)[..., None]
    red = np.array([255, 60, 30], np.float32)
    mixed = image * (0.35 + 0.65 * share)
    return ((1 - 0.55 * share) * mixed + 0.55 * share * red).astype(np.uint8)


def faces(photo: np.ndarray, found: Sequence[Face]) -> np.ndarray:
    """The photo with boxes, numbers from 1 on, and points; uint8 [H,W,3]."""
    page = Image.fromarray(photo)
    draw = ImageDraw.Draw(page)
    width = max(1, max(page.size) // 400)
    for number, face in enumerate(found, 1):
        height = face.box[3] - face.box[1]
        draw.rectangle(face.box, outline=_FACE, width=width)
        _number(draw, face.box, str(number), _FACE, max(10.0, height / 8))
        for px, py in face.mesh:
            draw.point((px, py), fill=(250, 220, 60))
        radius = width + height / 120
        for px, py in face.landmarks:
            box = (px - radius, py - radius, px + radius, py + radius)
            draw.ellipse(box, fill=(60, 220, 90))
    return np.asarray(page)


def squares_seen(photo: np.ndarray, views: Sequence[View]) -> np.ndarray:
    """The photo with the squares that a model sees; uint8 [H,W,3]."""
    page = Image.fromarray(photo)
    draw = ImageDraw.Draw(page)
    for view in views:
        side = view.side
        square = np.array([[0, 0], [side, 0], [side, side], [0, side], [0, 0]])
        corners = [tuple(p) for p in view.way.inverse.points(square)]
        draw.line(corners, fill=_FACE, width=max(1, max(page.size) // 120))
    return np.asarray(page)


def outlined(
    photo: np.ndarray, boxes: Sequence[Sequence[float]], chosen: int | None = None
) -> np.ndarray:
    """The photo with boxes, and numbers from 1 on where there are several.

    They can be read where the photo is shown a few hundred pixels wide.

    Args:
      photo: uint8 [H,W,3].
      boxes: (x0, y0, x1, y1) in its pixels.
      chosen: index of the one that stands out.

    Returns:
      uint8 [H,W,3].
    """
    page = Image.fromarray(photo)
    draw = ImageDraw.Draw(page)
    unit = max(page.size) / 250
    order = [i for i in range(len(boxes)) if i != chosen]
    for i in order if chosen is None else [*order, chosen]:  # on top of the others
        colour, width = (_CHOSEN, unit) if i == chosen else (_FACE, unit / 2)
        draw.rectangle([*boxes[i]], outline=colour, width=max(1, round(width)))
        if len(boxes) > 1:
            size = np.clip((boxes[i][3] - boxes[i][1]) / 4, 8 * unit, 16 * unit)
            _number(draw, boxes[i], str(i + 1), colour, float(size))
    return np.asarray(page)


def _number(draw, box, label, colour, size):
    """On the upper left corner of a box, within the picture."""
    wide, high = size * (0.4 + 0.6 * len(label)), 1.25 * size
    x = min(max(box[0], 0), draw.im.size[0] - wide)
    y = max(box[1] - high, 0)
    draw.rectangle((x, y, x + wide, y + high), fill=colour)
    draw.text((x + 0.2 * size, y), label, _PAPER, font=_font(size))


def of_mask(mask: np.ndarray) -> np.ndarray:
    """A mask bool [H,W] as a picture, white = may change; uint8 [H,W,3]."""
    return np.where(mask[..., None], np.uint8([255] * 3), np.uint8(0))


def before_mask_after(
    before: np.ndarray, mask: np.ndarray, after: np.ndarray, text: str
) -> np.ndarray:
    """Three pictures side by side; uint8 [H,W,3]."""
    captions = ["before", "may change", f"edited: {text}" if text else "edited"]
    return sheet([before, shade(before, mask), after], 3, captions, cell=256)


def steps(after: np.ndarray, committed_at: np.ndarray) -> list[np.ndarray]:
    """One picture for each iteration: how the decoder committed its tokens.

    Args:
      after: uint8 [H,W,3], what the model saw, edited.
      committed_at: int [h,w], iteration that drew a token, -1 for known ones.

    Returns:
      uint8 [H,W,3] each. Tokens that are still open are grey: in the first picture
      all that were drawn, in the last one none.
    """
    chequered = np.indices(committed_at.shape).sum(0) % 2 == 1
    size = after.shape[:2]
    grey = np.where(tokens_to_pixels(chequered, size), 120, 136).astype(np.uint8)
    shown = []
    for iteration in range(committed_at.max() + 2):
        is_open = tokens_to_pixels(committed_at >= iteration, size)
        shown.append(np.where(is_open[..., None], grey[..., None], after))
    return shown


def save_animation(
    frames: Sequence[np.ndarray],
    path: str | os.PathLike,
    details: Mapping[str, Any],
    seconds: float = 0.5,
) -> None:
    """Writes an animated WebP, complete or not at all.

    Args:
      frames: uint8 [H,W,3] of one size; the last one stays three times as long.
      path: its folder is made.
      details: see `save`.
      seconds: that each is shown.

    Raises:
      UserError: a folder that cannot be written, disk full.
    """
    first, *others = [Image.fromarray(frame) for frame in frames]
    shown = [round(1000 * seconds)] * len(others) + [round(3000 * seconds)]
    options = {"append_images": others, "duration": shown, "loop": 0}
    options |= _metadata(details, "WEBP")
    write(path, lambda name: first.save(name, "WEBP", save_all=True, **options))


def _mark(details: Mapping[str, Any]) -> str:
    return provenance.MARKS[provenance.source_type(details)]


def left_out(path: str | os.PathLike, details: Mapping[str, Any]) -> list[str]:
    """Names of the details for which a file of this ending has no room."""
    return [name for name in details if name not in _fitted_to(check(path), details)]


def _fitted_to(kind: str, details: Mapping[str, Any]) -> Mapping[str, Any]:
    """The details without the longest of them, so that the format can hold the rest."""
    most = _MOST_XMP.get(kind, math.inf)
    while len(provenance.packet(details)) > most:
        lengths = {k: len(json.dumps(v)) for k, v in details.items()}
        longest = max(lengths.keys() - _ALWAYS, key=lengths.get)
        details = {k: v for k, v in details.items() if k != longest}
    return details


def _metadata(
    details: Mapping[str, Any], kind: str, exif: bytes = b""
) -> dict[str, Any]:
    """Options of JPEG and WebP that say that a model made it, besides `exif`."""
    said, mark = Image.Exif(), _mark(details)
    if exif:
        said.load(exif)
    own = str(said.get(_DESCRIPTION, "")).strip()
    said[_DESCRIPTION] = mark if own in ("", mark) else f"{own} ({mark})"
    return {"exif": said.tobytes(), "xmp": provenance.packet(_fitted_to(kind, details))}


def save(
    image: np.ndarray | Image.Image,
    path: str | os.PathLike,
    details: Mapping[str, Any] | None = None,
) -> None:
    """Writes a PNG (or JPEG, WebP by the ending), complete or not at all.

    Args:
      image: uint8 [H,W,3], or a picture RGB or RGBA whose `info` has what else is to
        be written: "exif", "icc_profile", "dpi". JPEG has no transparency: the picture
        is laid over white.
      path: its folder is made.
      details: how a model made it; marks the picture in its XMP, see
        `provenance.packet`, and in the text of a PNG or the EXIF description, as far
        as the format has room, see `left_out`.

    Raises:
      UserError: an ending that is no picture format, a folder that cannot be
        written, disk full.
    """
    write_together({path: saver(image, path, details)})


def saver(
    image: np.ndarray | Image.Image,
    path: str | os.PathLike,
    details: Mapping[str, Any] | None = None,
) -> Callable[[str], None]:
    """A function that writes the picture for `path` to a name; see `save`."""
    kind = check(path)
    picture = image if isinstance(image, Image.Image) else Image.fromarray(image)
    options = {k: v for k, v in picture.info.items() if k in _WRITTEN}
    if kind == "WEBP":
        options["exact"] = True  # also the colours of transparent pixels
    if kind == "JPEG" and picture.mode == "RGBA":
        picture = Image.fromarray(over_white(picture))
    if details and kind == "PNG":
        options["pnginfo"] = chunks = PngImagePlugin.PngInfo()
        chunks.add_text("Comment", _mark(details))
        chunks.add_text("gptface_jax", json.dumps(details))
        chunks.add_itxt("XML:com.adobe.xmp", provenance.packet(details).decode())
    elif details:
        exif = options.get("exif", b"")
        options |= {**_metadata(details, kind, exif), "quality": 95}
    return lambda name: picture.save(name, kind, **options)


def check(path: str | os.PathLike) -> str:
    """Pillow's name of the format that a path's ending asks for.

    Raises:
      UserError: an ending that is no picture format.
    """
    path = os.fspath(path)
    ending = os.path.splitext(path)[1].lower()
    if ending not in _FORMATS:
        raise UserError(
            f"'{path}' ends in '{ending}'; write a .png (exact), .jpg or .webp"
        )
    return _FORMATS[ending]


def write(path: str | os.PathLike, writer: Callable[[str], Any]) -> None:
    """Writes one file, see `write_together`."""
    write_together({path: writer})


def write_together(
    writers: Mapping[str | os.PathLike, Callable[[str], Any]],
) -> None:
    """Writes files, all of them or none; folders that are missing are made.

    Args:
      writers: path -> what writes the file to the name that it is given. The first
        path is there first.

    Raises:
      UserError: a folder that cannot be written, disk full, or what the format cannot
        hold.
    """
    try:
        with contextlib.ExitStack() as stack:
            partial = {}
            for path in reversed(writers):  # the last one takes its place first
                partial[path] = stack.enter_context(files.replacing(path))
            for path, writer in writers.items():
                writer(os.fspath(partial[path]))
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot write '{path}': {reason}; check the folder, the free space and "
            "the picture's size"
        ) from error
