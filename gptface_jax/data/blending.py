"""What lies inside and outside of a mask, joined: pre-filling, borders, colours."""

from __future__ import annotations

from typing import Any

import numpy as np

from gptface_jax.data.image import dilate, from_unit_range, resize, to_unit_range


def prefill(image: np.ndarray, mask: np.ndarray, xp: Any = np) -> np.ndarray:
    """Replaces masked pixels by a smooth fill, so that their content cannot leak.

    The encoder sees far beyond one token (SPEC A.10, step 3). The fill is a
    pull-push pyramid: means of the known pixels at the finest scale that has any.

    Args:
      image: float32 [H,W,3].
      mask: bool [H,W], True = unknown.
      xp: the module whose arrays they are.

    Returns:
      float32 [H,W,3], known pixels unchanged; grey where nothing is known.
    """
    weight = (~mask)[..., None].astype(np.float32)
    filled = _pull_push(image * weight, weight, xp)
    return xp.where(mask[..., None], filled, image)


def _pull_push(total, weight, xp=np):
    # Means over what is known in each cell: a level down, a cell is known as soon as
    # one of its four is, so that holes close from their rims inward.
    known = weight > 0
    value = xp.where(known, total / xp.where(known, weight, 1), 0.0)
    height, width = weight.shape[:2]
    if max(height, width) == 1:
        return value.astype(np.float32)
    padding = ((0, height % 2), (0, width % 2), (0, 0))

    def halve(x):
        x = xp.pad(x, padding)
        return x[::2, ::2] + x[1::2, ::2] + x[::2, 1::2] + x[1::2, 1::2]

    # Weights become 0 or 1 again: kept as counts, large areas would drown out the rim,
    # which is what the fill should continue.
    coarse = _pull_push(halve(value * known), halve(known.astype(np.float32)), xp)
    smooth = _upsample(coarse, (height, width), xp)
    return xp.where(known, value, smooth).astype(np.float32)


def _upsample(x, size: tuple[int, int], xp):
    """Bilinear x2, cropped to `size`."""
    for axis, length in enumerate(size):
        position = (np.arange(length) + 0.5) / 2 - 0.5
        low = np.clip(np.floor(position).astype(int), 0, x.shape[axis] - 1)
        high = np.minimum(low + 1, x.shape[axis] - 1)
        part = np.clip(position - low, 0, 1).astype(np.float32)
        part = part.reshape([-1 if i == axis else 1 for i in range(3)])
        x = xp.take(x, low, axis) * (1 - part) + xp.take(x, high, axis) * part
    return x


def feathered(mask: np.ndarray, feather: int) -> np.ndarray:
    """Blend weight float32 [H,W]: exactly 0 outside the mask, 1 deep inside.

    The ramp of `feather` pixels lies inside the mask, so that nothing outside
    the user's own mask changes (SPEC A.10, step 6).
    """
    # The mask is peeled `feather` times; a pixel's weight is how many peelings it
    # survives.
    alpha, inner = mask.astype(np.float32), mask
    for _ in range(max(feather, 0)):
        # Beyond the picture counts as inside: no ramp along the picture's edge.
        inner = ~dilate(~inner)
        alpha = alpha + inner
    return alpha / (1 + max(feather, 0))


def continue_colours(
    original: np.ndarray, edited: np.ndarray, mask: np.ndarray, cells: int = 16
) -> np.ndarray:
    """The edit with a smooth difference added, so that no border shows.

    Around the mask both pictures show the same; how they differ there (colours that a
    tokenizer shifts) is carried into the mask as smoothly as `prefill` does.

    Args:
      original, edited: uint8 [H,W,3].
      mask: bool [H,W], where they may differ.
      cells: the difference is known as means over a grid of so many rows and columns.

    Returns:
      uint8 [H,W,3].
    """
    offset = _continued(original.astype(np.int16) - edited, ~mask, cells)
    return np.clip(edited + offset, 0, 255).astype(np.uint8)


def blend_border(
    original: np.ndarray,
    edited: np.ndarray,
    mask: np.ndarray,
    most: int = 30,
    damaged: bool = False,
    cells: int = 16,
) -> np.ndarray:
    """Shifts the colours within a mask so that it begins as what is around it ends.

    Along the border the mean colours inside should be those outside, or those that were
    inside before, whichever is the smaller step: a chin above a white collar stays a
    chin, a face mask does not come back. From there the step fades into the mask as
    smoothly as `prefill` does.

    Args:
      original, edited: uint8 [H,W,3].
      mask: bool [H,W].
      most: of the step, in levels; what is more is an edge that was drawn.
      damaged: what was inside says nothing.
      cells: the step is known as means over a grid of so many rows and columns.

    Returns:
      uint8 [H,W,3], outside the mask as `edited`.
    """
    from scipy import ndimage

    if not most or mask.all() or not mask.any():
        return edited
    width = 1 + 2 * max(2, min(mask.shape) // 32)
    # Around the mask only: a photo may be large.
    (held,) = ndimage.find_objects(mask.astype(np.uint8))
    around = tuple(slice(max(0, s.start - width), s.stop + width) for s in held)
    there = mask[around]

    def mean(picture, where):
        parts = [picture[around] * where[..., None], where[..., None]]
        total, share = (
            ndimage.uniform_filter(np.float32(x), (width, width, 1)) for x in parts
        )
        return total / np.maximum(share, 1e-6)

    border = mask & ~ndimage.binary_erosion(mask, np.ones((3, 3)), border_value=1)
    inside = mean(edited, there)
    outer, inner = mean(original, ~there) - inside, mean(original, there) - inside
    nearer = damaged | (np.abs(outer).sum(-1) < np.abs(inner).sum(-1))
    step = np.zeros(mask.shape + (3,), np.float32)
    step[around] = np.clip(np.where(nearer[..., None], outer, inner), -most, most)
    moved = edited + _continued(step, border, cells)
    moved = np.clip(moved, 0, 255).astype(np.uint8)
    return np.where(mask[..., None], moved, edited)


def _continued(difference: np.ndarray, known: np.ndarray, cells: int) -> np.ndarray:
    """The difference int16 [H,W,3], continued smoothly where it is not known."""
    size, weight = known.shape, known[..., None]
    total = weight * difference
    for axis in (0, 1):
        starts = np.unique(np.arange(cells) * size[axis] // cells)
        total = np.add.reduceat(total, starts, axis, np.float64)
        weight = np.add.reduceat(weight, starts, axis, np.int64)
    smooth = _pull_push(total.astype(np.float32), weight.astype(np.float32))
    # As a picture of 8 bits, for `resize` knows no signs: half a level is lost.
    offset = np.clip(np.round(smooth + 128), 0, 255).astype(np.uint8)
    return resize(offset, size).astype(np.int16) - 128


def match_colours(
    image: np.ndarray, inside: np.ndarray, target: np.ndarray, there: np.ndarray
) -> np.ndarray:
    """The picture with the mean and spread of each channel of another one.

    Args:
      image: uint8 [H,W,3].
      inside: bool [H,W], the pixels that are to look like the target's.
      target: uint8 [h,w,3].
      there: bool [h,w], the target's pixels that count.

    Returns:
      uint8 [H,W,3].
    """
    own, wanted = image[inside].astype(np.float32), target[there].astype(np.float32)
    # Twice the contrast is not the light of another room.
    gain = np.clip(wanted.std(0) / np.maximum(own.std(0), 1.0), 0.5, 2.0)
    moved = (image - own.mean(0)) * gain + wanted.mean(0)
    return np.clip(np.round(moved), 0, 255).astype(np.uint8)


def boundary_band(mask: np.ndarray, distance: float) -> np.ndarray:
    """Band bool [H,W] within `distance` pixels of where a mask changes its value."""
    from scipy import ndimage

    if mask.all() or not mask.any():
        return np.zeros_like(mask)
    inward, outward = (ndimage.distance_transform_edt(m) for m in (mask, ~mask))
    return np.maximum(inward, outward) <= distance


def composite(
    original: np.ndarray, edited: np.ndarray, mask: np.ndarray, feather: int = 0
) -> np.ndarray:
    """Pastes the edit into the photo, inside the mask only.

    Args:
      original, edited: uint8 [H,W,3].
      mask: bool [H,W].
      feather: width in pixels of the soft edge, inward.

    Returns:
      uint8 [H,W,3]; pixels outside the mask are bit-identical to `original`.
    """
    alpha = feathered(mask, feather)[..., None]
    blend = np.round(alpha * edited + (1 - alpha) * original).astype(np.uint8)
    # Not by the weight 0 alone: rounding the sum may move a pixel by one level.
    return np.where(mask[..., None], blend, original)


def shrink_hidden(
    image: np.ndarray, mask: np.ndarray, size: tuple[int, int]
) -> np.ndarray:
    """Resizes a picture without its masked pixels, which are filled first.

    No masked pixel influences the result: a filter that met them before `prefill`
    would carry them over the border of the mask. Pictures of more than four times
    the size are first reduced to that by means over the known pixels of each cell.

    Args:
      image: uint8 [H,W,3].
      mask: bool [H,W], True = hidden.
      size: (h, w) of the result.

    Returns:
      uint8 [h,w,3]; far from the mask as `resize` gives it, or (if reduced first)
      within a few levels of that.
    """
    known = ~mask[..., None]
    total, count = image * known, known
    for axis in (0, 1):
        length = image.shape[axis]
        cells = min(length, 4 * size[axis])
        starts = (np.arange(cells) * length + cells // 2) // cells
        total, count = (
            np.add.reduceat(x, starts, axis, np.uint32) for x in (total, count)
        )
    mean = (total / np.maximum(count, 1)).astype(np.float32)
    filled = prefill(to_unit_range(mean), count[..., 0] == 0)
    return resize(from_unit_range(filled), size)
