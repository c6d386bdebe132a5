"""What the page does, without the page: masks, variants, chains, files, zips."""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import pathlib
import zipfile
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image

from gptface_jax.apps import api
from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.data import image_io
from gptface_jax.pipelines import pictures, views
from gptface_jax.systems.gptface.options import DecodeConfig

RED, BLUE = "#dc2828", "#2850dc"
OPACITY = 0.6  # of what is painted, that the photo shows through
_SIDE = 1024  # longest side of what a browser paints on
_STEPS_SIDE, _CLOSE_SIDE = 256, 512  # of the animation and of a variant, in pixels

GONE = "there is no such upload; files are kept for a limited time: upload it again"

Say = Callable[[float, str], None]


# What is edited next: a photo, or the last edit of it.
Photo = Image.Image | api.Edit


def pixels(photo: Photo) -> np.ndarray:
    """Pixels uint8 [H,W,3] of a photo."""
    return image_io.decode(photo.image if isinstance(photo, api.Edit) else photo)


def thumbnail(photo: np.ndarray, side: int = _SIDE) -> np.ndarray:
    """The picture uint8 [H,W,3] with sides of at most 1,024, or another limit."""
    scale = min(1.0, side / max(photo.shape[:2]))
    height, width = (max(1, round(side * scale)) for side in photo.shape[:2])
    return images.resize(photo, (height, width))


def canvas(photo: np.ndarray, mask: np.ndarray | None = None) -> dict[str, Any]:
    """The canvas for the brush: the photo, with a mask that is there already in red.

    The mask is no layer, for gradio 6.31 loses layers that it is given at the first
    stroke upon them.

    Args:
      photo: uint8 [H,W,3], shown as a `thumbnail`.
      mask: bool [H,W].
    """
    shown = thumbnail(photo)
    if mask is not None:
        shown = pictures.shade(shown, images.tokens_to_pixels(mask, shown.shape[:2]))
    return {"background": shown, "layers": [], "composite": None}


def marked(
    value: Mapping[str, Any] | None, mask: np.ndarray | None, size: tuple[int, int]
) -> np.ndarray:
    """The mask after what was painted on a `canvas`, which may be empty; bool [H,W].

    Args:
      value: of the canvas; red in its layers joins the mask, blue leaves it.
      mask: bool [H,W], what was there already.
      size: (H, W) of the photo.
    """
    found = np.zeros(size, bool) if mask is None else mask.copy()
    for layer in (value or {}).get("layers", ()):
        red, _, blue, opacity = np.moveaxis(np.asarray(layer, np.int16), -1, 0)
        # Half of what the brush lays on: its soft edge lies on both sides of the line.
        stroke = opacity >= 127 * OPACITY
        found |= images.tokens_to_pixels(stroke & (red > blue), size)
        found &= ~images.tokens_to_pixels(stroke & (blue > red), size)
    return found


def painted(
    value: Mapping[str, Any] | None, mask: np.ndarray | None, size: tuple[int, int]
) -> np.ndarray:
    """The marked pixels as of `marked`, but there have to be some.

    Raises:
      UserError: nothing is.
    """
    found = marked(value, mask, size)
    if not found.any():
        raise UserError(
            "nothing is marked; paint what may change, upload a mask, choose a region, "
            "let one be proposed, or turn attributes up or down"
        )
    return found


def strength(model: api.Model) -> float:
    """Strength by which the matching gradient moves the parameters; 0: it does not."""
    return 0.0 if model.decode.guidance == "none" else model.decode.step_size


def strengths(given: Any) -> tuple[Mapping[str, float] | None, float | None]:
    """(strengths of attributes, that of the guidance) of a request's "strength".

    Requests of before attributes had any give a number: that of the guidance.

    Raises:
      UserError: neither a number from 0 to 1 nor a mapping.
    """
    if given is None or isinstance(given, Mapping):
        return given or None, None
    number = isinstance(given, (int, float)) and not isinstance(given, bool)
    if not (number and 0 <= given <= 1):
        raise UserError(
            f"strength is {given!r}; give {{'Smiling': 2}}, or a number from 0 to 1 "
            "for that of the guidance"
        )
    return None, float(given)


def steering(model: api.Model, weight: float, strength: float) -> dict[str, Any]:
    """Options of the decoder for a weight of the text (`cfg`) and a `strength`.

    The match is reported for every iteration.
    """
    options = {"cfg": float(weight), "cfg_end": None}
    if not strength:
        return {**options, "guidance": "none", "trace": True}
    own = model.decode.guidance
    rule = DecodeConfig.guidance if own == "none" else own
    return {**options, "guidance": rule, "step_size": strength}


def variants(
    model: api.Model,
    photo: Photo,
    text: str,
    mask: np.ndarray,
    count: int,
    seed: int,
    say: Say,
    **options: Any,
) -> list[api.Edit]:
    """Variants of an edit: the same with seeds from `seed` on."""
    edits = []
    for i in range(count):
        say(i / count, f"variant {i + 1} of {count}")
        edits.append(model.edit(photo, text, mask, seed=seed + i, **options))
    return edits


def caption(edit: api.Edit) -> str:
    """A line below a variant."""
    fits = f", match {math.exp(edit.final_log_prob):.2f}" if edit.text else ""
    return f"seed {edit.details['seed']}{fits}"


def curves(edits: Sequence[api.Edit]) -> dict[str, list[Any]]:
    """Columns iteration, log p(q=1) and variant; the last value is the finished one."""
    rows = [
        (iteration, value, f"seed {edit.details['seed']}")
        for edit in edits
        for iteration, value in enumerate((*edit.itm_log_prob, edit.final_log_prob))
        if edit.itm_log_prob
    ]
    columns = zip(*rows) if rows else ((), (), ())
    return dict(zip(("iteration", "log p(q=1)", "variant"), map(list, columns)))


def save_mask(mask: np.ndarray, folder: str | os.PathLike) -> str:
    """Writes a mask bool [H,W] as a picture, white = change; the path."""
    path = pathlib.Path(folder, "mask.png")
    pictures.save(pictures.of_mask(mask), path)
    return str(path)


def files(edit: api.Edit, folder: str | os.PathLike, name: str) -> list[str]:
    """Writes picture, strip and sidecar of an edit; their paths."""
    return [str(p) for p in edit.save(pathlib.Path(folder, name).with_suffix(".png"))]


def close_up(edit: api.Edit, folder: str | os.PathLike, name: str) -> str:
    """Writes the square that the model saw, edited and small; the path."""
    square = views.view_of(edit.details).picture(np.asarray(edit.image))
    path = pathlib.Path(folder, f"{name}.png")
    pictures.save(thumbnail(square, _CLOSE_SIDE), path, edit.details)
    return str(path)


def animation(edit: api.Edit, folder: str | os.PathLike, name: str) -> str:
    """Writes how the tokens of an edit were committed; the path."""
    square = views.view_of(edit.details).picture(pixels(edit))
    frames = pictures.steps(
        images.resize(square, (_STEPS_SIDE,) * 2), edit.committed_at
    )
    path = pathlib.Path(folder, f"{name}.webp")
    pictures.save_animation(frames, path, edit.details)
    return str(path)


def edit_all(
    sources: Sequence[str | os.PathLike],
    edit: Callable[[bytes], api.Edit],
    folder: str | os.PathLike,
    say: Say,
) -> tuple[str, list[tuple[str, str]]]:
    """Edits of many photos; one that cannot be edited never stops the rest.

    Args:
      sources: files; they and the zip are kept from being swept while it runs.
      edit: edits the content of one.
      folder: where the zip is written.
      say: is called with how far it is.

    Returns:
      (path of edited.zip with pictures, strips, sidecars and report.json; rows of
      file name and what came of it).
    """
    report, path = [], pathlib.Path(folder, "edited.zip")
    waiting = [pathlib.Path(source) for source in sources]
    with zipfile.ZipFile(path, "w") as archive:
        for number, source in enumerate(waiting):
            say(number / len(waiting), f"photo {number + 1} of {len(waiting)}")
            _touch([path, *waiting[number:]])
            try:
                finished = edit(_content(source))
                for name in files(finished, folder, f"{number + 1:03d}-{source.stem}"):
                    archive.write(name, pathlib.Path(name).name)
                    os.unlink(name)
                report.append((source.name, caption(finished)))
            except UserError as error:
                report.append((source.name, f"not edited: {error}"))
            except Exception:
                logging.exception("photo %s of several", source.name)
                report.append((source.name, "not edited: an unexpected failure"))
        lines = [{"file": name, "result": result} for name, result in report]
        archive.writestr("report.json", json.dumps(lines, indent=2) + "\n")
    return str(path), report


def _touch(paths: Sequence[pathlib.Path]) -> None:
    """Makes files new, so that `server.sweep` leaves them."""
    for path in paths:
        with contextlib.suppress(OSError):
            os.utime(path)


def _content(upload: pathlib.Path) -> bytes:
    """The bytes of an upload.

    Raises:
      UserError: it is not there any more.
    """
    try:
        return upload.read_bytes()
    except FileNotFoundError:
        raise UserError(GONE) from None
