"""The training loop: knows phases, metrics and checkpoints, and no system by name."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np

from gptface_jax.core import files, locks, trees, types
from gptface_jax.core.errors import UserError
from gptface_jax.train import (
    batches,
    checkpoint,
    checkpoint_folder,
    checkpoint_meta,
    goodput,
    metrics,
    monitors,
    program,
    run_log,
    sharding,
    state,
    step,
    work_folder,
)
from gptface_jax.train.evaluation import Evaluations
from gptface_jax.train.host import Prefetch, Profile, StopSignal
from gptface_jax.train.settings import plain, read_settings

Batches = Iterator[Mapping[str, Any]]
Samples = Callable[[Any, Any], Mapping[str, np.ndarray]]

_REWOUND = "rewound.json"  # in the work folder, of the last rewind
_MOST_BAD = 10  # bad batches in a row before a run stops that skips them


def train(
    config: Any,
    system: types.System,
    batches_fn: Callable[[int], Batches],
    workdir: str | os.PathLike,
    *,
    extra_files: Mapping[str, bytes] | None = None,
    initial_params: Callable[[], Mapping[str, Any]] | None = None,
    samples: Samples | None = None,
    lock: locks.Lock | None = None,
    wall: goodput.WallTime | None = None,
    progress: bool = True,
) -> state.TrainState:
    """Trains `system` to `config.total_steps`, resuming what `workdir` holds.

    Args:
      config: experiment config; `train.settings` and `optim` say what is read.
      system: what to train.
      batches_fn: number of the first step -> iterator of what this process gives to
        each step: {feed: {name: its share of the batch, numpy array}}, as
        `system.feeds` says. What step k gets must not depend on where the iteration
        starts: then a resumed run equals an uninterrupted one.
      workdir: gets `checkpoints/`, `metrics.jsonl` and `config.json`.
      extra_files: name -> content, stored in every checkpoint (vocabulary, ...). A
        run is not resumed with others.
      initial_params: () -> parameters that a new run starts with, see
        `state.start_from`.
      samples: (params, state) -> pictures uint8 [H,W,3] by name, of what the model does
        with held-out examples; called by all processes, kept by process 0.
      lock: of the work folder, where the caller holds it (`work_folder.held`).
      wall: begun when the run began to open, where that is earlier than this call.
      progress: whether process 0 shows a bar.

    Returns:
      The final state; `stopped` is True when SIGTERM or SIGINT ended the run
      early (after its step, with a checkpoint).

    Raises:
      UserError: a wrong config, a work folder of another run, in which another
        process trains or that cannot be written, data that ends early, or a metric
        that is not finite: one of training (the update is not applied) or a held-out
        one (nothing is saved for that step).
    """
    wall = wall or goodput.WallTime()
    settings = read_settings(config)
    mesh, rules = sharding.open_mesh(settings.mesh)
    with sharding.in_force(mesh, rules), contextlib.ExitStack() as resources:
        lock = lock or resources.enter_context(work_folder.held(workdir))
        run = _Run(
            config, system, workdir, mesh, rules, extra_files or {}, initial_params,
            samples, lock, resources, wall,
        )  # fmt: skip
        with StopSignal() as stop:
            run.evaluations.check(run.state, run.constants)
            wall.opened()
            return run.train(batches_fn, stop, progress)


class _Run:
    """One call of `train`: the objects it needs, and the steps it takes."""

    def __init__(
        self, config, system, workdir, mesh, rules, extra_files, initial_params,
        samples, lock, resources, wall,
    ):  # fmt: skip
        self.config = plain(config)
        self.program = program.Program(config, system, mesh, rules)
        self.settings = settings = self.program.settings
        self.system, self.mesh, self.rules = system, mesh, rules
        self.workdir, self.lock = pathlib.Path(workdir), lock
        self.evaluations = Evaluations(system, settings, mesh, rules)
        self.extra_files, self.samples, self.wall = extra_files, samples, wall
        self.constants = self.program.constants()
        self.digests = {k: trees.digest(v) for k, v in system.constants.items()}
        # Before Orbax looks, which goes by names and would restore a damaged one.
        checkpoint_folder.repair(workdir)
        self.checkpoints = checkpoint.Checkpoints(
            workdir,
            keep=settings.keep,
            best_mode=settings.best_mode,
            track=bool(self.evaluations and settings.best_metric),
        )
        resources.callback(self.checkpoints.close)
        # Batches that were passed over by rewinding: number of a batch - step.
        self.passed_over = self.rewinds = 0
        self.unevaluated = False  # the run was asked to end when that was due
        self.early_stop = monitors.EarlyStop(settings.early_stop)
        self.state, shardings = self._create_or_restore(initial_params)
        self.start = int(self.state.step)
        self.step_fn, self.packer = self.program.step(shardings)
        self.compiled: set[str] = set()
        self.monitor = monitors.SpikeMonitor(settings.spike)
        self.spike: int | None = None  # first step of one that calls for a rewind
        self.bad_in_a_row = 0
        self.log = run_log.RunLog(self.workdir, system, self.start, wall)
        if jax.process_index() == 0:
            self.log.open_files(self.config, settings, resources)

    def _create_or_restore(self, initial_params):
        latest = self.checkpoints.latest_step()
        if latest is not None:
            meta = self.checkpoints.meta(latest)
            checkpoint_meta.check_same_run(
                meta, self.system.name, self.config, self.extra_files, self.workdir,
                self.digests, self.system.resumable,
            )  # fmt: skip
            self.passed_over = meta["data_position"] - latest
            self.unevaluated = meta.get("unevaluated", False)
            self._count_early_stop_from(meta)
            self._take_up_rewind(latest)
        created, shardings = self.program.create(abstract=latest is not None)
        if latest is not None:
            created = self.checkpoints.restore(latest, created, self.digests)
        elif initial_params:
            created = state.start_from(created, initial_params())
        return created, shardings

    def _count_early_stop_from(self, meta: Mapping[str, Any]) -> None:
        """Evaluations count as they did when a checkpoint was saved."""
        self.early_stop = monitors.EarlyStop(
            self.settings.early_stop, meta.get("early_stop")
        )

    def _take_up_rewind(self, latest: int) -> None:
        """Keeps to what `_rewind` decided, though nothing was saved since."""
        path = self.workdir / _REWOUND
        if path.is_file():
            rewound = json.loads(path.read_text())
            self.rewinds = rewound["rewinds"]
            if rewound["step"] == latest:
                self.passed_over = rewound["passed_over"]

    def train(self, batches_fn, stop: StopSignal, progress: bool) -> state.TrainState:
        total = self.settings.total_steps
        self.log.open_bar(total, progress)
        profile = Profile(self.workdir, self.start, self.settings.profile_steps)
        pending, stopped, done = None, False, self.start
        if self.unevaluated and self._due(done)[1]:
            stopped = not self._evaluate_late(done, stop)
        feed = self._batches(batches_fn, done)
        try:
            while done < total and not stopped and not self.early_stop.ends:
                try:
                    batch = self._next(feed, done, stop, pending)
                except UserError:
                    self._save_before_the_end(done, pending)
                    raise
                current = None
                if batch is not None:
                    with profile.step(done), self._compiling("step"):
                        self.state, packed = self.step_fn(
                            self.state, self.constants, batch
                        )
                    done += 1
                    current = (done, packed)
                # Reading the previous step while this one runs bounds how far
                # the host is ahead, at no cost to the device.
                self._read(pending)
                pending, stopped = current, batch is None or stop.agreed(self.mesh)
                save, evaluate = self._due(done)
                if stopped or save or evaluate:
                    self._read(pending)
                    pending = None
                if self.spike is not None:
                    feed.close()
                    done, pending = self._rewind(done), None
                    feed = self._batches(batches_fn, done)
                    continue
                if stopped or save or evaluate:
                    if save or stopped:
                        # A resumed run averages from here on: so must this one.
                        self._log(done)
                    values = {}
                    if evaluate and not stopped:
                        values = self._evaluate(done, stop)
                        if stopped := values is None:
                            values = {}
                            self._log(done)
                    # Without a batch it was at the turn before.
                    self.unevaluated = evaluate and stopped and batch is not None
                    self.early_stop.seen(values)
                    if save or stopped or self.early_stop.ends:
                        self._save(done, values)
                    if self.samples and not stopped and self.settings.samples_at(done):
                        with self.wall.spent("evaluation"):
                            self._sample(done)
                    self.log.rate.pause()
            if self.early_stop.ends:
                metrics.print_line(f"step {done}: {self.early_stop.reason}")
            self.checkpoints.wait()
        finally:
            profile.close()
            feed.close()
            self.log.bar.close()
        early = (done < total or self.unevaluated) and not self.early_stop.ends
        return self.state.replace(stopped=early)

    def _batches(self, batches_fn, done: int) -> Prefetch:
        put = functools.partial(
            batches.put_feeds, system=self.system, mesh=self.mesh, rules=self.rules
        )
        return Prefetch(batches_fn(done + self.passed_over), put)

    def _save_before_the_end(self, done: int, pending) -> None:
        """Saves what was learnt before the data failed; others may not know of it."""
        if jax.process_count() == 1 and done > self.start:
            self._read(pending)
            self._log(done)
            self._save(done, {})
            self.checkpoints.wait()

    def _evaluate_late(self, done: int, stop: StopSignal) -> bool:
        """Evaluates what was due when the run ended; False if it is to end again."""
        values = self._evaluate(done, stop)
        if values is None:
            return False
        self.unevaluated = False
        self.early_stop.seen(values)
        # Again, with its metric; never without another one to fall back on.
        if len(self.checkpoints.steps()) > 1:
            self.checkpoints.delete_from(done)
            self._save(done, values)
        return True

    def _rewind(self, done: int) -> int:
        """Goes back to the last checkpoint before the spike; returns its step.

        The data that were seen since are passed over.

        Raises:
          UserError: there is none, or it was done too often.
        """
        first, self.spike = self.spike, None
        self.checkpoints.wait()
        before = [s for s in self.checkpoints.steps() if s < first]
        self.rewinds += 1
        if not before or self.rewinds > self.settings.spike.max_rewinds:
            why = "there is no checkpoint before it"
            if before:
                why = f"the run has been rewound {self.rewinds - 1} times"
            raise UserError(
                f"step {first}: the loss has left its course and {why}; "
                f"{self._last_good()}; try a lower optim.peak_lr or optim.clip_norm"
            )
        target = before[-1]
        where = jax.tree.map(lambda x: x.sharding, self.state)
        self.state = self.checkpoints.restore(
            target, state.with_shardings(self.state, where)
        )
        # Those since hold the spike: nothing must resume from them.
        self.checkpoints.delete_from(first)
        self.passed_over += done - target
        self._count_early_stop_from(self.checkpoints.meta(target))
        if jax.process_index() == 0:
            rewound = {
                "step": target, "passed_over": self.passed_over, "rewinds": self.rewinds
            }  # fmt: skip
            files.write_text(self.workdir / _REWOUND, json.dumps(rewound))
        self.log.rewind(done, target, first)
        return target

    @contextlib.contextmanager
    def _compiling(self, name: str) -> Iterator[None]:
        """Around a call of something jitted, the first of which compiles it."""
        if name in self.compiled:
            yield
            return
        self.compiled.add(name)
        with self.wall.spent("compile"):
            yield

    def _next(self, feed: Prefetch, done: int, stop: StopSignal, pending):
        """The next batches; None when the signal to stop also ended the data.

        A Ctrl-C reaches the data workers too, and they may fall first.
        """

        def idle() -> bool:
            return pending is None or pending[1].is_ready()

        try:
            batch, waited = feed.wait(idle)
            self.wall.add("input", waited)
            return batch
        except Exception as error:
            if stop.requested and jax.process_count() == 1:
                return None
            if isinstance(error, UserError):
                raise
            raise batches.explained(error, done, self.settings.total_steps) from error

    def _due(self, done: int) -> tuple[bool, bool]:
        """(whether to save, whether to evaluate) after `done` updates."""
        save, evaluate = self.settings.saves_at(done), self.settings.evaluates_at(done)
        return save, evaluate and bool(self.evaluations)

    def _sample(self, done: int) -> None:
        """Draws the pictures; process 0 keeps them."""
        drawn = self.samples(self.state.eval_params, self.state.state)
        for name, image in drawn.items():
            self.log.picture(done, name, image)

    def _read(self, pending: tuple[int, Any] | None) -> None:
        """Takes the metrics of one step: checks, averages, logs."""
        if pending is None:
            return
        done, packed = pending
        values = self.packer.unpack(packed)
        bad = metrics.non_finite(values)
        self.bad_in_a_row = self.bad_in_a_row + 1 if bad else 0
        if bad and not self._may_skip():
            raise UserError(
                f"step {done}: {bad}; the update was not applied and the run "
                f"stopped; {self._last_good()}; try a lower optim.peak_lr or "
                "optim.clip_norm, or bad_batch='skip'"
            )
        self.log.count_step()
        if bad:
            self.log.write({"step": done, "skipped": bad})
            metrics.print_line(f"step {done}: {bad}; the batch is skipped")
        else:
            self._take(done, values)
        if self.settings.logs_at(done):
            self._log(done)

    def _may_skip(self) -> bool:
        return self.settings.bad_batch == "skip" and self.bad_in_a_row <= _MOST_BAD

    def _take(self, done: int, values) -> None:
        """Averages the metrics of a good step and watches its loss."""
        self.log.average.add(values)
        name = f"{step.prefix(self.system.phases[0])}loss"
        total, count = values[name]
        first = self.monitor.seen(done, total / count) if count else None
        if first is None:
            return
        if self.settings.spike.action == "rewind":
            self.spike = first
        else:
            self.monitor.reset()  # so that it is said once
            self.log.write({"step": done, "spike_at": first})
            metrics.print_line(f"step {first}: the loss has left its course")

    def _last_good(self) -> str:
        self.checkpoints.wait()
        latest = self.checkpoints.latest_step()
        return (
            "there is no checkpoint yet"
            if latest is None
            else f"the last good checkpoint is step {latest}"
        )

    def _log(self, done: int) -> None:
        """Writes the means of the steps since the last line, if there are any.

        Raises:
          UserError: a save in the background failed, or the system's alarm.
        """
        record = self.log.write_means(done)
        if record is None:
            return
        self.checkpoints.check()
        wrong = self.system.alarm(record) if self.system.alarm else None
        if wrong:
            raise UserError(f"step {done}: {wrong}; {self._last_good()}")

    def _evaluate(self, done: int, stop: StopSignal) -> dict[str, float] | None:
        """Evaluates on the held-out batches, logs and prints the means.

        None where the run is asked to end meanwhile.

        Raises:
          UserError: one of them is not finite.
        """
        with self.wall.spent("evaluation"):
            average = self.evaluations.run(
                self.state,
                self.constants,
                self._compiling,
                lambda: stop.agreed(self.mesh),
            )
        if average is None:
            return None
        bad = metrics.non_finite(average.totals)
        if bad:
            raise UserError(
                f"step {done}: {bad} on the held-out data; the run stopped and this "
                f"step is not saved; {self._last_good()}; check the held-out data or "
                "try a lower optim.peak_lr"
            )
        values = average.means()
        self.log.write_evaluation(done, values)
        return values

    def _save(self, done: int, values: Mapping[str, float]) -> None:
        """Saves, unless something in the state is not finite."""
        with self.wall.spent("checkpoint"):
            self.lock.check()
            if bad := state.non_finite(self.state):
                raise UserError(
                    f"step {done}: {bad[0]} is not finite, so no checkpoint is "
                    f"written; {self._last_good()}; try a lower optim.peak_lr or "
                    "optim.clip_norm"
                )
            meta = checkpoint_meta.make(
                done, self.system.name, self.config, self.extra_files,
                data_position=done + self.passed_over,
                early_stop=self.early_stop.known, constants=self.digests,
                unevaluated=self.unevaluated,
            )  # fmt: skip
            metric = values.get(self.settings.best_metric)
            self.checkpoints.save(self.state, meta, metric)
