"""The training state and its sharded creation: shapes first, arrays later."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import struct
from jax.sharding import Mesh

from gptface_jax.core import trees, types
from gptface_jax.core.errors import UserError
from gptface_jax.train import sharding


@struct.dataclass
class TrainState:
    """The state that a run carries from step to step.

    Attributes:
      step: int32 [], updates done.
      params: nested dict of arrays, unboxed.
      opt_state: phase key -> optax state of that phase's parameters.
      state: what is learnt without gradients; {} for most systems.
      ema: averaged parameters like `params`, or None when they are off.
      stopped: True when a signal ended the run before its last step.
    """

    step: Any
    params: Any
    opt_state: Any
    state: Any
    ema: Any = None
    stopped: bool = struct.field(pytree_node=False, default=False)

    @property
    def eval_params(self) -> Any:
        """The averaged parameters where there are some, else `params`."""
        return self.params if self.ema is None else self.ema


def phase_key(phase: types.Phase) -> str:
    """The phase's name as a dict key; "main" for the unnamed phase."""
    return phase.name or "main"


def check_phases(system: types.System, params: Any) -> None:
    """Raises ValueError for a phase that trains nothing or a repeated name."""
    paths = list(trees.flatten(params))
    keys = [phase_key(p) for p in system.phases]
    if len(set(keys)) != len(keys) or not keys:
        raise ValueError(f"system {system.name!r} has phases {keys}; need unique names")
    for phase in system.phases:
        if not any(re.search(phase.trainable, path) for path in paths):
            raise ValueError(
                f"phase {phase_key(phase)!r}: no parameter matches "
                f"{phase.trainable!r}; the first are {', '.join(paths[:5])}"
            )


def create(
    system: types.System,
    optimizers: Mapping[str, optax.GradientTransformation],
    mesh: Mesh,
    *,
    seed: int = 0,
    ema: bool = False,
    rules: sharding.Rules = sharding.RULES,
    abstract: bool = False,
) -> tuple[TrainState, TrainState]:
    """Creates the state, every array directly on the devices where it belongs.

    Args:
      system: gives `init`, `init_state` and the phases.
      optimizers: phase key -> optax transformation.
      mesh: from `sharding.make_mesh`.
      seed: root seed of the run.
      ema: whether averaged parameters are kept.
      rules: logical axis -> mesh axes.
      abstract: return shape structs instead of arrays (to restore into).

    Returns:
      (state, its shardings), with the same tree.
    """
    key = trees.stream(jax.random.key(seed), "init")
    boxed = jax.eval_shape(system.init, key)
    params_sharding = sharding.param_shardings(boxed, mesh, rules)
    check_phases(system, sharding.unbox(boxed))

    def init(key):
        params = sharding.unbox(system.init(key))
        opt_state = {}
        for phase in system.phases:
            chosen, _ = trees.split(params, phase.trainable)
            name = phase_key(phase)
            opt_state[name] = optimizers[name].init(trees.unflatten(chosen))
        return TrainState(
            step=jnp.zeros([], jnp.int32),
            params=params,
            opt_state=opt_state,
            # Weak types (of `jnp.full(n, 0.5)`) would compile the step twice.
            state=jax.tree.map(lambda x: x.astype(x.dtype), system.init_state()),
            ema=jax.tree.map(jnp.copy, params) if ema else None,
        )

    shapes = jax.eval_shape(init, key)
    everywhere = sharding.replicated(mesh)
    shardings = TrainState(
        step=everywhere,
        params=params_sharding,
        opt_state=sharding.like_params(
            shapes.opt_state, shapes.params, params_sharding, mesh
        ),
        state=jax.tree.map(lambda _: everywhere, shapes.state),
        ema=params_sharding if ema else None,
    )
    if abstract:
        return with_shardings(shapes, shardings), shardings
    return jax.jit(init, out_shardings=shardings)(key), shardings


def start_from(created: TrainState, params: Mapping[str, Any]) -> TrainState:
    """A new state with the parameters of another network.

    Args:
      created: as `create` makes it; what `params` lacks stays as it is.
      params: nested dict of arrays; entries that are called as collections of the
        state, such as statistics of batches, go there.

    Raises:
      UserError: a parameter that is not there, or of another shape.
    """
    both = {**created.params, **created.state}
    flat, given = trees.flatten(both), trees.flatten(params)
    for name, value in given.items():
        if name not in flat or flat[name].shape != value.shape:
            there = f"has the shape {flat[name].shape}" if name in flat else "is not"
            raise UserError(
                f"init_from: '{name}' of shape {value.shape} {there} in this model; "
                "start from a network with the same config.model"
            )
        whole = np.asarray(value, flat[name].dtype)
        flat[name] = jax.make_array_from_callback(
            whole.shape, flat[name].sharding, whole.__getitem__
        )
    both = trees.unflatten(flat)
    state = {name: both.pop(name) for name in created.state}
    ema = None if created.ema is None else jax.tree.map(jnp.copy, both)
    return created.replace(params=both, ema=ema, state=state)


def with_shardings(tree: Any, shardings: Any) -> Any:
    """Shape structs with shardings, of arrays or shape structs."""
    return jax.tree.map(
        lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s),
        tree,
        shardings,
    )


def non_finite(train_state: TrainState) -> list[str]:
    """Paths of the parameters and other arrays that hold a NaN or an infinity."""
    finite = trees.flatten(jax.device_get(_finite_leaves(train_state)))
    return [name for name, ok in finite.items() if not ok]


@jax.jit
def _finite_leaves(train_state: TrainState) -> Any:
    """{"params": ..., "state": ...} of bool: each inexact leaf all finite."""

    def finite(x):
        inexact = jnp.issubdtype(x.dtype, jnp.inexact)
        return jnp.isfinite(x).all() if inexact else jnp.bool_(True)

    tree = {
        "params": train_state.params,
        "opt_state": train_state.opt_state,
        "state": train_state.state,
        "ema": train_state.ema,
    }
    return jax.tree.map(finite, tree)
