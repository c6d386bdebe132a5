"""Where the time of a compiled step goes, by the compiler's own estimate.

libtpu writes next to every instruction how many cycles it expects; other compilers do
not. Kernels (Pallas) and what goes over the links have no estimate. An expectation is
no measurement: it says where to look, and which of two programs to try first.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable

from gptface_jax.train.planning import hlo

# Kind -> opcodes; of those inside a fusion the first kind of this order counts.
KINDS = {
    "products": ("convolution", "dot"),
    "gathers": ("gather", "scatter", "sort"),
    "slices": ("dynamic-slice", "dynamic-update-slice", "slice", "concatenate", "pad"),
    "sums": ("reduce", "reduce-window"),
    "copies": ("copy", "transpose"),
    "elementwise": (),
    "kernels": (),
}

_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
# %name = shape or (shapes) opcode(operands), attributes
_INSTRUCTION = re.compile(r"%?[\w.\-]+ = (\(.*?\)|\S+) ([\w\-]+)\(")
_FUSED = re.compile(r"calls=%?([\w.\-]+)")
_UNKNOWN = 2**63 - 1  # written in place of an estimate
_KERNEL = 'custom_call_target="tpu_custom_call"'
_OP_NAME = re.compile(r'op_name="([^"]*)"')
_LAYOUT = re.compile(r"\{[^{}]*\}|/\*[^*]*\*/")


@dataclasses.dataclass(frozen=True)
class Operation:
    """One instruction of a compiled program.

    Attributes:
      kind: a key of `KINDS`.
      cycles: expected of one execution, on one device; 0 where libtpu has no estimate,
        as of kernels and of what runs on sparse cores.
      count: executions in a step; loops of unknown length count once.
      shape: of the result on one device, as HLO writes it without layouts.
      source: where the program asked for it; "" for what the compiler added.
    """

    kind: str
    cycles: int
    count: int
    shape: str
    source: str

    @property
    def total(self) -> int:
        """Cycles of all executions."""
        return self.cycles * self.count


def of_program(text: str) -> list[Operation]:
    """Instructions with an estimate, the dearest first; none from most compilers.

    Args:
      text: `compiled.as_text()` of a jitted function.
    """
    bodies, entry = hlo.computations(text)
    counts = hlo.executions(bodies, entry)
    found = []
    for name, lines in bodies.items():
        for line in lines:
            estimate, instruction = _CYCLES.search(line), _INSTRUCTION.search(line)
            cycles = int(estimate[1]) if estimate else 0
            kernel = _KERNEL in line
            if not instruction or not (cycles or kernel):
                continue
            if kernel or cycles == _UNKNOWN:
                cycles = 0
            source = _OP_NAME.search(line)
            found.append(
                Operation(
                    "kernels" if kernel else _kind(_opcodes(line, bodies)),
                    cycles,
                    counts.get(name, 0),
                    _LAYOUT.sub("", instruction[1]),
                    source[1] if source else "",
                )
            )
    return sorted(found, key=lambda operation: -operation.total)


def by_kind(operations: Iterable[Operation]) -> dict[str, int]:
    """{kind: cycles of a step}, the dearest first."""
    sums = dict.fromkeys(KINDS, 0)
    for operation in operations:
        sums[operation.kind] += operation.total
    return dict(sorted(sums.items(), key=lambda item: -item[1]))


def _opcodes(line: str, bodies: dict[str, list[str]]) -> set[str]:
    """Of an instruction, or of everything inside a fusion."""
    fused = _FUSED.search(line)
    if not fused:
        instruction = _INSTRUCTION.search(line)
        return {instruction[2]} if instruction else set()
    inside = (_opcodes(inner, bodies) for inner in bodies.get(fused[1], ()))
    return set().union(*inside)


def _kind(opcodes: set[str]) -> str:
    return next(
        (kind for kind, names in KINDS.items() if opcodes & set(names)), "elementwise"
    )
