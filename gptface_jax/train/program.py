"""What a run compiles, from a config and a system: made for real, or described."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from gptface_jax.core import types
from gptface_jax.core.errors import UserError
from gptface_jax.train import sharding, state, step
from gptface_jax.train.metrics import Packer
from gptface_jax.train.optim import logged, make_optimizer
from gptface_jax.train.settings import read_optim, read_settings


class Program:
    """Optimisers, state and step of one experiment on one mesh.

    Args:
      config: experiment config.
      system: what is trained.
      mesh, rules: from `sharding.open_mesh`; everything here is to be called within
        `sharding.in_force(mesh, rules)`.

    Raises:
      UserError: a batch that the devices do not divide, or a wrong setting.
    """

    def __init__(
        self, config: Any, system: types.System, mesh: Mesh, rules: sharding.Rules
    ):
        self.system, self.mesh, self.rules = system, mesh, rules
        self.settings = settings = read_settings(config)
        ways = sharding.ways("batch", mesh, rules) * settings.grad_accum
        for name, feed in system.feeds.items():
            which = f" of '{name}'" if len(system.feeds) > 1 else ""
            if feed.size < 1:
                raise UserError(f"batch_size{which} is {feed.size}; use 1 or more")
            if feed.size % ways:
                raise UserError(
                    f"batch_size{which} {feed.size} does not divide by {ways} "
                    "(data-parallel devices x grad_accum); change batch_size, "
                    "grad_accum or mesh"
                )
        keys = [state.phase_key(p) for p in system.phases]
        self.optimizers, self.logged = {}, {}
        for k in keys:
            options = read_optim(config, k)
            tx, schedule = make_optimizer(options, settings.total_steps)
            self.optimizers[k] = tx
            self.logged[k] = functools.partial(logged, options, schedule)

    def create(self, abstract: bool = False) -> tuple[Any, Any]:
        """State and its shardings, see `state.create`."""
        return state.create(
            self.system,
            self.optimizers,
            self.mesh,
            seed=self.settings.seed,
            ema=self.settings.ema_decay > 0,
            rules=self.rules,
            abstract=abstract,
        )

    def step(self, shardings: Any) -> tuple[Callable, Packer]:
        """Jitted step and packer of its metrics, see `step.make_step`."""
        return step.make_step(
            self.system,
            self.optimizers,
            self.logged,
            shardings,
            self.mesh,
            seed=self.settings.seed,
            grad_accum=self.settings.grad_accum,
            ema_decay=self.settings.ema_decay,
            skip_bad=self.settings.bad_batch == "skip",
            rules=self.rules,
        )

    def batches(self) -> Mapping[str, Mapping[str, jax.ShapeDtypeStruct]]:
        """Shapes of the global batches of a step."""
        where = sharding.batch_sharding(self.mesh, self.rules)
        return {
            name: {
                key: jax.ShapeDtypeStruct(
                    (feed.size, *x.shape), x.dtype, sharding=where
                )
                for key, x in feed.spec.items()
            }
            for name, feed in self.system.feeds.items()
        }

    def constants(self, abstract: bool = False) -> types.Constants:
        """The system's constants on every device, or their shapes."""
        where = sharding.replicated(self.mesh)
        if abstract:
            shapes = jax.eval_shape(lambda: dict(self.system.constants))
            return state.with_shardings(shapes, jax.tree.map(lambda _: where, shapes))
        return sharding.on_every_device(dict(self.system.constants), self.mesh)

    def trace(self) -> tuple[jax.stages.Traced, Any]:
        """The step, traced without any array, and the shapes of the state."""
        shapes, shardings = self.create(abstract=True)
        step_fn, _ = self.step(shardings)
        constants = self.constants(abstract=True)
        return step_fn.trace(shapes, constants, self.batches()), shapes
