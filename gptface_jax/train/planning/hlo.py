"""The text of an optimised HLO module: its computations, and how often each runs."""

from __future__ import annotations

import re
from collections.abc import Iterator

_COMPUTATION = re.compile(r"^(?P<entry>ENTRY )?%?(?P<name>[\w.\-]+) \(.*\{$")
_CALLED = re.compile(
    r"(?:body|condition|to_apply|calls|true_computation|false_computation)=%?([\w.\-]+)"
)
_BRANCHES = re.compile(r"(?:branch_computations|called_computations)=\{([^}]*)\}")
_TRIPS = re.compile(r'"known_trip_count":\{"n":"(\d+)"\}|known_trip_count=\{n=(\d+)\}')
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_BOUND = re.compile(r"= s32\[\]\S* constant\((\d+)\)")


def computations(text: str) -> tuple[dict[str, list[str]], str]:
    """Lines of each computation of HLO text, and the name of the entry."""
    bodies: dict[str, list[str]] = {}
    entry, current = "", None
    for line in text.splitlines():
        if match := _COMPUTATION.match(line):
            current = bodies.setdefault(match["name"], [])
            if match["entry"]:
                entry = match["name"]
        elif line.startswith("}") and not line.startswith("}}"):
            # The attributes of a kernel may have lines of their own, such as "}}, ...".
            current = None
        elif current is not None:
            current.append(line)
    return bodies, entry


def executions(bodies: dict[str, list[str]], entry: str) -> dict[str, int]:
    """Number of runs of each computation; the trip counts of loops multiply."""
    counts: dict[str, int] = {}

    def visit(name: str, times: int) -> None:
        counts[name] = counts.get(name, 0) + times
        for line in bodies.get(name, ()):
            # The condition runs once more than the body: nothing in it is worth it.
            inner = times * (_trips(line, bodies) if " while(" in line else 1)
            for called in _called(line):
                visit(called, inner)

    visit(entry, 1)
    return counts


def _trips(line: str, bodies: dict[str, list[str]]) -> int:
    """Trip count of a loop; 1 if the program does not say.

    libtpu does not say it: there it is what the counter is compared with, the one
    integer of the condition.
    """
    if known := _TRIPS.search(line):
        return int(known[1] or known[2])
    condition = _CONDITION.search(line)
    text = "\n".join(bodies.get(condition[1], ())) if condition else ""
    bounds = set(_BOUND.findall(text))
    return int(bounds.pop()) if len(bounds) == 1 else 1


def _called(line: str) -> Iterator[str]:
    yield from _CALLED.findall(line)
    for names in _BRANCHES.findall(line):
        yield from re.findall(r"[\w.\-]+", names)
