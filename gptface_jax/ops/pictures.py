"""Pictures in [-1,1], float [B,H,W,C]: compared by pixels, and cut into patches."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def to_unit_range(image: jax.Array) -> jax.Array:
    """Pixels float32 in [-1,1] of uint8 0..255; `data.image.to_unit_range` in JAX."""
    return image.astype(jnp.float32) / 127.5 - 1.0


def known_pixels(image: jax.Array, unknown: jax.Array) -> jax.Array:
    """Known pixels and their mask, the input of a conditional decoder: [B,H,W,C+1].

    Its pixels, 0 where they are unknown, and the mask (1 = unknown) as last channel.

    Args:
      image: float32 [B,H,W,C] in [-1,1].
      unknown: bool [B,H,W].
    """
    mask = unknown[..., None]
    seen = jnp.where(mask, 0.0, image)
    return jnp.concatenate([seen, mask.astype(jnp.float32)], axis=-1)


# Mean and standard deviation of pixels in [0,1], by channel, as CLIP is given them.
_CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
_CLIP_STD = (0.26862954, 0.26130258, 0.27577711)


def mapped(image: jax.Array, pixel_map: str) -> jax.Array:
    """Encoder inputs of pictures float [B,H,W,3] in [-1,1] (SPEC B.2).

    Args:
      image: see above.
      pixel_map: "single", the picture; "double", taken for one in [0,1] and mapped
        again, to [-3,1]; "clip_then_map", likewise after CLIP's normalisation.

    Raises:
      ValueError: another name.
    """
    if pixel_map == "single":
        return image
    if pixel_map == "clip_then_map":
        unit = (image + 1) / 2
        image = (unit - jnp.array(_CLIP_MEAN)) / jnp.array(_CLIP_STD)
    elif pixel_map != "double":
        raise ValueError(f"pixel_map {pixel_map!r} is unknown")
    return 2 * image - 1


def gradient_loss(
    image: jax.Array,
    target: jax.Array,
    scales: int,
    weight: jax.Array | None = None,
) -> jax.Array:
    """Mean L1 of horizontal and vertical differences over a pyramid.

    Args:
      image, target: float [B,H,W,C].
      scales: levels; level s is averaged over 2^s x 2^s pixels.
      weight: float [B,H,W], how much each pixel counts, 1 on average; by default all
        do alike.

    Returns:
      float32 scalar.
    """

    def halved(x):
        b, h, w, c = x.shape
        return jnp.mean(x.reshape(b, h // 2, 2, w // 2, 2, c), axis=(2, 4))

    difference = (image - target).astype(jnp.float32)
    weight = None if weight is None else weight[..., None]
    total = 0.0
    for scale in range(scales):
        if scale:
            difference = halved(difference)
            weight = None if weight is None else halved(weight)
        for axis in (1, 2):
            steps = jnp.abs(jnp.diff(difference, axis=axis))
            if weight is not None:  # between two pixels, their mean
                n = weight.shape[axis]
                pair = (
                    jax.lax.slice_in_dim(weight, i, n - 1 + i, axis=axis)
                    for i in (0, 1)
                )
                steps *= sum(pair) / 2
            total += jnp.mean(steps)
    return total / (2 * scales)


def psnr(image: jax.Array, target: jax.Array) -> jax.Array:
    """Peak signal-to-noise ratio in dB, float32 [B], of pictures clipped to [-1,1].

    At most 100 dB, that of equal pictures, so that a mean stays finite.
    """
    image, target = (
        jnp.clip(x.astype(jnp.float32), -1.0, 1.0) for x in (image, target)
    )
    error = jnp.mean(jnp.square(image - target), axis=(1, 2, 3)) / 4.0
    return -10.0 * jnp.log10(jnp.maximum(error, 1e-10))


def to_patches(image: jax.Array, side: int) -> jax.Array:
    """Squares of pixels as channels: [B,H,W,C] -> [B,H/side,W/side,side*side*C]."""
    b, h, w, c = image.shape
    cut = image.reshape(b, h // side, side, w // side, side, c).swapaxes(2, 3)
    return cut.reshape(b, h // side, w // side, side * side * c)


def from_patches(patches: jax.Array, side: int) -> jax.Array:
    """The inverse of `to_patches`: [B,h,w,side*side*C] -> [B,h*side,w*side,C]."""
    b, h, w, _ = patches.shape
    cut = patches.reshape(b, h, w, side, side, -1).swapaxes(2, 3)
    return cut.reshape(b, h * side, w * side, -1)
