"""Scratches and cracks in old photographs, for restoration (SPEC A.10)."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from gptface_jax.core.errors import UserError
from gptface_jax.data import blending
from gptface_jax.data import image as images

KINDS = ("bright", "dark", "both")
_GUESS = 512  # pixels at most, of a side of what is guessed


def scratches(
    image: np.ndarray, kind: str = "both", contrast: float = 40.0
) -> np.ndarray:
    """Thin, long lines that are brighter or darker than both of their sides.

    A morphological top-hat keeps what is narrower than 1/100 of the picture, in all
    channels at once and nearly white or black; openings by straight lines of twelve
    directions keep what is longer than 1/20. Dark hair on a light ground looks the
    same: correct the mask there.

    Args:
      image: uint8 [H,W,3].
      kind: one of `KINDS`.
      contrast: least difference to both sides, in levels of 255.

    Returns:
      bool [H,W], the scratches and one pixel around them.

    Raises:
      UserError: an unknown kind.
    """
    from scipy import ndimage

    if kind not in KINDS:
        raise UserError(f"kind of damage '{kind}' is none of {', '.join(KINDS)}")
    side = min(image.shape[:2])
    # One more than the widest scratch.
    width, length = max(4, side // 100 + 1), max(9, side // 20)
    found = np.zeros(image.shape[:2], bool)
    for name, pixels in (("bright", image), ("dark", 255 - image)):
        if kind not in (name, "both"):
            continue
        # The least of the channels: a scratch in the emulsion is white in all of them,
        # what is merely colourful is dark in one.
        least = pixels.min(axis=-1).astype(np.int16)
        hat = ndimage.white_tophat(least, size=(width, width))
        thin = (hat >= contrast) & (least >= 150)
        long = np.zeros_like(thin)
        for angle in np.arange(12) * np.pi / 12:
            long |= ndimage.binary_opening(thin, _line(angle, length))
        # The opening keeps straight pieces; from these on, bends and ends are followed.
        found |= ndimage.binary_propagation(long, np.ones((3, 3)), mask=thin)
    return ndimage.binary_dilation(found, np.ones((3, 3)))


def scratched(
    picture: np.ndarray, rng: np.random.Generator, width: int
) -> tuple[np.ndarray, np.ndarray]:
    """(the picture with five crooked scratches, where they are bool [H,W]).

    Args:
      picture: uint8 [H,W,3].
      rng: says where they lie; nearly black and nearly white ones alternate.
      width: in pixels.
    """
    photo, truth = Image.fromarray(picture), Image.new("L", picture.shape[1::-1])
    brushes = ImageDraw.Draw(photo), ImageDraw.Draw(truth)
    size = np.array(photo.size)
    for number in range(5):
        at, angle = rng.uniform((0, 0), size), rng.uniform(0, np.pi)
        line = [tuple(at)]
        for _ in range(12):
            angle += 0.12 * rng.normal()
            at = at + np.array([np.cos(angle), np.sin(angle)]) * size[0] / 25
            line.append(tuple(at))
        level = int(rng.uniform(0, 25))
        level = 255 - level if number % 2 else level
        brushes[0].line(line, fill=(level,) * 3, width=width)
        brushes[1].line(line, fill=255, width=width)
    return np.asarray(photo), np.asarray(truth) > 0


def wide_parts(mask: np.ndarray, width: float) -> np.ndarray:
    """Part of a mask, bool [H,W], that discs of that width in pixels cover."""
    from scipy import ndimage

    if not mask.any():
        return mask
    # Beyond the border lies nothing that is known.
    padded = np.pad(mask, 1, mode="edge")
    middles = ndimage.distance_transform_edt(padded) > width / 2
    if not middles.any():
        return np.zeros_like(mask)
    close = ndimage.distance_transform_edt(~middles) <= width / 2
    return mask & close[1:-1, 1:-1]


def fill(
    image: np.ndarray, mask: np.ndarray, hidden: np.ndarray | None = None
) -> np.ndarray:
    """Continues values and slopes of the surroundings into thin gaps.

    The biharmonic equation at every masked pixel: sum over the discrete bilaplacian is
    zero, where the borders of the picture repeat.

    Args:
      image: uint8 [H,W,3].
      mask: bool [H,W], the gaps.
      hidden: bool [H,W], what is not known either and not filled: wide damage, which
        would be most of the equations. A coarse guess stands for it.

    Returns:
      uint8 [H,W,3], unchanged outside the mask; grey where nothing is known.
    """
    from scipy import ndimage, sparse
    from scipy.sparse import linalg

    known = image
    if hidden is not None and hidden.any():
        size = tuple(min(side, _GUESS) for side in mask.shape)
        guess = blending.shrink_hidden(image, mask | hidden, size)
        known = np.where(hidden[..., None], images.resize(guess, mask.shape), image)
    if mask.all() or not mask.any():
        return np.where(mask[..., None], np.uint8(128), image)
    height, width = mask.shape

    def laplacian(pixels):
        """Rows [n,H*W] of the pixels of those numbers."""
        y, x = np.divmod(pixels, width)
        above, below = np.maximum(y - 1, 0), np.minimum(y + 1, height - 1)
        left, right = np.maximum(x - 1, 0), np.minimum(x + 1, width - 1)
        sides = [above * width + x, below * width + x, y * width + left]
        columns = np.stack([*sides, y * width + right, pixels], axis=1)
        weights = np.tile([1.0, 1.0, 1.0, 1.0, -4.0], len(pixels))
        starts = np.arange(0, columns.size + 1, 5)
        shape = len(pixels), height * width
        return sparse.csr_array((weights, columns.ravel(), starts), shape)

    # No more of a large photo than two pixels around the gaps.
    unknown = np.flatnonzero(mask)
    close = np.flatnonzero(ndimage.binary_dilation(mask))
    # The bilaplacian as the laplacian of the laplacian, by a product of sparse
    # matrices.
    rows = laplacian(unknown)[:, close] @ laplacian(close)
    seen = np.unique(rows.indices)
    rows, unknown = rows[:, seen], mask.ravel()[seen]
    values = known.reshape(-1, 3)[seen].astype(np.float64)
    inner, outer = rows[:, unknown].tocsc(), rows[:, ~unknown]
    # What is known moves to the right-hand side; one factorisation serves three
    # channels.
    values = linalg.splu(inner).solve(-(outer @ values[~unknown]))
    filled = image.copy()
    filled[mask] = np.clip(np.round(values), 0, 255)
    return filled


def _line(angle: float, length: int) -> np.ndarray:
    """Footprint, bool, of a straight line of that many pixels."""
    steps = np.arange(length) - (length - 1) / 2
    rows, columns = (np.round(f(angle) * steps).astype(int) for f in (np.sin, np.cos))
    footprint = np.zeros((np.ptp(rows) + 1, np.ptp(columns) + 1), bool)
    footprint[rows - rows.min(), columns - columns.min()] = True
    return footprint
