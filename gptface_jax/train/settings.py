"""The engine's own part of an experiment config, and what may change on resume."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from typing import Any

from gptface_jax.core.config import from_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.train.optim import OptimConfig
from gptface_jax.train.sharding import MeshConfig

# Top-level config keys that belong to somebody else and are not read here.
_FOREIGN = (
    "system", "init_from", "batch_size", "model", "objective", "data", "dtype", "optim"
)  # fmt: skip

# A resumed run may change these, by the start of their dotted path, and what its
# system says is `resumable`; a change of anything else means another experiment.
RESUMABLE = (
    "log_every",
    "eval_every",
    "eval_batches",
    "checkpoint_every",
    "keep",
    "tensorboard",
    "wandb",
    "sample_every",
    "early_stop",
    "profile_steps",
    "mesh",
    "init_from",  # read by a new run only
    "bad_batch",
    "spike",
    "data.workers",
    "data.threads",
)
# Last parts of keys that say where something lies: it may be moved, if what it holds is
# known to be the same (`checkpoint_meta.CONTENTS`).
_LOCATIONS = ("path", "data_dir", "vocab")


@dataclasses.dataclass(frozen=True)
class SpikeConfig:
    """Settings for a loss that leaves its course.

    Attributes:
      factor: a step is far off when its loss lies so many robust standard deviations
        (1.48 x the median absolute deviation) above the median of the last `window`
        steps. 0 watches nothing.
      window: steps looked back on.
      patience: steps in a row that must be far off.
      action: "log" a line, or "rewind" to the last checkpoint before the spike and go
        on behind the data that were seen since.
      max_rewinds: the run stops at the next one.
    """

    factor: float = 0.0
    window: int = 100
    patience: int = 3
    action: str = "log"
    max_rewinds: int = 3

    def __post_init__(self):
        if self.action not in ("log", "rewind"):
            raise UserError(
                f"config key 'spike.action' is {self.action!r}; use 'log' or 'rewind'"
            )
        if self.window < 10 or self.patience < 1:
            raise UserError(
                f"config keys 'spike.window' and 'spike.patience' are {self.window} "
                f"and {self.patience}; use 10 or more and 1 or more"
            )


@dataclasses.dataclass(frozen=True)
class EarlyStopConfig:
    """When a run ends before `total_steps`.

    Attributes:
      metric: of the evaluation, such as "eval/loss"; "" never ends a run early.
      mode: "min" or "max", what is better.
      patience: evaluations in a row without a new best one that end the run.
      min_delta: by how much a new best one must be better.
    """

    metric: str = ""
    mode: str = "min"
    patience: int = 5
    min_delta: float = 0.0

    def __post_init__(self):
        if self.mode not in ("min", "max") or self.patience < 1 or self.min_delta < 0:
            raise UserError(
                f"config section 'early_stop' has mode {self.mode!r}, patience "
                f"{self.patience} and min_delta {self.min_delta}; use 'min' or 'max', "
                "1 or more, 0 or more"
            )

    def better(self, value: float, best: float | None) -> bool:
        """Whether `value` is a new best one."""
        if best is None:
            return True
        gain = best - value if self.mode == "min" else value - best
        return gain > self.min_delta


@dataclasses.dataclass(frozen=True)
class Settings:
    """Settings that the engine reads from a config.

    Attributes:
      seed: root of every random key of the run.
      total_steps: updates in the whole run.
      grad_accum: microbatches per update, into which the batch of every feed is split.
        What a loss takes over a batch (the negatives of a contrastive term, batch
        statistics) it then takes over each of them alone: not the same objective.
      ema_decay: decay of the averaged parameters, 0 = none are kept.
      log_every, eval_every, checkpoint_every: in updates; 0 = never but at the
        end of the run. With every checkpoint comes a line of the log, which then
        averages since the last line, and an evaluation.
      eval_batches: batches per evaluation, 0 = all that there are.
      keep: latest checkpoints kept, beside the best one.
      best_metric, best_mode: the evaluation metric that names the best
        checkpoint, and whether "min" or "max" is better. No metric, no best one:
        the latest counts.
      tensorboard: also write event files (extra `log`).
      wandb: project at Weights & Biases to write to as well (extra `wandb`); "" none.
      sample_every: in updates, pictures of what the model does with held-out
        examples, in `samples/` of the work folder; 0 = with every checkpoint.
      early_stop: when a run ends before its last step.
      profile_steps: updates that are profiled, soon after the start, into `profile/`
        of the work folder (for TensorBoard or XProf); 0 = none.
      bad_batch: what a batch does whose loss or gradient is not finite, beside not
        being learnt from: "stop" the run, or "skip" it, ten in a row at most.
      mesh: how the work is shared among the devices.
      spike: what to do about a loss that leaves its course.
    """

    seed: int = 0
    total_steps: int = 1000
    grad_accum: int = 1
    ema_decay: float = 0.0
    log_every: int = 50
    eval_every: int = 0
    eval_batches: int = 0
    checkpoint_every: int = 0
    keep: int = 2
    best_metric: str = "eval/loss"
    best_mode: str = "min"
    tensorboard: bool = False
    wandb: str = ""
    sample_every: int = 0
    early_stop: EarlyStopConfig = EarlyStopConfig()
    profile_steps: int = 0
    bad_batch: str = "stop"
    mesh: MeshConfig = MeshConfig()
    spike: SpikeConfig = SpikeConfig()

    def __post_init__(self):
        if self.bad_batch not in ("stop", "skip"):
            raise UserError(
                f"config key 'bad_batch' is {self.bad_batch!r}; use 'stop' or 'skip'"
            )
        positive = ("total_steps", "grad_accum", "keep")
        for name in positive:
            if getattr(self, name) < 1:
                raise UserError(f"config key '{name}' is {getattr(self, name)}; use 1+")
        if self.best_mode not in ("min", "max"):
            raise UserError(
                f"config key 'best_mode' is {self.best_mode!r}; use 'min' or 'max'"
            )
        if not 0.0 <= self.ema_decay < 1.0:
            raise UserError(
                f"config key 'ema_decay' is {self.ema_decay}; use 0 (off) to below 1"
            )

    def logs_at(self, done: int) -> bool:
        """Whether a line of the log is due after `done` updates."""
        return _divides(self.log_every, done)

    def saves_at(self, done: int) -> bool:
        """Whether a checkpoint is due; the last step always has one."""
        return done == self.total_steps or _divides(self.checkpoint_every, done)

    def evaluates_at(self, done: int) -> bool:
        """Whether an evaluation is due."""
        own = _divides(self.eval_every, done) or _divides(self.sample_every, done)
        # A checkpoint without its metric could not become the best one.
        wanted = bool(self.best_metric) and self.saves_at(done)
        return own or wanted or done == self.total_steps

    def samples_at(self, done: int) -> bool:
        """Whether pictures are due."""
        if self.sample_every:
            return _divides(self.sample_every, done)
        return self.saves_at(done)


def _divides(every: int, done: int) -> bool:
    return every > 0 and done % every == 0


def plain(config: Any) -> dict[str, Any]:
    """A ConfigDict, dataclass or mapping as a nested dict of JSON types."""
    if dataclasses.is_dataclass(config):
        config = dataclasses.asdict(config)
    elif hasattr(config, "to_dict"):
        config = config.to_dict()
    return json.loads(json.dumps(config, default=str))


def read_settings(config: Any) -> Settings:
    """The engine's settings in an experiment config.

    Raises:
      UserError: a wrong type or value, or a top-level key that looks like a
        misspelt key of the engine.
    """
    values = plain(config)
    names = [f.name for f in dataclasses.fields(Settings)]
    for key in values:
        if key in names or key in _FOREIGN or isinstance(values[key], Mapping):
            continue
        close = difflib.get_close_matches(key, [*names, *_FOREIGN], n=1, cutoff=0.75)
        if close:
            raise UserError(f"unknown config key '{key}' (did you mean '{close[0]}'?)")
    return from_mapping(Settings, {k: v for k, v in values.items() if k in names})


def read_optim(config: Any, phase: str) -> OptimConfig:
    """The optimiser of one phase: `optim`, overridden by `optim.phases[phase]`."""
    values = dict(plain(config).get("optim", {}))
    phases = values.pop("phases", {})
    where = f"optim.phases.{phase}." if phase in phases else "optim."
    return from_mapping(OptimConfig, {**values, **phases.get(phase, {})}, where)


def flat_config(config: Any, prefix: str = "") -> dict[str, Any]:
    """Flat dict {"a.b": value} of a nested config."""
    flat = {}
    for key, value in plain(config).items():
        if isinstance(value, dict):
            flat.update(flat_config(value, f"{prefix}{key}."))
        else:
            flat[prefix + key] = value
    return flat


def _anywhere(key: str, value: Any) -> Any:
    """A value without what it says of places."""
    if isinstance(value, Mapping):
        return {k: _anywhere(f"{key}.{k}", v) for k, v in value.items()}
    if isinstance(value, list):
        return [_anywhere(key, part) for part in value]
    return "" if key.rpartition(".")[2] in _LOCATIONS else value


# Keys that configs had not always, and what runs without them did.
_ADDED_LATER = {"optim.method": "adamw"}


def first_difference(
    saved: Any, current: Any, moved: bool = False, resumable: tuple[str, ...] = ()
) -> str | None:
    """ "key: saved value -> current value" of the first difference, else None.

    Args:
      saved, current: two configs.
      moved: whether files may lie elsewhere.
      resumable: beginnings of keys that are not compared, beside `RESUMABLE`.
    """
    free = (*RESUMABLE, *resumable)
    old, new = flat_config(saved), flat_config(current)
    for key in [*old, *(k for k in new if k not in old)]:
        if any(key == name or key.startswith(f"{name}.") for name in free):
            continue
        missing = _ADDED_LATER.get(key, "not set")
        before, after = old.get(key, missing), new.get(key, missing)
        if moved and _anywhere(key, before) == _anywhere(key, after):
            continue
        if before != after:
            return f"{key} is {before!r} there and {after!r} here"
    return None
