"""Notices when a loss leaves its course."""

from __future__ import annotations

import collections
import statistics

from gptface_jax.train.settings import SpikeConfig


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
