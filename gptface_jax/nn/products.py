"""Products with weights: how they are laid out, split over devices and rounded."""

from __future__ import annotations

import functools
import math

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.experimental.layout import Layout, with_layout_constraint

from gptface_jax.nn import platforms

# What the operands of products with weights are rounded to.
MATMUL_DTYPES = ("float32", "bfloat16")


def is_split(name: str) -> bool:
    """Whether the mesh and the rules in force split a logical axis."""
    sizes = jax.sharding.get_abstract_mesh().shape
    axes = dict(nn.get_logical_axis_rules()).get(name) or ()
    axes = (axes,) if isinstance(axes, str) else axes
    return any(sizes.get(axis, 1) > 1 for axis in axes)


def multiply(
    x: jax.Array, kernel: jax.Array, matmul_dtype: str = "float32", **kwargs
) -> jax.Array:
    """x @ kernel: [...,D] and [D,F] to [...,F].

    On CPUs as a product of two matrices: [B,L,D] @ [D,F] takes them longer, forward
    and backward, than [B*L,D] @ [D,F]. Where a mesh splits the length the rows of one
    sequence are on several devices, and x is left as it is. So it is on other devices:
    the compiler of TPUs copies the result several times to have the rows apart again.

    Args:
      x, kernel: the operands.
      matmul_dtype: one of `MATMUL_DTYPES`; "bfloat16" multiplies by `rounded`, if the
        operands are float32.
      **kwargs: of `lax.dot_general`.
    """
    on_cpu = platforms.current() == "cpu"
    fold = x.ndim > 2 and on_cpu and not is_split("length")
    rows = x.reshape(math.prod(x.shape[:-1]), x.shape[-1]) if fold else x  # [B*L,D]
    if matmul_dtype == "bfloat16" and x.dtype == kernel.dtype == jnp.float32:
        y = rounded(rows, kernel)
    else:
        dims = ((rows.ndim - 1,), (0,)), ((), ())
        y = jax.lax.dot_general(rows, kernel, dims, **kwargs)
    return y.reshape(*x.shape[:-1], kernel.shape[-1])


@jax.custom_vjp
def rounded(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """x @ kernel of operands rounded to bfloat16, summed up in float32.

    So are both gradients made.

    Args:
      x: float32 [...,D].
      kernel: float32 [D,F].
    """
    return _bfloat16_dot(x, kernel, 0)


def _bfloat16_dot(x: jax.Array, kernel: jax.Array, axis: int) -> jax.Array:
    """The last axis of x with this one of the kernel."""
    return jax.lax.dot_general(
        x.astype(jnp.bfloat16),
        kernel.astype(jnp.bfloat16),
        (((x.ndim - 1,), (axis,)), ((), ())),
        preferred_element_type=jnp.float32,
    )


def _forward(x, kernel):
    return rounded(x, kernel), (x, kernel)


def _backward(operands, slope):
    x, kernel = operands
    slopes = slope.reshape(-1, slope.shape[-1])
    turned = _in_rows(x.astype(jnp.bfloat16).reshape(len(slopes), -1).T)
    return _bfloat16_dot(slope, kernel, 1), _in_rows(_bfloat16_dot(turned, slopes, 0))


def _in_rows(matrix: jax.Array) -> jax.Array:
    """The matrix, whose rows lie one after another in memory on CPUs.

    Else these turn it in name only. Of sums over a column's rows they make a third as
    many a second in bfloat16, and with the result turned too none: the compiler of JAX
    0.10 ends with "Unsupported element type".
    """
    if platforms.current() != "cpu":
        return matrix
    return with_layout_constraint(matrix, Layout((0, 1)))


rounded.defvjp(_forward, _backward)


def dense_product(axes, matmul_dtype, x, kernel, dimension_numbers, **kwargs):
    """The product x @ kernel, called as `nn.Dense` calls `lax.dot_general`.

    On meshes that split "embed" the kernel is gathered first. Left to itself the
    partitioner may move its parts along other mesh axes. The backward pass gathers it
    again: kept, all layers' kernels would be whole at once.

    Args:
      axes: logical axes of the kernel.
      matmul_dtype: see `multiply`.
      x, kernel, dimension_numbers, **kwargs: see `lax.dot_general`.
    """
    if not is_split("embed"):
        return multiply(x, kernel, matmul_dtype, **kwargs)
    whole = tuple("embed_act" if name == "embed" else name for name in axes)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def gather_and_multiply(x, kernel):
        kernel = nn.with_logical_constraint(kernel, whole)
        return multiply(x, kernel, matmul_dtype, **kwargs)

    return gather_and_multiply(x, kernel)
