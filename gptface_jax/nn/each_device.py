"""Functions that each device of a mesh runs on its own part of a batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
from flax import linen as nn
from jax.sharding import PartitionSpec


def dividing_axes(name: str, size: int) -> str | tuple[str, ...] | None:
    """Mesh axes of a logical axis, or None where they do not divide its size."""
    mesh = jax.sharding.get_abstract_mesh()
    (found,) = nn.logical_to_mesh_axes((name,))
    names = (found,) if isinstance(found, str) else tuple(found or ())
    return found if size % math.prod(mesh.shape[n] for n in names) == 0 else None


def over_batch(function: Callable[..., Any], batched: Any, *shared: Any) -> Any:
    """`function(batched, *shared)`, by each device for its own part of the batch.

    XLA does not split a loop over a batch (`jax.lax.map`): on a mesh every device
    would gather all of it, and go through all.

    Args:
      function: of arrays [b,...] as `batched`, for any b; gives arrays [b,...].
      batched: arrays [B,...].
      shared: arrays that every device has whole.
    """
    if jax.sharding.get_abstract_mesh().size <= 1:
        return function(batched, *shared)
    rows = PartitionSpec(dividing_axes("batch", len(jax.tree.leaves(batched)[0])))
    return jax.shard_map(
        function,
        in_specs=(rows, *(PartitionSpec() for _ in shared)),
        out_specs=rows,
        check_vma=False,
    )(batched, *shared)
