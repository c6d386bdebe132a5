"""What a model drew, pasted into the photo: colours, borders, edge, tone (A.10)."""

from __future__ import annotations

import dataclasses

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import blending
from gptface_jax.data import image as images
from gptface_jax.data.tone import Tone, tone_of
from gptface_jax.pipelines.framing import Framed

BORDERS = 30  # levels; more of it makes edits less of what was asked for


@dataclasses.dataclass(frozen=True)
class Blend:
    """Options of pasting an edited square into its photo.

    Attributes:
      composite: inside the mask only; otherwise the square is the raw decode (the
        paper's way).
      feather: soft edge inside the mask, in pixels; None: 1/32 of the square.
      borders: levels of 255 by which colours within the mask are shifted at most to
        meet those around it; 0 does not shift them.
      beyond_mask: all that the model drew, not only within the mask.
      damaged: what was under the mask says nothing of its colours.

    Raises:
      UserError: borders beyond 0..255, or a feather below 0.
    """

    composite: bool = True
    feather: int | None = None
    borders: int = BORDERS
    beyond_mask: bool = False
    damaged: bool = False

    def __post_init__(self):
        if not 0 <= self.borders <= 255:
            raise UserError(f"borders is {self.borders}; use 0 to 255 levels")
        if self.feather is not None and self.feather < 0:
            raise UserError(f"feather is {self.feather}; use 0 pixels or more")


@dataclasses.dataclass(frozen=True)
class Pasted:
    """A photo with an edited square.

    Attributes:
      image: uint8 [H,W,3]; where it is composited, pixels outside of `mask` keep
        their bits.
      mask: bool [H,W], what was changed.
      tone: that of the photo, which the edit was given; None where it has none.
    """

    image: np.ndarray
    mask: np.ndarray
    tone: Tone | None = None


def paste(
    photo: np.ndarray,
    decoded: np.ndarray,
    open_tokens: np.ndarray,
    framed: Framed,
    blend: Blend | None = None,
) -> Pasted:
    """The photo with what a model drew in a square of it.

    Args:
      photo: uint8 [H,W,3].
      decoded: uint8 [S,S,3], what the model made of the square.
      open_tokens: bool [h,w], what it drew of it.
      framed: the square, and what may change.
      blend: how; default `Blend()`.
    """
    blend = blend or Blend()
    mask, view, inside = framed.mask, framed.view, framed.inside
    square, there = (view.side, view.side), photo[view.slices]
    image, patch = photo.copy(), images.resize(decoded, square)
    covered = view.covered(mask.shape)[view.slices]
    if not blend.composite:
        image[view.slices] = np.where(covered[..., None], view.back(patch), there)
        return Pasted(image, mask)
    drawn = images.tokens_to_pixels(open_tokens, square)
    if blend.beyond_mask:
        inside, mask = drawn, mask | view.mask_back(drawn, mask.shape)
    changed, before = mask[view.slices], view.picture(photo)
    # Where the photo says nothing of what the decoder does to colours: what it drew,
    # what the user hid, and what the square shows beyond the photo.
    unknown = drawn | inside | view.beyond(photo.shape[:2])
    # First the shift that the tokenizer brings to everything, then the seam that is
    # left.
    patch = blending.continue_colours(before, patch, unknown)
    patch = blending.blend_border(
        before, patch, inside, blend.borders, damaged=blend.damaged
    )
    feather = max(1, view.side // 32) if blend.feather is None else blend.feather
    # Blended in the photo's own pixels: what is not drawn is not resampled.
    patch = blending.composite(there, view.back(patch), changed, feather)
    # Last, for an edit of a sepia photo has the model's colours up to here.
    own = tone_of(there, covered & ~changed)
    if own is not None:
        patch[changed] = own.give(patch[changed])
    image[view.slices] = patch
    return Pasted(image, mask, own)
