"""What an engine can train: a System made of Phases (ARCHITECTURE section 3).

Axis letters used in shape comments everywhere: B batch, L length (Q, K when
attention needs two), D width, N heads, H head width, F mlp, V vocabulary,
K codes, C channels, h and w the token grid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

Params = Any  # a pytree of arrays, nested dicts with explicit names
State = Any  # what is learnt without gradients; {} for most systems
Batch = Mapping[str, Any]  # name -> array, leading axis B
Metrics = Mapping[str, tuple[Any, Any]]  # name -> (sum, count), both scalars

# (params, state, batch, key, step) -> (scalar loss, (new state, metrics))
LossFn = Callable[[Params, State, Batch, Any, Any], tuple[Any, tuple[State, Metrics]]]
# (params, state, batch, key) -> metrics
EvalFn = Callable[[Params, State, Batch, Any], Metrics]


@dataclasses.dataclass(frozen=True)
class Phase:
    """One optimisation problem inside a training step.

    Attributes:
      name: prefix of the phase's metrics ("" for a single phase).
      trainable: regex searched in "/"-joined parameter paths; what matches is
        updated by this phase, everything else is constant in it.
      loss: differentiated with respect to the trainable parameters.
    """

    name: str
    trainable: str
    loss: LossFn


@dataclasses.dataclass(frozen=True)
class System:
    """A model with its objectives, as the engine sees it.

    Attributes:
      name: "vqgan", "gptface", ...
      init: key -> params, leaves boxed with logical axis names
        (`flax.linen.with_logical_partitioning`).
      batch_spec: name -> `jax.ShapeDtypeStruct` of one example, without B.
      phases: run one after another in every step.
      eval_fns: name -> metrics on a held-out batch.
      init_state: () -> the initial non-trainable state.
      post_update: (params, state, key, step) -> (params, state) after the
        optimizer's update inside the same step, or None.
      alarm: logged means of training -> what is so wrong that the run must stop,
        with the remedy, or None.
    """

    name: str
    init: Callable[[Any], Params]
    batch_spec: Mapping[str, Any]
    phases: tuple[Phase, ...]
    eval_fns: Mapping[str, EvalFn] = dataclasses.field(default_factory=dict)
    init_state: Callable[[], State] = dict
    post_update: Callable[[Params, State, Any, Any], tuple[Params, State]] | None = None
    alarm: Callable[[Mapping[str, float]], str | None] | None = None
