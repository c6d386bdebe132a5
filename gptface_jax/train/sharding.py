"""Where arrays live: one (data, fsdp, tensor) mesh and rules from logical axes.

One device is the 1x1x1 mesh, nothing is special about it. A rule whose mesh
axes do not divide an array's axis leaves that axis replicated, with a note.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from flax.core import meta
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError, nearest

log = logging.getLogger(__name__)

AXES = ("data", "fsdp", "tensor")

Rules = Mapping[str, Any]  # logical axis -> mesh axis, tuple of them, or None

RULES: Rules = {
    "batch": ("data", "fsdp"),
    "vocab": "tensor",
    "mlp": "tensor",
    "heads": "tensor",
    "embed": "fsdp",
    "embed_act": None,
    "embed_out": None,
    "length": None,
    "head_dim": None,
    "codes": None,
    "channels": None,
    "layers": None,
}


def make_mesh(data: int = -1, fsdp: int = 1, tensor: int = 1) -> Mesh:
    """Mesh over all devices of all processes; -1 takes the remaining devices.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    sizes = [data, fsdp, tensor]
    devices = jax.device_count()
    if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
        raise UserError(f"mesh {sizes} needs sizes of 1 or more, one of them may be -1")
    known = math.prod(s for s in sizes if s != -1)
    sizes = [devices // known if s == -1 else s for s in sizes]
    if math.prod(sizes) != devices:
        shown = " x ".join(f"{a}={s}" for a, s in zip(AXES, [data, fsdp, tensor]))
        raise UserError(
            f"mesh {shown} does not fit {devices} devices; make the product "
            f"{devices}, or set mesh.data=-1"
        )
    # Auto: the default, Explicit, makes `table[ids]` fail in Linen modules.
    return jax.make_mesh(tuple(sizes), AXES, axis_types=(AxisType.Auto,) * 3)


def _spec(names, shape, mesh: Mesh, rules: Rules) -> tuple[PartitionSpec, list[str]]:
    """Logical names of one array -> (spec, logical axes that did not divide)."""
    entries, used, dropped = [], set(), []
    for name, size in zip(names, shape):
        if name is not None and name not in rules:
            raise ValueError(
                f"unknown logical axis {name!r}{nearest(name, rules)}; "
                f"known: {', '.join(rules)}"
            )
        axes = rules.get(name) or ()
        axes = (axes,) if isinstance(axes, str) else tuple(axes)
        ways = math.prod(mesh.shape[a] for a in axes)
        if used & set(axes):
            axes = ()
        elif size % ways:
            dropped.append(name)
            axes = ()
        used |= set(axes)
        entries.append(None if not axes else axes[0] if len(axes) == 1 else axes)
    return PartitionSpec(*entries), dropped


def _is_box(x: Any) -> bool:
    return isinstance(x, meta.AxisMetadata)


def unbox(tree: Any) -> Any:
    """Removes the logical-axis boxes, without any sharding constraint."""
    return jax.tree.map(lambda x: x.value if _is_box(x) else x, tree, is_leaf=_is_box)


def param_shardings(
    boxed: Any, mesh: Mesh, rules: Rules = RULES
) -> tuple[Any, frozenset[str]]:
    """Shardings of boxed parameters (arrays or shape structs).

    Returns:
      (tree of `NamedSharding` like the unboxed parameters, the logical axes that
      some parameter could not divide and that were left replicated there).
    """
    dropped: set[str] = set()

    def one(path, leaf):
        names = tuple(leaf.get_partition_spec()) if _is_box(leaf) else ()
        value = leaf.value if _is_box(leaf) else leaf
        spec, bad = _spec(names, value.shape, mesh, rules)
        for name in bad:
            log.info("%s: axis %r of %s not split", path, name, value.shape)
        dropped.update(bad)
        return NamedSharding(mesh, spec)

    shardings = jax.tree_util.tree_map_with_path(
        lambda p, x: one(trees.path_string(p), x), boxed, is_leaf=_is_box
    )
    return shardings, frozenset(dropped)


def like_params(tree: Any, params: Any, shardings: Any, mesh: Mesh) -> Any:
    """Shardings for a tree that repeats `params` inside (an optimiser state).

    A leaf whose path ends with a parameter's path and whose shape is that
    parameter's gets its sharding; all others are replicated.
    """
    flat = trees.flatten(shardings)
    shapes = {path: x.shape for path, x in trees.flatten(params).items()}

    def one(path, leaf):
        parts = trees.path_string(path).split("/")
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            if shapes.get(name) == leaf.shape:
                return flat[name]
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(one, tree)


def activation_rules(
    rules: Rules, dropped: frozenset[str]
) -> tuple[tuple[str, Any], ...]:
    """Rules for `flax.linen.logical_axis_rules`, without the dropped axes."""
    return tuple((k, None if k in dropped else v) for k, v in rules.items())


def divides_batch(batch: Mapping[str, Any], mesh: Mesh, rules: Rules = RULES) -> bool:
    """Whether every entry of a host batch splits over the data-parallel axes."""
    ways = batch_ways(mesh, rules)
    return all(len(x) * jax.process_count() % ways == 0 for x in batch.values())


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def batch_sharding(mesh: Mesh, rules: Rules = RULES) -> NamedSharding:
    """Sharding of a batch: the leading axis over the data-parallel axes."""
    return NamedSharding(mesh, PartitionSpec(rules["batch"]))


def batch_ways(mesh: Mesh, rules: Rules = RULES) -> int:
    """Number of parts a batch is cut into."""
    axes = rules["batch"]
    axes = (axes,) if isinstance(axes, str) else axes
    return math.prod(mesh.shape[a] for a in axes)


def put_batch(
    batch: Mapping[str, np.ndarray], mesh: Mesh, rules: Rules = RULES
) -> dict[str, jax.Array]:
    """This process's share of a host batch -> global arrays.

    A batch that the data axes do not divide (the last one of an evaluation) is
    replicated; that needs a single process.
    """
    ways = batch_ways(mesh, rules)
    out = {}
    for name, value in batch.items():
        value = np.asarray(value)
        whole = value.ndim and value.shape[0] * jax.process_count() % ways == 0
        where = batch_sharding(mesh, rules) if whole else replicated(mesh)
        if not whole and jax.process_count() > 1:
            raise UserError(
                f"batch entry '{name}' has {value.shape[:1]} examples per process, "
                f"which {ways} data-parallel devices do not divide; change batch_size"
            )
        out[name] = jax.make_array_from_process_local_data(where, value)
    return out
