"""Two photos joined, what lies along the seam drawn anew (SPEC A.12)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import blending, image_io, tone
from gptface_jax.data import image as images
from gptface_jax.pipelines import framing, squares
from gptface_jax.pipelines.compositing import Blend
from gptface_jax.pipelines.edit import Plan, Steps, resample
from gptface_jax.pipelines.editing_model import EditingModel
from gptface_jax.pipelines.views import View

SEAMS = ("vertical", "horizontal")


def stitch(
    model: EditingModel,
    photo: np.ndarray,
    *,
    second: image_io.Source,
    seam: str | image_io.Source,
    at: float,
    band: float,
    colours: bool,
    text: str,
    samples: int,
    decode: Mapping[str, Any],
    seed: int = 0,
) -> Steps:
    """A photo uint8 [H,W,3] joined with a second; see `apps.api.Model.stitch`.

    Raises:
      UserError: photos or options that cannot be used.
    """
    height, width = photo.shape[:2]
    other = images.resize(
        images.crop_to(image_io.decode(second), width / height), (height, width)
    )
    theirs = _beyond_seam(seam, at, (height, width))
    if theirs.all():
        raise UserError("the seam leaves nothing of the first photo")
    if not theirs.any():
        raise UserError("the seam leaves nothing of the second photo")
    if band <= 0:
        raise UserError(f"band is {band}; draw more than 0 tokens along the seam")
    cell = min(height, width) / max(model.grid)
    if colours:
        strip = blending.boundary_band(theirs, 2 * cell)
        other = blending.match_colours(other, strip, photo, strip)
        if (own := tone.tone_of(photo, ~theirs)) is not None:
            other = own.give(other)
    joined = np.where(theirs[..., None], other, photo)
    mask = blending.boundary_band(theirs, band * cell / 2)
    view = View.crop(squares.square_holding(mask))
    drawn = mask & view.covered(mask.shape)
    config = model.decode_config(decode) if text else model.unsteered_config(decode)
    said = {"seam": seam if isinstance(seam, str) else "picture", "band": band}
    framed = framing.Framed(drawn, view, {**said, "pixels": int(drawn.sum())})
    framing.check_not_whole(framed.inside)
    notes = model.notes_on_text(text) if text else []
    if (mask & ~drawn).any():
        notes.append("outside the square the seam is a plain cut")
    plan = Plan(
        joined, framed, config, text, seed, samples,
        blend=Blend(feather=int(cell / 2)), notes=notes,
    )  # fmt: skip
    return (yield from resample(model, plan))


def _beyond_seam(
    seam: str | image_io.Source, at: float, size: tuple[int, int]
) -> np.ndarray:
    """Mask bool [H,W] of what the second photo gives."""
    if not (isinstance(seam, str) and seam in SEAMS):
        return image_io.decode_mask(seam, size)
    if not 0 < at < 1:
        raise UserError(f"at is {at}; a seam lies between 0 and 1")
    axis = 1 if seam == "vertical" else 0
    beyond = np.arange(size[axis]) >= at * size[axis]
    return np.broadcast_to(beyond if axis else beyond[:, None], size)
