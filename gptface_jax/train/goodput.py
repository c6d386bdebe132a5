"""Where the wall time of a run goes: steps, and all that is not learning."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator

# "step" is what the others leave: the device learns, or its next step is prepared.
PARTS = ("step", "input", "evaluation", "checkpoint", "compile", "restart")


class WallTime:
    """Seconds of a run by what they went to, since the last time they were told.

    "input" is waiting for data while the device has nothing to do, "restart" opening
    and restoring a run, and what was learnt after its last checkpoint and is done
    again.
    """

    def __init__(self, clock=time.perf_counter):
        self._clock = clock
        self._begin = clock()
        self._seconds = dict.fromkeys(PARTS[1:], 0.0)

    @contextlib.contextmanager
    def spent(self, part: str) -> Iterator[None]:
        """Counts what happens inside for one of PARTS, but what counts for another."""
        start, before = self._clock(), sum(self._seconds.values())
        try:
            yield
        finally:
            within = sum(self._seconds.values()) - before
            self._seconds[part] += self._clock() - start - within

    def opened(self) -> None:
        """Says that all time until now went into opening the run."""
        self._seconds["restart"] = self._clock() - self._begin

    def add(self, part: str, seconds: float) -> None:
        """Counts seconds for one of PARTS that passed since the last `take`."""
        self._seconds[part] += seconds

    def lost(self, seconds: float) -> None:
        """Counts seconds of an earlier process, whose steps are taken again."""
        self._begin -= seconds
        self._seconds["restart"] += seconds

    def take(self) -> dict[str, float]:
        """{"seconds": since the last call, "time/step": its share, ...}, no zeros."""
        now = self._clock()
        whole = max(now - self._begin, 1e-9)
        shares = {part: spent / whole for part, spent in self._seconds.items() if spent}
        shares = {"step": max(0.0, 1 - sum(shares.values())), **shares}
        self._begin = now
        self._seconds = dict.fromkeys(PARTS[1:], 0.0)
        return {"seconds": whole, **{f"time/{k}": v for k, v in shares.items()}}
