"""Where arrays live: one (data, fsdp, tensor) mesh and rules from logical axes.

One device is the 1x1x1 mesh, nothing is special about it. A rule whose mesh
axes do not divide an axis of a parameter leaves it whole there, with a message;
inside a step the partitioner pads such axes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import math
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from flax import linen as nn
from flax.core import meta
from jax.experimental import mesh_utils
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    use_abstract_mesh,
)

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError, nearest

log = logging.getLogger(__name__)

AXES = ("data", "fsdp", "tensor")

# Below it the copies cost less than a line that a reader has to think about.
_WORTH_A_WARNING = 2**16  # entries of an array that is left whole
_REMEDIES = {
    "vocab": "; set model.vocab.multiple_of to a multiple of mesh.tensor to pad it"
}

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
    "channels": "fsdp",
    "layers": None,
    "classes": None,
    "queries": None,
}

# Name -> sizes of the mesh; -1 = all devices that remain.
PRESETS: Mapping[str, Mapping[str, int]] = {
    # Every device holds the whole state and a part of the batch.
    "data": {"data": -1},
    # The state is split; each layer is gathered when its turn comes (ZeRO-3).
    "fsdp": {"data": 1, "fsdp": -1},
    # Every layer is split: for layers that are too wide for one device.
    "tensor": {"data": 1, "tensor": -1},
    "mixed": {"data": -1, "fsdp": 2, "tensor": 2},
    # Two slices or racks with a slow network between them: only gradients cross.
    "two_slices": {"slices": 2, "data": 2, "fsdp": -1},
}


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """The `mesh` section of an experiment config.

    Attributes:
      preset: a key of `PRESETS`, which gives the sizes.
      data, fsdp, tensor: devices along each axis, -1 = all that remain, 0 = as the
        preset says.
      slices: groups of devices with a slow network between them, 0 as above; `data`
        must be a multiple of it.
      rules: logical axis -> mesh axis, changes to `RULES`. {"length": "tensor"} also
        splits activations between the layers (sequence parallelism).
    """

    preset: str = "data"
    data: int = 0
    fsdp: int = 0
    tensor: int = 0
    slices: int = 0
    rules: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.preset not in PRESETS:
            raise UserError(
                f"mesh.preset is {self.preset!r}{nearest(self.preset, PRESETS)}; use "
                f"one of {', '.join(PRESETS)}"
            )
        for name, axes in self.rules.items():
            if name not in RULES:
                raise UserError(
                    f"mesh.rules has '{name}'{nearest(name, RULES)}; known: "
                    f"{', '.join(RULES)}"
                )
            if odd := [a for a in _as_tuple(axes) if a not in AXES]:
                raise UserError(
                    f"mesh.rules maps '{name}' to '{odd[0]}'; use {', '.join(AXES)}"
                )

    def size(self, name: str) -> int:
        """Size of an axis or of "slices", before -1 is resolved."""
        return getattr(self, name) or PRESETS[self.preset].get(name, 1)


def _as_tuple(axes: str | tuple[str, ...] | None) -> tuple[str, ...]:
    return (axes,) if isinstance(axes, str) else tuple(axes or ())


def open_mesh(config: MeshConfig, devices: Any = None) -> tuple[Mesh, Rules]:
    """The mesh and the rules that a config asks for.

    Args:
      config: sizes and changes to the rules.
      devices: default all devices of all processes.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    sizes = {name: config.size(name) for name in AXES}
    changes = {k: _as_tuple(v) or None for k, v in config.rules.items()}
    rules = {**RULES, **changes}
    slices = config.size("slices")
    return make_mesh(**sizes, slices=slices, devices=devices), rules


def make_mesh(
    data: int = -1, fsdp: int = 1, tensor: int = 1, slices: int = 1, devices: Any = None
) -> Mesh:
    """Mesh over all devices of all processes; -1 takes the remaining devices.

    Args:
      data, fsdp, tensor: sizes of the axes.
      slices: groups of devices with a slow network between them, see `MeshConfig`.
      devices: default `jax.devices()`.

    Raises:
      UserError: the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    # What was asked for stays as it is, for messages.
    asked = sizes = [data, fsdp, tensor]
    count = len(devices)
    shown = " x ".join(f"{a}={s}" for a, s in zip(AXES, asked))
    if sizes.count(-1) > 1 or any(s < 1 and s != -1 for s in sizes):
        raise UserError(f"mesh {shown} needs sizes of 1 or more, one of them may be -1")
    known = math.prod(s for s in sizes if s != -1)
    sizes = [count // known if s == -1 else s for s in sizes]
    if math.prod(sizes) != count:
        raise UserError(
            f"mesh {shown} does not fit {count} devices; make the product "
            f"{count}, or set one size to -1"
        )
    if sizes[0] % slices:
        raise UserError(
            f"mesh.data is {sizes[0]}, which mesh.slices {slices} does not divide"
        )
    # Auto: the default, Explicit, makes `table[ids]` fail in Linen modules.
    types = (AxisType.Auto,) * 3
    # Only `data` may cross slices: gradients once a step, never activations or
    # parameters.
    groups = _groups(devices, slices)
    inside = (sizes[0] // len(groups), *sizes[1:])
    # Neighbours in the mesh are neighbours in the machine. A torus of 4x4x4 may be cut
    # into 32 x 2, which `jax.make_mesh` refuses.
    grids = [
        mesh_utils.create_device_mesh(inside, group, allow_split_physical_axes=True)
        for group in groups
    ]
    return Mesh(np.concatenate(grids), AXES, axis_types=types)


def _groups(devices: Any, slices: int) -> list[list[Any]]:
    """The devices of each of so many slices; all in one where the machine has one.

    Of GPUs every host is one to XLA: a rack is some of them, one after another.

    Raises:
      UserError: there are others, or they are not equally large.
    """
    found = sorted({getattr(d, "slice_index", 0) for d in devices})
    if slices == 1 or len(found) == 1:
        return [list(devices)]
    hosts = len(found) // slices
    if hosts * slices != len(found) or (hosts > 1 and devices[0].platform == "tpu"):
        raise UserError(f"mesh.slices is {slices}, but there are {len(found)} slices")
    group_of = {index: number // hosts for number, index in enumerate(found)}
    groups = [
        [d for d in devices if group_of[d.slice_index] == g] for g in range(slices)
    ]
    if len({*map(len, groups)}) > 1:
        raise UserError(
            f"the {slices} slices hold {[*map(len, groups)]} devices; mesh.slices "
            "needs as many in each"
        )
    return groups


def _spec(names, shape, mesh: Mesh, rules: Rules) -> tuple[PartitionSpec, list[str]]:
    """Spec of an array by its logical axes, and those axes that did not divide."""
    entries, used, dropped = [], set(), []
    for name, size in zip(names, shape):
        if name is not None and name not in rules:
            raise ValueError(
                f"unknown logical axis {name!r}{nearest(name, rules)}; "
                f"known: {', '.join(rules)}"
            )
        axes = _as_tuple(rules.get(name))
        parts = math.prod(mesh.shape[a] for a in axes)
        # A mesh axis can split an array once only: the first logical axis that wants it
        # has it.
        if used & set(axes):
            axes = ()
        # jit refuses arguments whose sharding does not divide them.
        elif size % parts:
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


def param_shardings(boxed: Any, mesh: Mesh, rules: Rules = RULES) -> Any:
    """Shardings of boxed parameters (arrays or shape structs).

    Returns:
      Tree of `NamedSharding` like the unboxed parameters. Axes that the mesh does
      not divide are left whole there, with a warning where the array is large.
    """
    dropped: dict[str, list[str]] = {}

    def one(path, leaf):
        names = tuple(leaf.get_partition_spec()) if _is_box(leaf) else ()
        value = leaf.value if _is_box(leaf) else leaf
        spec, bad = _spec(names, value.shape, mesh, rules)
        for name in bad if math.prod(value.shape) >= _WORTH_A_WARNING else ():
            dropped.setdefault(name, []).append(f"{path} {list(value.shape)}")
        return NamedSharding(mesh, spec)

    shardings = jax.tree_util.tree_map_with_path(
        lambda p, x: one(trees.path_string(p), x), boxed, is_leaf=_is_box
    )
    for name, places in dropped.items():
        log.warning(
            "the mesh %s does not divide axis '%s' of %s%s, which every device keeps "
            "whole%s",
            dict(mesh.shape),
            name,
            places[0],
            f" and {len(places) - 1} more" if places[1:] else "",
            _REMEDIES.get(name, ""),
        )
    return shardings


def like_params(tree: Any, params: Any, shardings: Any, mesh: Mesh) -> Any:
    """Shardings for a tree that repeats `params` inside (an optimiser state).

    A leaf whose path ends with a parameter's path and whose shape is that
    parameter's gets its sharding; all others are replicated.
    """
    flat = trees.flatten(shardings)
    shapes = {path: x.shape for path, x in trees.flatten(params).items()}

    def one(path, leaf):
        # optax nests parameters under paths of its own, such as 0/mu/transformer/...:
        # the longest ending that is a parameter's path is looked for, from the left.
        parts = trees.path_string(path).split("/")
        for start in range(len(parts)):
            name = "/".join(parts[start:])
            # The shape as well: a factored second moment has the path of its parameter,
            # but not its axes.
            if shapes.get(name) == leaf.shape:
                return flat[name]
        return NamedSharding(mesh, PartitionSpec())

    return jax.tree_util.tree_map_with_path(one, tree)


@contextlib.contextmanager
def in_force(mesh: Mesh, rules: Rules = RULES) -> Iterator[None]:
    """Within it, jitted functions are compiled for this mesh and these rules.

    The devices need not be there: then nothing can be run on them, only compiled.
    """
    there = mesh.devices.flat[0] in jax.devices()
    known = jax.set_mesh(mesh) if there else use_abstract_mesh(mesh.abstract_mesh)
    with known, nn.logical_axis_rules(tuple(rules.items())):
        yield


def replicated(mesh: Mesh) -> NamedSharding:
    return NamedSharding(mesh, PartitionSpec())


def on_every_device(tree: Any, mesh: Mesh) -> Any:
    """The arrays, the same in all processes, whole on each device."""

    def put(x):
        whole = np.asarray(x)
        where = replicated(mesh)
        return jax.make_array_from_callback(whole.shape, where, whole.__getitem__)

    return jax.tree.map(put, tree)


def batch_sharding(mesh: Mesh, rules: Rules = RULES) -> NamedSharding:
    """Sharding of a batch: the leading axis over the data-parallel axes."""
    return NamedSharding(mesh, PartitionSpec(rules["batch"]))


def ways(name: str, mesh: Mesh, rules: Rules = RULES) -> int:
    """Number of parts that a logical axis is cut into."""
    return math.prod(mesh.shape[a] for a in _as_tuple(rules[name]))


def share_of_batch(mesh: Mesh, rules: Rules = RULES) -> tuple[int, int]:
    """Which share of every batch this process gives, and how many shares there are.

    Processes whose devices hold the same examples, as where `tensor` spans hosts, give
    the same share.

    Raises:
      UserError: two processes hold some examples in common, and not others.
    """
    return _share(batch_sharding(mesh, rules), ways("batch", mesh, rules))


@functools.lru_cache
def _share(where: NamedSharding, parts: int) -> tuple[int, int]:
    placed = where.devices_indices_map((parts,))
    held: dict[int, set[int]] = {}
    for device, (rows,) in placed.items():
        held.setdefault(device.process_index, set()).update(range(parts)[rows])
    return number_of_share(held, jax.process_index())


def number_of_share(held: Mapping[int, set[int]], process: int) -> tuple[int, int]:
    """See `share_of_batch`; `held` is process -> the parts of a batch on its devices.

    Raises:
      UserError: as there.
    """
    shares = sorted({tuple(sorted(parts)) for parts in held.values()})
    every = [part for share in shares for part in share]
    if len(set(every)) < len(every) or len({*map(len, shares)}) > 1:
        raise UserError(
            f"on this mesh processes hold the parts {shares} of a batch, which are "
            "neither the same nor apart; choose a mesh.tensor that divides the devices "
            "of a host, or is a multiple of them"
        )
    return shares.index(tuple(sorted(held[process]))), len(shares)


def put_batch(
    batch: Mapping[str, np.ndarray], mesh: Mesh, rules: Rules = RULES
) -> dict[str, jax.Array]:
    """Global arrays of a host batch, of which this process gives its share.

    A batch that the data axes do not divide (the last one of an evaluation) is
    replicated; that needs a single share (`share_of_batch`).
    """
    parts, (_, shares) = ways("batch", mesh, rules), share_of_batch(mesh, rules)
    out = {}
    for name, value in batch.items():
        value = np.asarray(value)
        # Every process decides by its own share: all have the same, or the batch is no
        # batch.
        whole = value.ndim and value.shape[0] * shares % parts == 0
        where = batch_sharding(mesh, rules) if whole else replicated(mesh)
        if not whole and shares > 1:
            raise UserError(
                f"batch entry '{name}' has {value.shape[:1]} examples per process, "
                f"which {parts} data-parallel devices do not divide; change batch_size"
            )
        shape = (value.shape[0] * shares, *value.shape[1:]) if whole else value.shape
        out[name] = jax.make_array_from_process_local_data(where, value, shape)
    return out
