"""Scratches and cracks painted over: thin ones closed, wide ones drawn (SPEC A.12)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import damage as defects
from gptface_jax.data import image_io
from gptface_jax.pipelines import framing, results
from gptface_jax.pipelines.compositing import BORDERS, Blend
from gptface_jax.pipelines.edit import Plan, Steps, resample
from gptface_jax.pipelines.editing_model import EditingModel, Selection
from gptface_jax.pipelines.views import View

PAINTS = ("damage", "tokens")
# Share of a photo above which it is doubtful that all are scratches: five, 8 px wide in
# one of 512 px, cover 4 %, and a patterned shirt 10 to 20 %.
MUCH = 0.05


def restore(
    model: EditingModel,
    photo: np.ndarray,
    *,
    damage: image_io.Source | None,
    kind: str,
    thin: float,
    paint: str,
    selection: Selection,
    decode: Mapping[str, Any],
    seed: int = 0,
) -> Steps:
    """A photo uint8 [H,W,3] without its damage; see `apps.api.Model.restore`.

    Raises:
      UserError: no damage is found, or an argument that cannot be used.
    """
    if paint not in PAINTS:
        raise UserError(f"paint is '{paint}'; use {' or '.join(map(repr, PAINTS))}")
    if not 0 <= thin < math.inf:
        raise UserError(f"thin is {thin}; use a width in tokens from 0 on")
    mask, said = _damage(photo, damage, kind)
    mask = selection.change.of(mask)
    framing.check_not_whole(mask)
    config = model.unsteered_config(decode)
    blend = Blend(
        feather=0, borders=2 * BORDERS, beyond_mask=paint == "tokens", damaged=True
    )  # fmt: skip
    cell = min(photo.shape[:2]) / max(model.grid)
    wide = defects.wide_parts(mask, thin * cell) if thin else mask
    closed = mask & ~wide
    said["thin"] = int(closed.sum())
    edits, restored = [], photo
    if closed.any():
        filled = defects.fill(photo, closed, wide)
        restored = np.where(closed[..., None], filled, photo)
    squares = _squares(photo.shape[:2])
    for view, own in squares:  # all of them before the first is drawn
        framing.check_not_whole(view.mask(wide & own))
    for view, own in squares:
        part = wide & own
        if not part.any() and (wide.any() or edits):
            continue  # but something has to be said of a photo without wide ones
        framed = framing.Framed(part, view, said)
        plan = Plan(restored, framed, config, seed=seed, blend=blend)
        edits.append((yield from resample(model, plan)))
        restored = np.asarray(edits[-1].image)
    restored = results.joined(edits, photo, said, closed)
    if "found" in said:
        restored.details["notes"] = [*restored.details["notes"], _remark(mask)]
    return restored


def _damage(
    photo: np.ndarray, damage: image_io.Source | None, kind: str
) -> tuple[np.ndarray, dict[str, Any]]:
    """Mask bool [H,W] of what is damaged, and how that is known."""
    if damage is not None:
        return image_io.decode_mask(damage, photo.shape[:2]), {"given": True}
    mask = defects.scratches(photo, kind)
    if not mask.any():
        raise UserError(
            f"no {'' if kind == 'both' else kind + ' '}scratch was found; mark "
            "the damage in a picture of the photo's size and give it as damage="
        )
    return mask, {"found": kind}


def _remark(mask: np.ndarray) -> str:
    """How much of a photo was taken for scratches, and what to do if it is none."""
    share = mask.mean()
    remark = f"{share:.1%} of the photo was taken for scratches; look at the strip"
    if share > MUCH:
        remark += ", for patterns and reflections look alike, or give damage=, a mask"
    return remark


def _squares(size: tuple[int, int]) -> list[tuple[View, np.ndarray]]:
    """Squares that cover a photo (H, W), and the pixels that each restores.

    Every pixel belongs to the square in whose middle it lies most; bool [H,1] or [1,W].
    """
    (height, width), side, length = size, min(size), max(size)
    starts = np.linspace(0, length - side, math.ceil(length / side)).round().astype(int)
    owner = np.abs(np.arange(length)[:, None] - (starts + side / 2)).argmin(1)
    owner = owner[:, None] if height > width else owner[None, :]
    squares = []
    for number, start in enumerate(starts.tolist()):
        x0, y0 = (0, start) if height > width else (start, 0)
        view = View.crop((x0, y0, x0 + side, y0 + side))
        squares.append((view, owner == number))
    return squares
