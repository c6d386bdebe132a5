"""A 2-D convolution whose gradients are fast on a CPU wherever they are taken.

XLA:CPU (0.10 and 0.11) has fast code for a convolution in one layout, and brings only
those of the entry computation into it. Gradients inside `lax.cond` or `lax.scan` (an
adversary that is not on yet, accumulation over microbatches) ran as plain loops: 36
times slower. Here they are written in that layout.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    lhs_dilation: Sequence[int] = (1, 1),
    rhs_dilation: Sequence[int] = (1, 1),
    **defaults,
) -> jax.Array:
    """`lax.conv_general_dilated` without groups, to be given to `nn.Conv`.

    Differentiable backwards any number of times, not forwards.

    Args:
      x: [B,H,W,C].
      kernel: [h,w,C,D].
      strides: of the two axes.
      padding: (before, after) of each axis.
      lhs_dilation, rhs_dilation: of x and of the kernel.
      defaults: what `nn.Conv` says besides; anything but its defaults is refused.

    Returns:
      [B,H',W',D].

    Raises:
      ValueError: groups or a precision.
    """
    for name, usual in (("feature_group_count", 1), ("precision", None)):
        if defaults.get(name, usual) != usual:
            raise ValueError(f"convolve knows no {name} {defaults[name]}; use lax's")
    padding = tuple(map(tuple, padding))
    dilations = tuple(lhs_dilation), tuple(rhs_dilation)
    return _convolve(x, kernel, tuple(strides), padding, *dilations)


def _plain(x, kernel, strides, padding, *dilations):
    return lax.conv_general_dilated(
        x, kernel, strides, padding, *dilations, dimension_numbers=_LAYOUT
    )


_convolve = jax.custom_vjp(_plain, nondiff_argnums=(2, 3, 4, 5))


def _forward(x, kernel, *how):
    return _plain(x, kernel, *how), (x, kernel)


def _backward(strides, padding, of_x, of_kernel, residuals, slope):
    def plain(x, kernel, slope):
        run = lambda x, k: _plain(x, k, strides, padding, of_x, of_kernel)  # noqa: E731
        return jax.vjp(run, x, kernel)[1](slope)

    def on_cpu(x, kernel, slope):
        """Each gradient is a convolution again: what was a stride now dilates."""
        before = [low for low, _ in padding]
        wide, window, output = (  # sizes with the zeros that dilation puts between
            [(n - 1) * d + 1 for n, d in zip(sizes, dilation)]
            for sizes, dilation in (
                (x.shape[1:3], of_x),
                (kernel.shape[:2], of_kernel),
                (slope.shape[1:3], strides),
            )
        )
        axes = list(zip(before, wide, window, output))
        dx = _convolve(
            slope,
            kernel[::-1, ::-1].swapaxes(2, 3),
            of_x,
            tuple((w - 1 - low, n + low - m) for low, n, w, m in axes),
            strides,
            of_kernel,
        )
        dk = _convolve(
            x.transpose(3, 1, 2, 0),
            slope.transpose(1, 2, 0, 3),
            of_kernel,
            tuple((low, w + m - 1 - n - low) for low, n, w, m in axes),
            of_x,
            strides,
        )
        return dx, dk.transpose(1, 2, 0, 3)

    return lax.platform_dependent(*residuals, slope, cpu=on_cpu, default=plain)


_convolve.defvjp(_forward, _backward)


def depthwise(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    """Every channel convolved with its own kernel, "same" as TensorFlow pads.

    As a sum of shifted products: XLA:CPU has no fast code for grouped convolutions.

    Args:
      x: [B,H,W,C], sides multiples of the stride.
      kernel: [k,k,C].
      stride: of both axes.

    Returns:
      [B,H/stride,W/stride,C].
    """
    size = kernel.shape[0]
    height, width = x.shape[1] // stride, x.shape[2] // stride
    total = size - stride  # zeros around a picture, fewer before than after
    before = max(total, 0) // 2
    padding = (before, max(total, 0) - before)
    x = jnp.pad(x, ((0, 0), padding, padding, (0, 0)))
    return sum(
        kernel[i, j]
        * x[:, i : i + stride * height : stride, j : j + stride * width : stride]
        for i in range(size)
        for j in range(size)
    )
