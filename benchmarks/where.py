"""Where JAX's time goes: a recorded profile, added up by part of the network."""

from __future__ import annotations

import collections
import pathlib
import re
import statistics
from collections.abc import Callable, Mapping

import jax

# name -> what the path of an operation contains; the first that fits counts. A fused
# operation counts where its last one belongs.
PARTS: Mapping[str, str] = {
    "LPIPS": r"LPIPS",
    "EfficientNet": r"EfficientNet",
    "discriminator": r"Discriminator|adversarial",
    "attention": r"attn_\d",
    "upsampling and its convolutions": r"upsample",
    "group norms": r"norm",
    "convolutions": r"conv|nin_shortcut",
    "swish": r"silu",
    "nearest code": r"quantize",
}


def part(path: str) -> str:
    """Path of an operation in the program -> one of `PARTS`, or "the rest"."""
    fits = (name for name, pattern in PARTS.items() if re.search(pattern, path))
    return next(fits, "the rest")


def paths(program: str) -> dict[str, str]:
    """Compiled HLO as text -> {instruction: path of the operation it came from}.

    Branches and loops are left out: what runs inside them is there by itself.
    """
    found = {}
    for name, rest in re.findall(r"^\s*(?:ROOT )?%?([\w.\-]+) = (.*)$", program, re.M):
        if re.search(r"\s(conditional|while|call)\(", rest) is None:
            path = re.search(r'op_name="([^"]*)"', rest)
            found[name] = path.group(1) if path else ""
    return found


def durations(folder: pathlib.Path) -> dict[str, list[float]]:
    """A recorded profile -> {instruction: seconds of each time it ran}."""
    spent = collections.defaultdict(list)
    for file in folder.rglob("*.xplane.pb"):
        for plane in jax.profiler.ProfileData.from_file(str(file)).planes:
            for line in plane.lines:
                for event in line.events:
                    name = dict(event.stats).get("hlo_op")
                    if name is not None:
                        spent[name].append(event.duration_ns * 1e-9)
    return spent


def shares(
    function: Callable[[], object], program: str, folder: pathlib.Path, repeats: int
) -> dict[str, float]:
    """Records `repeats` calls; share of each part in their time, largest first.

    An instruction counts with the median of its times, so that an interrupted one
    does not.
    """
    with jax.profiler.trace(folder):
        for _ in range(repeats):
            function()
    of, total = paths(program), collections.Counter()
    for name, times in durations(folder).items():
        if name in of:
            total[part(of[name])] += statistics.median(times) * len(times)
    whole = sum(total.values())
    return {name: seconds / whole for name, seconds in total.most_common()}
