"""Functions that each device of a mesh runs on its own part of a batch."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import Mesh, PartitionSpec


def dividing_axes(name: str, size: int) -> str | tuple[str, ...] | None:
    """Mesh axes of a logical axis, or None where they do not divide its size."""
    mesh = jax.sharding.get_abstract_mesh()
    (found,) = nn.logical_to_mesh_axes((name,))
    names = (found,) if isinstance(found, str) else tuple(found or ())
    return found if size % math.prod(mesh.shape[n] for n in names) == 0 else None


def splits_program() -> bool:
    """Whether XLA splits what is traced over devices.

    It does not inside `jax.shard_map`, where each of them runs its own.
    """
    mesh = jax.sharding.get_abstract_mesh()
    axes = set(mesh.axis_names) - set(mesh.manual_axes)
    return math.prod(mesh.shape[name] for name in axes) > 1


@functools.partial(jax.jit, static_argnums=(0, 1))
def rows_apart(mesh: Mesh, function: Callable[..., Any], params: Any, rows: Any) -> Any:
    """`function(params, rows)`, by each device of a mesh for its own rows.

    Nothing is exchanged: a loop ends on each device by itself, and kernels that XLA
    cannot split (Pallas on TPUs) need not be.

    Args:
      mesh: of one axis.
      function: of arrays [b,...] as `rows`, for any b; gives arrays [b,...]. The same
        object, or an equal one, is compiled once.
      params: arrays that every device has whole.
      rows: arrays [B,...], B a multiple of the devices.
    """
    split = PartitionSpec(*mesh.axis_names)
    return jax.shard_map(
        function, mesh=mesh, in_specs=(PartitionSpec(), split), out_specs=split,
        check_vma=False,
    )(params, rows)  # fmt: skip


def over_batch(function: Callable[..., Any], batched: Any, *shared: Any) -> Any:
    """`function(batched, *shared)`, by each device for its own part of the batch.

    XLA does not split a loop over a batch (`jax.lax.map`): on a mesh every device
    would gather all of it, and go through all.

    Args:
      function: of arrays [b,...] as `batched`, for any b; gives arrays [b,...].
      batched: arrays [B,...].
      shared: arrays that every device has whole.
    """
    if not splits_program():
        return function(batched, *shared)
    rows = PartitionSpec(dividing_axes("batch", len(jax.tree.leaves(batched)[0])))
    return jax.shard_map(
        function,
        in_specs=(rows, *(PartitionSpec() for _ in shared)),
        out_specs=rows,
        check_vma=False,
    )(batched, *shared)
