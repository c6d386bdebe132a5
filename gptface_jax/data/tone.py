"""Grey and toned photographs: one curve of colours from black to white.

A sepia print, a cyanotype or a grey scan has one colour for every lightness. A model of
colour photographs draws skin and lips into it; `Tone.give` takes these colours back.
"""

from __future__ import annotations

import dataclasses

import numpy as np

_LUMA = np.array([0.299, 0.587, 0.114])  # ITU-R BT.601: grey keeps its level
_BIN = 8  # levels of lightness, in which colours are averaged
_SMOOTH = 1.5  # bins: tones change slowly with the lightness
# What JPEG leaves on a toned photograph stays below; see docs/results.md.
_SPREAD, _FAR, _SHARE = 2.5, 8.0, 0.005
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


def tone_of(colours: np.ndarray) -> Tone | None:
    """The tone of a photograph, None where it is one in colours.

    It is toned where each lightness has one colour, the curve of which is smooth. That
    can only be told where there are many: of a few flat colours, or of little but white
    and black, nothing is said.

    Args:
      colours: uint8 [N,3], pixels that are known.
    """
    if len(colours) < 64:
        return None
    step = max(1, len(colours) // 200_000)
    sample = colours[::step]
    luma = sample @ _LUMA
    offset = sample - luma[:, None]
    place = (luma / _BIN).astype(int)
    low, high = np.percentile(place, [5, 95]).astype(int)
    count = np.bincount(place, minlength=256 // _BIN)
    within = count[low : high + 1] >= 1e-4 * len(sample)
    middle = count[4:28].sum()  # neither black nor white
    if high - low < 4 or within.mean() < 0.75 or middle < 0.1 * len(sample):
        return None
    total = [np.bincount(place, c, 256 // _BIN) for c in offset.T]
    curve = _curve(np.stack(total, 1), count)
    far = np.abs(offset - curve[np.round(luma).astype(int)]).max(1)
    steep = np.abs(np.diff(curve, axis=0)).max()
    spread = np.sqrt(np.mean(np.minimum(far, 2 * _FAR) ** 2))
    if spread > _SPREAD or np.mean(far > _FAR) > _SHARE or steep > _STEEP:
        return None
    return Tone(curve.astype(np.float32))


def _curve(total: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Means of bins, smoothed, for all 256 levels; [256,3]."""
    bins = np.arange(len(count))
    # Bins far from any pixel take the nearest one's, however little it weighs.
    distance = np.abs(bins[:, None] - bins)
    weight = np.exp(-0.5 * (distance / _SMOOTH) ** 2) + 1e-9 / (1 + distance**4)
    mean = (weight @ total) / (weight @ count)[:, None]
    centres = _BIN * bins + (_BIN - 1) / 2
    return np.stack([np.interp(np.arange(256), centres, m) for m in mean.T], 1)
