"""Holes in pictures, and pictures whose codes do not fit around one (SPEC E.12).

A conditional decoder learns from both: within a hole it is to follow the codes, but to
end where the photograph around begins, in its light and colours.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from gptface_jax.ops import face_map, masking

# Of the 68 points; the last is the whole face.
PARTS = (face_map.BROWS, slice(27, 36), face_map.EYES, face_map.MOUTH, slice(0, 68))
_STROKES = 4  # straight parts of a free form


def random_holes(
    key: jax.Array,
    grid: tuple[int, int],
    side: int,
    landmarks: jax.Array,
    everything: float,
) -> jax.Array:
    """Masks bool [B,H,W], True = hidden, of 0 to 100 % of a picture.

    Of a picture either everything is hidden, or equally often a span of tokens (as in
    pre-training), a box, a free form or a part of the face. A picture without points
    gets a box for the last.

    Args:
      key: random key.
      grid: (h, w) in tokens.
      side: of a token in pixels.
      landmarks: float32 [B,68,2], (x, y) as shares of the sides; NaN for none.
      everything: share of the pictures that are hidden whole.
    """
    count, size = len(landmarks), (grid[0] * side, grid[1] * side)
    keys = iter(jax.random.split(key, 6))
    choice = jax.random.randint(next(keys), (count,), 0, 4)
    # The masks lie in one [4,B,H,W], so that each picture takes its own.
    box = boxes(next(keys), count, size)
    part = face_parts(next(keys), landmarks, size)
    known = jnp.isfinite(landmarks).all((1, 2))[:, None, None]
    kinds = jnp.stack(
        [
            spans(next(keys), count, grid, side),
            box,
            strokes(next(keys), count, size),
            jnp.where(known, part, box),
        ]
    )
    hole = jnp.take_along_axis(kinds, choice[None, :, None, None], axis=0)[0]
    whole = jax.random.uniform(next(keys), (count,)) < everything
    return hole | whole[:, None, None]


def spans(key: jax.Array, count: int, grid: tuple[int, int], side: int) -> jax.Array:
    """Connected regions of 1 to all tokens; bool [B,H,W]."""
    sizes, where = jax.random.split(key)
    budget = jax.random.randint(sizes, (count,), 1, grid[0] * grid[1] + 1)
    hidden = masking.span_mask(grid, budget, where).reshape(count, *grid)
    return jnp.repeat(jnp.repeat(hidden, side, 1), side, 2)


def boxes(key: jax.Array, count: int, size: tuple[int, int]) -> jax.Array:
    """Boxes whose two sides are 10 to 100 % of the picture's; bool [B,H,W]."""
    extents, where = jax.random.split(key)
    extent = jax.random.uniform(extents, (count, 2), minval=0.1)
    start = jax.random.uniform(where, (count, 2)) * (1 - extent)
    x, y = _middles(size)

    def within(axis, at):
        low = start[:, axis, None]
        return (low <= at) & (at < low + extent[:, axis, None])  # [B,n]

    return within(1, y)[:, :, None] & within(0, x)[:, None, :]


def strokes(key: jax.Array, count: int, size: tuple[int, int]) -> jax.Array:
    """Free forms: bent strokes, 4 to 30 % of the picture wide; bool [B,H,W]."""
    corners, widths = jax.random.split(key)
    points = jax.random.uniform(corners, (count, _STROKES + 1, 2))
    width = jax.random.uniform(widths, (count, 1, 1), minval=0.04, maxval=0.3)
    x, y = _middles(size)
    at = jnp.stack(jnp.broadcast_arrays(x[None, :], y[:, None]), -1)  # [H,W,2]
    nearest = jnp.inf
    for i in range(_STROKES):
        start, end = (points[:, j, None, None] for j in (i, i + 1))  # [B,1,1,2]
        along, offset = end - start, at - start
        # The foot of the perpendicular, held within the stroke.
        share = (offset * along).sum(-1) / jnp.maximum((along**2).sum(-1), 1e-6)
        foot = jnp.clip(share, 0, 1)[..., None] * along
        nearest = jnp.minimum(nearest, jnp.linalg.norm(offset - foot, axis=-1))
    return nearest <= width / 2


def face_parts(
    key: jax.Array, landmarks: jax.Array, size: tuple[int, int]
) -> jax.Array:
    """One of `PARTS` of each face, grown by up to half the distance of its eyes.

    Args:
      key: random key.
      landmarks: float32 [B,68,2] as shares of the sides; around NaN nothing is hidden.
      size: (H, W).

    Returns:
      bool [B,H,W].
    """
    parts, reaches = jax.random.split(key)
    count = len(landmarks)
    part = jax.random.randint(parts, (count,), 0, len(PARTS))
    left, right, low = face_map.centres(landmarks)
    apart = jnp.linalg.norm(right - left, axis=-1)
    apart = jnp.maximum(apart, jnp.linalg.norm(low - (left + right) / 2, axis=-1))
    reach = jax.random.uniform(reaches, (count,), minval=0.2, maxval=0.5) * apart
    x, y = _middles(size)
    across = jnp.square(x - landmarks[..., :1])[:, :, None]  # [B,P,1,W]
    down = jnp.square(y - landmarks[..., 1:])[..., None]  # [B,P,H,1]
    near = across + down <= jnp.square(reach)[:, None, None, None]  # [B,P,H,W]
    found = jnp.stack([near[:, points].any(1) for points in PARTS])
    return jnp.take_along_axis(found, part[None, :, None, None], axis=0)[0]


def _middles(size: tuple[int, int]) -> tuple[jax.Array, jax.Array]:
    """x [W] and y [H] of the middles of pixels, as shares of the sides."""
    height, width = ((jnp.arange(n) + 0.5) / n for n in size)
    return width, height


def shifted(
    image: jax.Array,
    key: jax.Array,
    *,
    brightness: float,
    contrast: float,
    colour: float,
    sharpness: float,
) -> jax.Array:
    """Pictures as in another light: [B,H,W,3] in [-1,1], each in its own.

    Args:
      image: float32 [B,H,W,3] in [-1,1].
      key: random key.
      brightness: largest shift of all channels alike, in units of [-1,1].
      contrast: largest logarithm of the factor about the picture's mean.
      colour: largest shift of each channel by itself.
      sharpness: largest share of the detail that is taken away (1: blurred) or added.
    """
    count = len(image)
    keys = jax.random.split(key, 4)

    def symmetric(number, most, channels=1):
        shape = (count, 1, 1, channels)
        return jax.random.uniform(keys[number], shape, minval=-most, maxval=most)

    mean = jnp.mean(image, axis=(1, 2, 3), keepdims=True)
    detail = image - _blurred(image)
    image = image + symmetric(0, sharpness) * detail
    image = mean + (image - mean) * jnp.exp(symmetric(1, contrast))
    image = image + symmetric(2, brightness) + symmetric(3, colour, 3)
    return jnp.clip(image, -1.0, 1.0)


def _blurred(image: jax.Array) -> jax.Array:
    """Pictures [B,H,W,C] by the binomial filter of five pixels, borders repeated."""
    weights = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)
    for axis in (1, 2):
        padding = [(2, 2) if i == axis else (0, 0) for i in range(4)]
        padded, length = jnp.pad(image, padding, "edge"), image.shape[axis]
        image = sum(
            w * jax.lax.slice_in_dim(padded, i, i + length, axis=axis)
            for i, w in enumerate(weights)
        )
    return image
