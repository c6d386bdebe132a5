"""What a run writes and shows: metrics in files, pictures, the progress bar."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from PIL import Image

from gptface_jax.core import files, types
from gptface_jax.core.errors import UserError
from gptface_jax.train import goodput, metrics, step
from gptface_jax.train.settings import Settings


class RunLog:
    """Averages the metrics of steps and writes them; process 0 writes for all.

    Args:
      workdir: gets `metrics.jsonl`, `config.json` and `samples/`.
      system: what is trained: its unit and phases.
      start: updates done before the first step of this call.
      wall: where the time of the run goes.

    Attributes:
      rate: steps per second, to be paused during what is no step.
    """

    def __init__(
        self, workdir: pathlib.Path, system: types.System, start: int,
        wall: goodput.WallTime,
    ):  # fmt: skip
        self.workdir, self.start, self.wall = workdir, start, wall
        self.unit, self.prefix = system.unit, step.prefix(system.phases[0])
        self.units = sum(feed.size * feed.units for feed in system.feeds.values())
        self.average, self.rate = metrics.Average(), metrics.StepRate()
        self.lines: metrics.JsonLines | None = None
        self.writers: list[Any] = []
        self.galleries: list[Any] = []  # those of them that also take pictures

    def open_files(
        self,
        config: Mapping[str, Any],
        settings: Settings,
        resources: contextlib.ExitStack,
    ) -> None:
        """Opens the writers that the settings name, and notes the config.

        Raises:
          UserError: the work folder cannot be written.
        """
        try:
            text = json.dumps(config, indent=2)
            files.write_text(self.workdir / "config.json", text + "\n")
        except OSError as error:
            raise UserError(
                f"cannot write in '{self.workdir}': {error.strerror or error}; choose "
                "another --workdir"
            ) from error
        self.lines = metrics.JsonLines(self.workdir / "metrics.jsonl", self.start)
        self.wall.lost(self.lines.lost)
        self.writers.append(self.lines)
        if settings.tensorboard:
            self.galleries.append(metrics.TensorBoard(self.workdir))
        if project := settings.wandb:
            self.galleries.append(
                metrics.WeightsAndBiases(project, self.workdir, config)
            )
        self.writers += self.galleries
        for writer in self.writers:
            resources.callback(writer.close)

    def open_bar(self, total: int, progress: bool) -> None:
        """Shows the progress bar of process 0, where it is wanted."""
        enabled = progress and jax.process_index() == 0
        self.bar = metrics.progress_bar(total, self.start, enabled)
        self.bar.set_description("compiling, minutes at most")

    def count_step(self) -> None:
        """One step more on the bar and in the rate."""
        self.rate.tick()
        self.bar.set_description(refresh=False)
        self.bar.update(1)

    def write(self, record: Mapping[str, Any]) -> None:
        """One line for every writer; `record` holds the "step"."""
        for writer in self.writers:
            writer.write(record)

    def write_means(self, done: int) -> dict[str, Any] | None:
        """Writes and returns the means of the steps since the last call.

        None where there were no steps, and nothing is written.
        """
        if not self.average.totals:
            return None
        record = metrics.with_plain_names(self.average.means(), self.prefix)
        self.average = metrics.Average()
        rate = self.rate.per_second()
        shown = {"loss": f"{record['loss']:.4g}"}
        if rate is not None:
            record["steps_per_s"] = rate
            record[f"{self.unit}_per_s"] = rate * self.units
            shown[f"{self.unit}/s"] = f"{rate * self.units:.4g}"
        record |= self.wall.take()
        self.bar.set_postfix(shown, refresh=False)
        self.write({"step": done, **record})
        return record

    def write_evaluation(self, done: int, values: Mapping[str, float]) -> None:
        """Writes the means over the held-out batches, and prints them by the bar."""
        self.write({"step": done, **values})
        if not self.bar.disable:
            shown = "  ".join(f"{k} {v:.4g}" for k, v in values.items())
            metrics.print_line(f"step {done}: {shown}")

    def picture(self, done: int, name: str, image: np.ndarray) -> None:
        """Keeps a picture uint8 [H,W,3] of what the model does.

        Raises:
          UserError: the work folder cannot be written.
        """
        if jax.process_index():
            return
        folder = self.workdir / "samples"
        try:
            folder.mkdir(exist_ok=True)
            Image.fromarray(image).save(folder / f"{name}_{done:07d}.png")
        except OSError as error:
            raise UserError(
                f"cannot write in '{folder}': {error.strerror or error}; free some "
                "space, then run the same command to go on"
            ) from error
        for gallery in self.galleries:
            gallery.picture(done, name, image)

    def rewind(self, done: int, target: int, first: int) -> None:
        """Drops what was logged after step `target`, and says why.

        Args:
          done: updates done when the run went back.
          target: step of the checkpoint that it goes on from.
          first: step at which the loss left its course.
        """
        self.average = metrics.Average()
        self.rate.pause()
        if self.lines:
            self.wall.lost(self.lines.cut(target))
        self.write({"step": target, "rewound_from": done, "spike_at": first})
        metrics.print_line(
            f"step {first}: the loss has left its course; back to step {target}"
        )
        self.bar.n = target
