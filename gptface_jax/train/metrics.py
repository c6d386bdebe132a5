"""Metrics from the device to people: sums and counts, averaged once.

Inside a step a metric is (sum, count). All metrics of a step leave the device
as one small array; the host adds the rows of an interval and divides once.
"""

from __future__ import annotations

import collections
import json
import math
import os
import pathlib
import sys
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from gptface_jax.core import extras, files, types
from gptface_jax.core.errors import UserError


class Packer:
    """{name: (sum, count)} <-> one float32 array [names, 2].

    The names are learnt while the packing function is traced, so one packer
    belongs to one jitted function.
    """

    def __init__(self):
        self.names: tuple[str, ...] = ()

    def pack(self, metrics: types.Metrics) -> Any:
        # In the order of the trace, for a dict that passes through jit comes back
        # sorted.
        self.names = tuple(metrics)
        pairs = [
            jnp.stack([jnp.float32(a), jnp.float32(b)]) for a, b in metrics.values()
        ]
        return jnp.stack(pairs) if pairs else jnp.zeros((0, 2), jnp.float32)

    def unpack(self, packed: Any) -> dict[str, tuple[float, float]]:
        # float64 from here on: sums over an interval of steps lose digits in float32.
        rows = np.asarray(packed, np.float64)
        return {name: (float(a), float(b)) for name, (a, b) in zip(self.names, rows)}


class Average:
    """Adds sums and counts; `means` divides once."""

    def __init__(self):
        self.totals: dict[str, tuple[float, float]] = {}

    def add(self, metrics: Mapping[str, tuple[float, float]]) -> None:
        for name, (a, b) in metrics.items():
            old = self.totals.get(name, (0.0, 0.0))
            self.totals[name] = (old[0] + a, old[1] + b)

    def means(self) -> dict[str, float]:
        """Names with count 0 are left out."""
        return {name: a / b for name, (a, b) in self.totals.items() if b}


def non_finite(metrics: Mapping[str, tuple[float, float]]) -> str:
    """ "loss = nan, image_nll = inf": at most 4 that are not finite, else "".

    Losses and gradient norms come first, then the parts they are made of.
    """
    bad = [name for name, (total, _) in metrics.items() if not math.isfinite(total)]
    bad.sort(key=lambda name: name.rsplit("/", 1)[-1] not in ("loss", "grad_norm"))
    return ", ".join(f"{name} = {metrics[name][0]}" for name in bad[:4])


def with_plain_names(means: Mapping[str, float], start: str) -> dict[str, float]:
    """The means, with `loss`, `grad_norm` and `lr` of the first phase in front."""
    plain = {}
    for name in ("loss", "grad_norm", "lr"):
        if start + name in means:
            plain[name] = means[start + name]
    return {**plain, **means}


class JsonLines:
    """`metrics.jsonl`: one object a line, flushed line by line.

    Opening drops lines beyond `step`, and half a line left by a crash, so that
    a resumed run continues the file it would have written uninterrupted.
    """

    def __init__(self, path: str | os.PathLike, step: int):
        self.path = pathlib.Path(path)
        self.file: Any = None
        self.lost = self.cut(step)

    def cut(self, step: int) -> float:
        """Drops the lines beyond `step`; what follows is appended.

        Returns:
          Seconds that went into the steps of the lines.
        """
        if self.file:
            self.close()
        try:
            kept, lost = [], 0.0
            if self.path.exists():
                kept, lost = _lines_up_to(self.path, step)
                files.write_text(self.path, "".join(kept))
            self.file = open(self.path, "a", encoding="utf-8")
        except OSError as error:
            raise _unwritable(self.path, error) from error
        return lost

    def write(self, record: Mapping[str, Any]) -> None:
        """Writes one line; numbers that JSON cannot hold become null."""
        try:
            self.file.write(json.dumps({k: _json(v) for k, v in record.items()}) + "\n")
            self.file.flush()
        except OSError as error:
            raise _unwritable(self.path, error) from error

    def close(self) -> None:
        try:
            self.file.close()
        except OSError:
            pass  # a full disk was already reported by `write`


def _lines_up_to(path: pathlib.Path, step: int) -> tuple[list[str], float]:
    """(lines up to a step, seconds that went into the steps of the others)."""
    kept, lost = [], 0.0
    with open(path, encoding="utf-8", errors="replace") as file:
        for line in file:
            try:
                record = json.loads(line)
                if record["step"] <= step:
                    kept.append(line if line.endswith("\n") else line + "\n")
                else:
                    lost += float(record.get("seconds") or 0.0)
            except (ValueError, KeyError, TypeError):
                continue
    return kept, lost


def _json(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.7g}") if math.isfinite(value) else None
    return value


def _unwritable(path: pathlib.Path, error: OSError) -> UserError:
    return UserError(
        f"cannot write '{path}': {error.strerror or error}; free some space or choose "
        "another --workdir, then run the same command to go on"
    )


class TensorBoard:
    """Scalars and pictures as event files in `<workdir>/tensorboard` (extra `log`)."""

    def __init__(self, workdir: str | os.PathLike):
        try:
            import tensorboardX
        except ImportError:
            raise UserError(
                "config.tensorboard is on but tensorboardX is not installed; "
                f"{extras.install('log')} or set --config.tensorboard=False"
            ) from None
        self.writer = tensorboardX.SummaryWriter(
            str(pathlib.Path(workdir, "tensorboard"))
        )

    def write(self, record: Mapping[str, Any]) -> None:
        for name, value in _numbers(record).items():
            self.writer.add_scalar(name, value, record["step"])

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Keeps a picture uint8 [H,W,3]."""
        self.writer.add_image(name, image, step, dataformats="HWC")

    def close(self) -> None:
        self.writer.close()


class WeightsAndBiases:
    """Scalars and pictures at Weights & Biases (extra `wandb`).

    The run's id lies in the work folder, so that a resumed run goes on there too.
    """

    def __init__(
        self, project: str, workdir: str | os.PathLike, config: Mapping[str, Any]
    ):
        try:
            import wandb
        except ImportError:
            raise UserError(
                "config.wandb is set but wandb is not installed; "
                f"{extras.install('wandb')} or set --config.wandb=''"
            ) from None
        self.wandb = wandb
        known = pathlib.Path(workdir, "wandb_id")
        self.run = wandb.init(
            project=project,
            dir=os.fspath(workdir),
            name=pathlib.Path(workdir).name,
            config=dict(config),
            id=known.read_text().strip() if known.exists() else None,
            resume="allow",
        )
        known.write_text(self.run.id)

    def write(self, record: Mapping[str, Any]) -> None:
        self.run.log(_numbers(record), step=record["step"])

    def picture(self, step: int, name: str, image: np.ndarray) -> None:
        """Keeps a picture uint8 [H,W,3]."""
        self.run.log({name: self.wandb.Image(image)}, step=step)

    def close(self) -> None:
        self.run.finish()


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in record.items()
        if name != "step" and isinstance(value, (int, float))
    }


class StepRate:
    """Steps per second over the last seconds of training, pauses left out.

    A window, since the host reads steps in bursts: one interval may hold the
    waiting of another.
    """

    def __init__(self, window: float = 10.0):
        self.window = window
        self.spans: collections.deque[float] = collections.deque()
        self.total = 0.0
        self.last: float | None = None

    def pause(self) -> None:
        """Leaves out the time until the next step (an evaluation)."""
        self.last = None

    def tick(self) -> None:
        """Counts a step; the first one (compilation) only starts the time."""
        now = time.perf_counter()
        if self.last is not None:
            self.spans.append(now - self.last)
            self.total += self.spans[-1]
        self.last = now
        while self.total > self.window and len(self.spans) > 1:
            self.total -= self.spans.popleft()

    def per_second(self) -> float | None:
        """Steps per second, None before the second step."""
        return len(self.spans) / max(self.total, 1e-9) if self.spans else None


def print_line(text: str) -> None:
    """Prints a line above the progress bar; process 0 speaks for all."""
    if jax.process_index() == 0:
        tqdm.tqdm.write(text, file=sys.stderr)


def progress_bar(total: int, initial: int, enabled: bool) -> tqdm.tqdm:
    """A bar with step/s and time to go; sparse where it is not a terminal."""
    terminal = sys.stderr.isatty()
    return tqdm.tqdm(
        total=total,
        initial=initial,
        disable=not enabled,
        unit="step",
        mininterval=0.2 if terminal else 30.0,
        maxinterval=1.0 if terminal else 60.0,
        dynamic_ncols=terminal,
        ncols=None if terminal else 100,
        file=sys.stderr,
    )
