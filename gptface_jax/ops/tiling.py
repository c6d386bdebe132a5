"""One axis of a picture in overlapping tiles of one length, and how they join.

Tiles of 6 at an overlap of 2 on an axis of 12 tokens:

    starts   [0, 3, 6]
    tile 0   ######
    tile 1      ######
    tile 2         ######
    kept     000011122222      hard cut in the middle of each overlap

For a smooth join the cut is a ramp as wide as the overlap.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from gptface_jax.core.errors import UserError

# Weights are multiples of 1/_STEPS: products and sums of them are exact in float32.
_STEPS = 1024


@dataclasses.dataclass(frozen=True)
class Tiling:
    """Tiles of an axis, all inside it; the fewest that overlap enough, spread evenly.

    Attributes:
      length: of the axis, in tokens.
      tile: length of a tile; an axis that is no longer is one tile.
      overlap: the least that neighbours share, less than `tile`.

    Raises:
      UserError: a tile or an overlap that makes no sense.
    """

    length: int
    tile: int
    overlap: int

    def __post_init__(self):
        if self.tile < 1 or not 0 <= self.overlap < self.tile:
            raise UserError(
                f"tiles of {self.tile} tokens cannot overlap by {self.overlap}; use 0 "
                "or more, and less than the tile"
            )

    @property
    def size(self) -> int:
        """Length of every tile."""
        return min(self.tile, self.length)

    @property
    def starts(self) -> tuple[int, ...]:
        """First token of every tile."""
        room = self.length - self.size
        steps = -(-room // (self.tile - self.overlap))
        return tuple(i * room // max(steps, 1) for i in range(steps + 1))

    @property
    def cuts(self) -> tuple[float, ...]:
        """The middle of every overlap, in tokens."""
        starts = self.starts
        return tuple((a + self.size + b) / 2 for a, b in zip(starts, starts[1:]))

    @property
    def kept(self) -> tuple[tuple[int, int], ...]:
        """First token and end of those that each tile is responsible for."""
        edges = [0, *(int(cut) for cut in self.cuts), self.length]
        return tuple(zip(edges, edges[1:]))

    def weights(self, scale: int) -> np.ndarray:
        """Share of each tile in its pixels.

        Args:
          scale: pixels per token.

        Returns:
          float32 [number of tiles, size * scale]. All weights of a pixel sum to one
          exactly, also when those of two axes are multiplied.
        """
        cuts = np.array(self.cuts)
        # Ramps that reach the next cut would meet there, and a pixel would have three
        # tiles.
        width = min([self.overlap, *np.diff(cuts)]) * scale
        offsets = np.arange(self.size * scale) + 0.5
        pixels = np.array(self.starts)[:, None] * scale + offsets
        result = np.ones(pixels.shape)
        for i, cut in enumerate(cuts * scale):
            # 0 before the ramp, 1 behind it; without overlap a step.
            rise = (pixels[i : i + 2] - cut) / max(width, 1e-9) + 0.5
            rise = np.round(np.clip(rise, 0, 1) * _STEPS) / _STEPS
            result[i] *= 1 - rise[0]
            result[i + 1] *= rise[1]
        return result.astype(np.float32)


def border_gradient(picture: np.ndarray, rows: Tiling, columns: Tiling) -> float:
    """How far tile borders stand out: mean |difference| of neighbouring pixels across
    the cuts, over that everywhere else; 1.0 means not at all.

    Args:
      picture: float or uint8 [B,H,W,C], sides multiples of the tilings' lengths.
      rows, columns: how it was cut; at least one of them into several tiles.
    """
    across, inside = [], []
    for axis, tiling in ((1, rows), (2, columns)):
        scale = picture.shape[axis] // tiling.length
        steps = np.abs(np.diff(picture.astype(np.float32), axis=axis))
        mean = steps.mean(axis=tuple({0, 1, 2, 3} - {axis}))
        border = np.zeros(len(mean), bool)
        border[[round(cut * scale) - 1 for cut in tiling.cuts]] = True
        across += [*mean[border]]
        inside += [*mean[~border]]
    return float(np.mean(across) / np.mean(inside))
