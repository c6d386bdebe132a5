"""Which pixels of a face count more: a map from its 68 iBUG points."""

from __future__ import annotations

import jax
import jax.numpy as jnp

# Of the 68 points; left and right as seen in the picture.
BROWS, EYES, MOUTH = slice(17, 27), slice(36, 48), slice(48, 68)
LEFT_EYE, RIGHT_EYE = slice(36, 42), slice(42, 48)


def centres(landmarks: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Middles of the eye at the left, the eye at the right and the mouth: [...,2]."""
    return tuple(
        landmarks[..., part, :].mean(-2) for part in (LEFT_EYE, RIGHT_EYE, MOUTH)
    )


def face_map(
    landmarks: jax.Array,
    size: tuple[int, int],
    *,
    eyes: float,
    mouth: float,
    brows: float,
    radius: float,
) -> jax.Array:
    """Weight of each pixel: [B,H,W], 1 on average over each picture.

    Before that average is taken out, a pixel within the radius of a point of the eyes
    counts `eyes` times, twice as far away once, and in between by a straight line;
    likewise for the others. The most counts where they meet.

    Args:
      landmarks: float32 [B,68,2], (x, y) as shares of the sides, 0 at the outer border
        of the first pixel. Where one of the points that are asked for is NaN, all
        pixels of the picture count alike.
      size: (H, W).
      eyes, mouth, brows: how many times they count.
      radius: as a share of the face: of the distance between the eyes, or from there to
        the mouth if that is more (a face that is turned).
    """
    height, width = size
    left, right, low = centres(landmarks)
    apart = jnp.linalg.norm(right - left, axis=-1)
    down = jnp.linalg.norm(low - (left + right) / 2, axis=-1)
    reach = radius * jnp.maximum(apart, down)[:, None, None]  # [B,1,1]
    x, y = (jnp.arange(n, dtype=jnp.float32) for n in (width, height))
    x, y = ((at + 0.5) / n for at, n in ((x, width), (y, height)))

    def closeness(part):  # 1 within reach of a point, 0 from twice that on
        points = landmarks[:, part]  # [B,P,2]
        across = jnp.square(x - points[..., :1])[:, :, None]  # [B,P,1,W]
        down = jnp.square(y - points[..., 1:])[..., None]  # [B,P,H,1]
        distance = jnp.sqrt(jnp.min(across + down, axis=1))
        return jnp.clip(2.0 - distance / jnp.maximum(reach, 1e-6), 0.0, 1.0)

    counts = jnp.ones((len(landmarks), height, width), jnp.float32)
    for part, times in ((EYES, eyes), (MOUTH, mouth), (BROWS, brows)):
        counts = jnp.maximum(counts, 1.0 + (times - 1.0) * closeness(part))
    counts /= jnp.mean(counts, axis=(1, 2), keepdims=True)
    return jnp.where(jnp.isfinite(counts), counts, 1.0)
