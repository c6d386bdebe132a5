"""A system's evaluations on their held-out batches."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from gptface_jax.core import types
from gptface_jax.core.errors import UserError, nearest
from gptface_jax.train import batches, metrics, sharding, step
from gptface_jax.train.settings import Settings
from gptface_jax.train.state import TrainState


class Evaluations:
    """The evaluations that have held-out batches; false where there are none.

    Args:
      system: what is trained.
      settings: of the run.
      mesh, rules: where everything lies.
    """

    def __init__(
        self,
        system: types.System,
        settings: Settings,
        mesh: Mesh,
        rules: sharding.Rules,
    ):
        self.system, self.settings = system, settings
        self.mesh, self.rules = mesh, rules
        self.given = {
            name: given
            for name, given in system.evaluations.items()
            if given.batches is not None
        }
        self.jitted = {
            name: step.make_eval(name, given.metrics, settings.seed, mesh)
            for name, given in self.given.items()
        }

    def __bool__(self) -> bool:
        return bool(self.given)

    def check(self, state: TrainState, constants: types.Constants) -> None:
        """Traces the evaluations, so that a wrong name fails before training.

        Raises:
          UserError: no held-out batches, or `best_metric` is not among the
            metrics.
        """
        for name in self.given:
            if isinstance(self.given[name].batches, Iterator):
                raise TypeError(
                    f"batches of '{name}' are an iterator; give a list or a function"
                )
            batch = next(self._held_out(name), None)
            if batch is None:
                raise UserError(
                    "there are no held-out batches; use more data or a smaller "
                    "batch_size"
                )
            jax.eval_shape(
                self.jitted[name][0],
                state.eval_params,
                state.state,
                constants,
                batch,
                jnp.int32(0),
            )
        names = [name for own in self.names.values() for name in own.values()]
        for key, name in (
            ("best_metric", self.settings.best_metric),
            ("early_stop.metric", self.settings.early_stop.metric),
        ):
            if self and name and name not in names:
                raise UserError(
                    f"{key} '{name}' is not evaluated{nearest(name, names)}; "
                    f"have {', '.join(names)}"
                )

    @property
    def names(self) -> Mapping[str, Mapping[str, str]]:
        """Names of the metrics in the log, see `step.eval_names`; once traced."""
        return step.eval_names({k: p.names for k, (_, p) in self.jitted.items()})

    def run(
        self,
        state: TrainState,
        constants: types.Constants,
        compiling: Callable[[str], contextlib.AbstractContextManager],
        stops: Callable[[], bool] = lambda: False,
    ) -> metrics.Average | None:
        """The sums of all metrics over the held-out batches, by their names in the log.

        None where `stops` says so before the end.

        To be called after `check`, which learns the names.

        Args:
          state: its averaged parameters are evaluated, where there are some.
          constants: of the system, on the devices.
          compiling: name -> what surrounds a call that may compile.
          stops: asked before every batch, on all processes alike: what was asked to
            end has little time, and an evaluation may take minutes.
        """
        average, limit = metrics.Average(), self.settings.eval_batches or None
        all_names = self.names
        for name, (evaluate, packer) in self.jitted.items():
            held_out = itertools.islice(self._held_out(name), limit)
            for index, batch in enumerate(held_out):
                if stops():
                    return None
                with compiling(f"eval/{name}"):
                    packed = evaluate(
                        state.eval_params,
                        state.state,
                        constants,
                        batch,
                        jnp.int32(index),
                    )
                found, names = packer.unpack(packed), all_names[name]
                average.add({names[key]: value for key, value in found.items()})
        return average

    def _held_out(self, name: str) -> Iterator[dict[str, Any]]:
        """Global batches; they may hold more than the spec asks for."""
        given = self.given[name]
        source = given.batches() if callable(given.batches) else given.batches
        for batch in source:
            own = batches.checked(batch, given.spec, self.system.name)
            yield sharding.put_batch({**batch, **own}, self.mesh, self.rules)
