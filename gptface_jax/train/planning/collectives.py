"""Which collectives a compiled step contains, over which mesh axes, how large.

Read from the text of the optimised HLO, for what the partitioner decided is
written nowhere else.
"""

from __future__ import annotations

import dataclasses
import math
import re

import numpy as np
from jax.sharding import Mesh

from gptface_jax.train.planning import hlo

KINDS = (
    "all-gather",
    "all-reduce",
    "reduce-scatter",
    "all-to-all",
    "collective-permute",
    "collective-broadcast",
)

_SHAPE = re.compile(r"\b(pred|[a-z]+[0-9]+[a-z0-9]*)\[([0-9,]*)\]")
_BITS = {"pred": 8, "s4": 4, "u4": 4}
# %name = <result shape> all-gather(<operands>), attributes
_OP = re.compile(
    rf"= (?P<result>.*?) (?P<kind>{'|'.join(KINDS)})(?P<start>-start)?\((?P<rest>.*)"
)
# Groups: [4,2]<=[2,2,2]T(0,2,1), or mesh['a'=2,'b'=4], device_ids=([2,2,2]T(1,0,2))
# {'a','b':(1)2}, or {{0,1},{2,3}}.
_IOTA = re.compile(r"replica_groups=\[([\d,]+)\]<=\[([\d,]+)\](?:T\(([\d,]+)\))?")
_MESH = re.compile(
    r"replica_groups=mesh\[([^\]]*)\](?:, device_ids=\(\[([\d,]+)\](?:T\(([\d,]+)\))?"
    r"\))? *\{([^}]*)\}"
)
_LISTED = re.compile(r"replica_groups=\{((?:\{[\d,]*\},?)*)\}")
_PAIRS = re.compile(r"source_target_pairs=\{((?:\{\d+,\d+\},?)*)\}")
_OP_NAME = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Collective:
    """One collective operation of a compiled program.

    Attributes:
      kind: one of `KINDS`.
      axes: mesh axes that its groups span.
      ways: devices in a group.
      shape: of the result on one device, as HLO writes it.
      bytes: of the whole array: what a gather gives, a scatter takes and the others
        exchange.
      count: times that a step executes it; loops of unknown length count once.
      source: where the program asked for it.
    """

    kind: str
    axes: tuple[str, ...]
    ways: int
    shape: str
    bytes: int
    count: int
    source: str

    @property
    def wire_bytes(self) -> float:
        """Bytes that each device sends in a step, by the ring algorithms."""
        share = (self.ways - 1) / self.ways
        factor = {"all-reduce": 2 * share, "collective-permute": 1.0}
        return factor.get(self.kind, share) * self.bytes * self.count


def of_program(text: str, mesh: Mesh) -> list[Collective]:
    """Collectives of an optimised HLO module.

    Args:
      text: `compiled.as_text()` of a jitted function.
      mesh: that it was compiled for.

    Returns:
      One entry an operation; those between a device and itself are left out.
    """
    bodies, entry = hlo.computations(text)
    counts = hlo.executions(bodies, entry)
    found = []
    for name, lines in bodies.items():
        for line in lines:
            if match := _OP.search(line):
                groups = _groups(match["rest"])
                axes, ways = _axes(groups, mesh)
                if ways < 2:
                    continue
                source = _OP_NAME.search(line)
                found.append(
                    Collective(
                        match["kind"],
                        axes,
                        ways,
                        # Without the layout, such as {1,0:T(8,128)}.
                        match["result"].split("{")[0],
                        _whole_bytes(match, ways),
                        counts.get(name, 1),
                        source[1] if source else "",
                    )
                )
    return found


def total(collectives: list[Collective]) -> dict[tuple[str, tuple[str, ...]], float]:
    """{(kind, mesh axes): bytes that each device sends in a step}, largest first."""
    sums: dict[tuple[str, tuple[str, ...]], float] = {}
    for op in collectives:
        key = (op.kind, op.axes)
        sums[key] = sums.get(key, 0.0) + op.wire_bytes
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def _groups(attributes: str) -> np.ndarray | list[list[int]]:
    """Devices that exchange, as positions in the mesh: [groups][devices]."""
    if match := _IOTA.search(attributes):
        return _iota(match[2], match[3]).reshape(_numbers(match[1]))
    if match := _MESH.search(attributes):
        sizes = {n: int(k) for n, k in re.findall(r"'(\w+)'=(\d+)", match[1])}
        ids = _iota(match[2] or str(math.prod(sizes.values())), match[3])
        # An axis of which a group spans a part only: (what is before it)its size.
        shape, last = [], []
        chosen = re.findall(r"'(\w+)'(?::\((\d+)\)(\d+))?", match[4])
        for name, size in sizes.items():
            parts = sorted(
                (int(b or 1), int(k or size)) for n, b, k in chosen if n == name
            )
            done = 1
            for before, ways in parts:
                shape.append(before // done)
                last.append(len(shape))
                shape.append(ways)
                done = before * ways
            shape.append(size // done)
        ids = np.moveaxis(ids.reshape(shape), last, range(-len(last), 0))
        return ids.reshape(-1, math.prod(shape[i] for i in last))
    if match := _LISTED.search(attributes) or _PAIRS.search(attributes):
        return [_numbers(group) for group in re.findall(r"\{([\d,]*)\}", match[1])]
    return []


def _numbers(text: str) -> list[int]:
    return [int(n) for n in text.split(",") if n]


def _iota(dims: str, order: str | None) -> np.ndarray:
    """0 ... n - 1 in the shape `dims`, its axes in the given order."""
    ids = np.arange(math.prod(_numbers(dims))).reshape(_numbers(dims))
    return ids.transpose(_numbers(order)) if order else ids


def _axes(groups, mesh: Mesh) -> tuple[tuple[str, ...], int]:
    """Mesh axes along which the members of a group differ, and the largest group."""
    if not len(groups):  # no groups stand for all devices
        groups = [list(range(mesh.size))]
    varies, ways = np.zeros(len(mesh.axis_names), bool), 1
    for group in groups:
        where = np.array(np.unravel_index(list(group), mesh.devices.shape))
        # Compared with the first member of the group: an axis along which none differs
        # from it is not crossed.
        varies |= (where != where[:, :1]).any(axis=1)
        # A pair of a permutation from a device to itself is no exchange.
        ways = max(ways, len(set(map(int, group))))
    return tuple(n for n, v in zip(mesh.axis_names, varies) if v), ways


def _whole_bytes(match: re.Match, ways: int) -> int:
    """Bytes of the array that a collective is about, see `Collective.bytes`."""
    sizes = [_bytes(*shape) for shape in _SHAPE.findall(match["result"])]
    if match["start"] and match["kind"] in ("all-gather", "collective-permute"):
        # Asynchronous ones return both buffers; summed, the bytes would count twice.
        result = max(sizes)  # a pair of operand and result
    else:
        result = sum(sizes)
    return result * ways if match["kind"] == "reduce-scatter" else result


def _bytes(dtype: str, dims: str) -> int:
    digits = re.search(r"\d+", dtype)
    bits = _BITS.get(dtype) or int(digits[0])
    return math.prod(_numbers(dims)) * bits // 8
