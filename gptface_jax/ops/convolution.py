"""A 2-D convolution whose gradients are fast on a CPU wherever they are taken.

XLA:CPU (0.10 and 0.11) has fast code for a convolution in one layout, and brings only
those of the entry computation into it. Gradients inside `lax.cond` or `lax.scan` (an
adversary that is not on yet, accumulation over microbatches) ran as plain loops: 36
times slower. Here they are written in that layout.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import jax
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def convolve(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    **defaults,
) -> jax.Array:
    """`lax.conv_general_dilated` for plain convolutions, to be given to `nn.Conv`.

    Differentiable backwards (twice, too), not forwards.

    Args:
      x: [B,H,W,C].
      kernel: [h,w,C,D].
      strides: of the two axes.
      padding: (before, after) of each axis.
      defaults: what `nn.Conv` says besides; anything but its defaults is refused.

    Returns:
      [B,H',W',D].

    Raises:
      ValueError: a dilation, groups or a precision.
    """
    fixed = {"lhs_dilation": (1, 1), "rhs_dilation": (1, 1), "feature_group_count": 1}
    for name, value in defaults.items():
        if name != "dimension_numbers" and value != fixed.get(name):
            raise ValueError(f"convolve knows no {name} {value}; use lax's own")
    return _convolve(x, kernel, tuple(strides), tuple(map(tuple, padding)))


def _plain(x, kernel, strides, padding):
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=_LAYOUT
    )


_convolve = jax.custom_vjp(_plain, nondiff_argnums=(2, 3))


def _forward(x, kernel, strides, padding):
    return _plain(x, kernel, strides, padding), (x, kernel)


def _backward(strides, padding, residuals, slope):
    def plain(x, kernel, slope):
        run = functools.partial(_plain, strides=strides, padding=padding)
        return jax.vjp(run, x, kernel)[1](slope)

    on_cpu = functools.partial(_slopes, strides=strides, padding=padding)
    return lax.platform_dependent(*residuals, slope, cpu=on_cpu, default=plain)


def _slopes(x, kernel, slope, strides, padding):
    """Gradients of (x, kernel), each one convolution in the usual layout."""
    # (size, kernel's size, output's size, stride, padding before) of each axis
    axes = [
        (x.shape[i + 1], kernel.shape[i], slope.shape[i + 1], strides[i], padding[i][0])
        for i in range(2)
    ]
    dx = lax.conv_general_dilated(
        slope,
        kernel[::-1, ::-1].swapaxes(2, 3),
        (1, 1),
        [(k - 1 - low, n + low - (m - 1) * s - 1) for n, k, m, s, low in axes],
        lhs_dilation=strides,
        dimension_numbers=_LAYOUT,
    )
    dk = lax.conv_general_dilated(
        x.transpose(3, 1, 2, 0),
        slope.transpose(1, 2, 0, 3),
        (1, 1),
        [(low, k + (m - 1) * s - n - low) for n, k, m, s, low in axes],
        rhs_dilation=strides,
        dimension_numbers=_LAYOUT,
    )
    return dx, dk.transpose(1, 2, 0, 3)


_convolve.defvjp(_forward, _backward)
