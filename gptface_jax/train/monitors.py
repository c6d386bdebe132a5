"""Notices when a loss leaves its course, and when a run no longer gets better."""

from __future__ import annotations

import collections
import statistics
from collections.abc import Mapping
from typing import Any

from gptface_jax.train.settings import EarlyStopConfig, SpikeConfig


class SpikeMonitor:
    """Compares every loss with the median of those before it, see `SpikeConfig`."""

    def __init__(self, config: SpikeConfig):
        self.config = config
        self.reset()

    def reset(self) -> None:
        """Forgets what was seen."""
        self.losses: collections.deque[float] = collections.deque(
            maxlen=self.config.window
        )
        self.far_off: list[int] = []

    def seen(self, step: int, loss: float) -> int | None:
        """Takes the loss of a step.

        Returns:
          The first step of a spike, when `patience` steps in a row are far off; they
          are not part of the window.
        """
        if not self.config.factor:
            return None
        if len(self.losses) >= self.config.window // 2 and self._is_far_off(loss):
            self.far_off.append(step)
            if len(self.far_off) < self.config.patience:
                return None
            first, self.far_off = self.far_off[0], []
            return first
        self.far_off = []
        self.losses.append(loss)
        return None

    def _is_far_off(self, loss: float) -> bool:
        middle = statistics.median(self.losses)
        spread = 1.4826 * statistics.median(abs(x - middle) for x in self.losses)
        # A loss that stands still has no spread.
        return loss - middle > self.config.factor * max(spread, 1e-3 * abs(middle))


class EarlyStop:
    """Counts the evaluations since the best one, see `EarlyStopConfig`.

    Args:
      config: what is watched.
      known: `known` of the run that is resumed.
    """

    def __init__(self, config: EarlyStopConfig, known: Mapping[str, Any] | None = None):
        self.config = config
        known = known or {}
        same = known.get("metric") == config.metric
        self.best: float | None = known.get("best") if same else None
        self.waited: int = known.get("waited", 0) if same else 0

    @property
    def known(self) -> dict[str, Any]:
        """The state that a checkpoint stores."""
        return {
            "metric": self.config.metric, "best": self.best, "waited": self.waited
        }  # fmt: skip

    @property
    def ends(self) -> bool:
        """Whether the run is to end."""
        return bool(self.config.metric) and self.waited >= self.config.patience

    @property
    def reason(self) -> str:
        """Why the run is to end."""
        return (
            f"{self.config.metric} has not been better than {self.best:.4g} for "
            f"{self.config.patience} evaluations; the run ends here"
        )

    def seen(self, values: Mapping[str, float]) -> None:
        """Takes the means of an evaluation."""
        if not self.config.metric or self.config.metric not in values:
            return
        value = values[self.config.metric]
        if self.config.better(value, self.best):
            self.best, self.waited = value, 0
        else:
            self.waited += 1
