"""Maps resized and pooled as PyTorch does it: half-pixel centres, no antialiasing.

Each axis is one small matrix that is known before anything runs. `jax.image.resize`
differs where a picture shrinks (it averages), in its cubic kernel (A = -0.5) and at the
border.
"""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np

_CUBIC = -0.75  # A of the kernel, Keys 1981; PyTorch's


def _linear(distance: np.ndarray) -> np.ndarray:
    return np.maximum(1 - distance, 0)


def _cubic(distance: np.ndarray) -> np.ndarray:
    d, a = distance, _CUBIC
    near = ((a + 2) * d - (a + 3)) * d * d + 1
    far = ((a * d - 5 * a) * d + 8 * a) * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


_KERNELS = {"linear": (_linear, 1), "cubic": (_cubic, 2)}  # name -> function, reach


@functools.cache
def weights(source: int, target: int, kind: str) -> np.ndarray:
    """How much each old entry counts for each new one, float32 [target,source].

    Args:
      source, target: entries before and after.
      kind: "linear" or "cubic"; the border is repeated beyond.
    """
    kernel, reach = _KERNELS[kind]
    centre = (np.arange(target) + 0.5) * source / target - 0.5
    first = np.floor(centre).astype(int) - reach + 1
    result = np.zeros((target, source))
    for step in range(2 * reach):
        at = first + step
        share = kernel(np.abs(centre - at))
        np.add.at(result, (np.arange(target), np.clip(at, 0, source - 1)), share)
    return result.astype(np.float32)


@functools.cache
def pooling(source: int, target: int) -> np.ndarray:
    """Means over bins that cover an axis and may overlap, float32 [target,source].

    Bin i reaches from floor(i source / target) to ceil((i + 1) source / target), as of
    PyTorch's `AdaptiveAvgPool2d`.
    """
    result = np.zeros((target, source), np.float32)
    for i in range(target):
        low, high = i * source // target, math.ceil((i + 1) * source / target)
        result[i, low:high] = 1 / (high - low)
    return result


def resize(x: jax.Array, size: tuple[int, int], kind: str = "linear") -> jax.Array:
    """The maps [B,H,W,C] at another size (h, w), [B,h,w,C].

    Args:
      x: maps; equal sizes leave them as they are.
      size: (h, w).
      kind: see `weights`.
    """
    return _both_axes(x, size, functools.partial(weights, kind=kind))


def adaptive_mean(x: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Means [B,h,w,C] of the maps [B,H,W,C] over h x w bins, see `pooling`."""
    return _both_axes(x, size, pooling)


def _both_axes(x, size, matrix):
    for axis, target in zip((1, 2), size):
        if x.shape[axis] != target:
            by = jnp.asarray(matrix(x.shape[axis], target), x.dtype)
            x = jnp.moveaxis(jnp.tensordot(x, by, [[axis], [1]]), -1, axis)
    return x
