"""Clocks of the benchmarks."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping

# "cpu" counts the seconds of all cores of this process: on one core, what "wall"
# would be on a machine that does nothing else.
CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}


def interleaved(
    functions: Mapping[str, Callable[[], object]], repeats: int, clock: str = "wall"
) -> dict[str, float]:
    """Median seconds of each function, after one call of each for compilation.

    The functions take turns, so that a noisy moment of the machine hits them all. A
    function returns when its work is done.
    """
    read = CLOCKS[clock]
    for function in functions.values():
        function()
    times: dict[str, list[float]] = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            time.sleep(0.01)  # the threads of the one before spin before they sleep
            start = read()
            function()
            times[name].append(read() - start)
    return {name: sorted(spent)[len(spent) // 2] for name, spent in times.items()}


def needs_torch(torch: object) -> None:
    """Ends a benchmark whose peer is not there.

    Raises:
      SystemExit: torch is None, which stands for a missing module.
    """
    if torch is None:
        raise SystemExit("this benchmark needs torch: install the extra 'bench'")


def seconds(function: Callable[[], object], repeats: int = 3) -> float:
    """Median seconds of `repeats` calls, after one for compilation."""
    return interleaved({"": function}, repeats)[""]
