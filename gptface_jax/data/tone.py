"""Grey and toned photographs: one curve of colours from black to white.

A sepia print, a cyanotype or a grey scan has one colour for every lightness. A model of
colour photographs draws skin and lips into it; `Tone.give` takes these colours back.
"""

from __future__ import annotations

import dataclasses

import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601: grey keeps its level
_BLOCK = 4  # pixels, at least
_BIN = 8  # levels of lightness, in which colours are averaged
_SMOOTH = 1.0  # bins: tones change slowly with the lightness
_CLIPPED = 251  # level from which a channel is taken to have ended
# What JPEG leaves on a toned photograph stays below; see docs/results.md.
_SPREAD, _FAR, _SHARE = 2.5, 8.0, 0.03
_STEEP = 1.0  # levels of colour by level of lightness


@dataclasses.dataclass(frozen=True)
class Tone:
    """The colour of each lightness.

    Attributes:
      offset: float32 [256,3], what red, green and blue have above the lightness.
    """

    offset: np.ndarray

    def __str__(self) -> str:
        return "toned" if np.abs(self.offset).max() >= 0.5 else "grey"

    def give(self, colours: np.ndarray) -> np.ndarray:
        """Colours of the same lightness on the curve; uint8 [...,3]."""
        luma = colours @ _LUMA
        offset = self.offset[np.round(luma).astype(np.uint8)]
        return np.clip(np.round(luma[..., None] + offset), 0, 255).astype(np.uint8)


def tone_of(image: np.ndarray, known: np.ndarray) -> Tone | None:
    """The tone of a photograph, None where it is one in colours.

    It is toned where each lightness has one colour, the curve of which is smooth. That
    can only be told where there are many: of a few flat colours, or of little but white
    and black, nothing is said.

    Args:
      image: uint8 [H,W,3].
      known: bool [H,W], the pixels that count.
    """
    # Means of small blocks: JPEG keeps colours at half the resolution and coarsely.
    block = max(_BLOCK, min(known.shape) // 64)
    if min(known.shape) < block:
        return None
    height, width = (side - side % block for side in known.shape)
    weight = known[:height, :width, None].astype(np.float32)
    total, count = (
        x.reshape(height // block, block, width // block, block, -1).sum((1, 3))
        for x in (image[:height, :width] * weight, weight)
    )
    whole = count[..., 0] >= block**2 / 2
    colours = total[whole] / count[whole]
    if len(colours) < 64:
        return None
    # Where a channel ends, tones bend: light sepia loses its red first.
    part = image[:height, :width]
    ended = (part.max(-1) >= _CLIPPED) & (part.min(-1) >= 128)
    ended &= known[:height, :width]
    ended = ended.reshape(height // block, block, width // block, block).any((1, 3))
    inner = colours[~ended[whole]]
    luma = inner @ _LUMA
    if len(luma) < 0.1 * len(colours):
        return None
    low, high = (np.percentile(luma, [5, 95]) / _BIN).astype(int)
    count = np.bincount((luma / _BIN).astype(int), minlength=256 // _BIN)
    middle = count[4:28].sum()  # neither black nor white
    seen = (count[low : high + 1] > 0).mean()
    if high - low < 4 or seen < 0.75 or middle < 0.1 * len(colours):
        return None
    curve = _curve(inner)
    far = np.abs(inner - luma[:, None] - curve[np.round(luma).astype(int)]).max(1)
    spread = np.sqrt(np.mean(np.minimum(far, 2 * _FAR) ** 2))
    steep = np.abs(np.diff(curve, axis=0)).max()
    if spread > _SPREAD or np.mean(far > _FAR) > _SHARE or steep > _STEEP:
        return None
    return Tone(_curve(colours).astype(np.float32))


def _curve(colours: np.ndarray) -> np.ndarray:
    """Mean offsets from the lightness, smoothed, for all 256 levels; [256,3]."""
    luma = colours @ _LUMA
    bins, size = (luma / _BIN).astype(int), 256 // _BIN
    count = np.bincount(bins, minlength=size)
    offset = (colours - luma[:, None]).T
    total = np.stack([np.bincount(bins, c, size) for c in offset], 1)
    bins = np.arange(size)
    # Bins far from any pixel take the nearest one's, however little it weighs.
    distance = np.abs(bins[:, None] - bins)
    weight = np.exp(-0.5 * (distance / _SMOOTH) ** 2) + 1e-9 / (1 + distance**4)
    mean = (weight @ total) / (weight @ count)[:, None]
    centres = _BIN * bins + (_BIN - 1) / 2
    return np.stack([np.interp(np.arange(256), centres, m) for m in mean.T], 1)
