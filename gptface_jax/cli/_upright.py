"""Arguments of the verbs that bring faces upright before they go on."""

from __future__ import annotations

import argparse
import json
import pathlib

from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--upright",
        action="store_true",
        help="bring the face whose points or box are known, else the largest that is "
        "found, into the model frame; what has none, too small a one, or one that is "
        "cut off is dropped and counted",
    )
    parser.add_argument(
        "--frame",
        metavar="FILE.json",
        help="of --upright, by `gptface faces --measure`; default the bundled model's",
    )


def upright(options: argparse.Namespace, size: int, frame=None):
    """The change of records that brings faces into the frame of --frame, or None.

    frame: without --frame; by default the bundled model's.

    Raises:
      UserError: a frame without --upright or that is none, or a size below 16.
    """
    if not options.upright:
        if options.frame:
            raise UserError("--frame says where --upright brings a face; give both")
        return None
    from gptface_jax.pipelines.upright import FRAME, Upright

    if size < 16:
        raise UserError(f"--size is {size}; use 16 pixels or more")
    if options.frame:
        frame = read_frame(options.frame)
    return Upright(size, tuple(map(tuple, FRAME if frame is None else frame)))


def read_frame(path: str) -> list[list[float]]:
    """The frame in a file that `gptface faces --measure` wrote.

    Raises:
      UserError: there is none.
    """
    from gptface_jax.pipelines.framing import checked_frame

    try:
        frame = json.loads(pathlib.Path(path).read_text())["frame"]
    except (OSError, ValueError, TypeError, KeyError):
        raise UserError(
            f"'{path}' holds no frame; make it by `gptface faces --measure`"
        ) from None
    return [[round(float(v), 4) for v in point] for point in checked_frame(frame)]
