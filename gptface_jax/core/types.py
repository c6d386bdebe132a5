"""What an engine can train: a System made of Phases (ARCHITECTURE section 3).

Axis letters used in shape comments everywhere: B batch, L length (Q, K when
attention needs two), D width, N heads, H head width, F mlp, V vocabulary,
K codes, C channels, h and w the token grid.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

Params = Any  # a pytree of arrays, nested dicts with explicit names
State = Any  # what is learnt without gradients; {} for most systems
Constants = Mapping[str, Any]  # name -> pytree of arrays that no step changes
Batch = Mapping[str, Any]  # name -> array, leading axis B
Batches = Mapping[str, Batch]  # name of a feed -> its batch
Metrics = Mapping[str, tuple[Any, Any]]  # name -> (sum, count), both scalars

# (params, state, constants, batches, key, step) -> (scalar loss, (new state, metrics))
LossFn = Callable[
    [Params, State, Constants, Batches, Any, Any], tuple[Any, tuple[State, Metrics]]
]
# (params, state, constants, batch, key) -> metrics
EvalFn = Callable[[Params, State, Constants, Batch, Any], Metrics]


@dataclasses.dataclass(frozen=True)
class Feed:
    """A named stream of batches; a step draws one batch of each.

    Attributes:
      spec: name -> `jax.ShapeDtypeStruct` of one example, without B.
      size: examples a step, over all processes and microbatches.
      units: of the system's `unit` that an example is counted as.
    """

    spec: Mapping[str, Any]
    size: int
    units: int = 1


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """Metrics of held-out batches.

    Attributes:
      metrics: of one batch.
      spec: as of a `Feed`, what a batch must hold; it may hold more.
      batches: held out, this process's share of each: a list, or a function that starts
        a fresh iterator. None: there are none, and nothing is evaluated.
    """

    metrics: EvalFn
    spec: Mapping[str, Any]
    batches: Iterable[Batch] | Callable[[], Iterable[Batch]] | None = None


@dataclasses.dataclass(frozen=True)
class Phase:
    """One optimisation problem inside a training step.

    Attributes:
      name: prefix of the phase's metrics ("" for a single phase).
      trainable: regex searched in "/"-joined parameter paths; what matches is
        updated by this phase, everything else is constant in it.
      loss: differentiated with respect to the trainable parameters.
      learns: name of a metric of the loss that is 0 in steps in which the phase
        pauses: parameters and moments of the optimizer then stay. "": it never does.
    """

    name: str
    trainable: str
    loss: LossFn
    learns: str = ""


@dataclasses.dataclass(frozen=True)
class System:
    """A model with its objectives, as the engine sees it.

    Attributes:
      name: "vqgan", "gptface", ...
      init: key -> params, leaves boxed with logical axis names
        (`flax.linen.with_logical_partitioning`).
      feeds: what a step is given, by name.
      phases: run one after another in every step.
      evaluations: of held-out batches, by name.
      constants: arrays that the losses read and nothing changes, such as a network in
        whose features pictures are compared. They are not saved; a run is resumed with
        the same ones only.
      init_state: () -> the initial non-trainable state.
      post_update: (params, state, key, step) -> (params, state) after the
        optimizer's update inside the same step, or None.
      alarm: logged means of training -> what is so wrong that the run must stop,
        with the remedy, or None.
      unit: what speed is measured in: "images", "tokens", ...
      whole_batch: what the loss takes over the batch as a whole, and over a part alone
        where there are microbatches, such as "batch statistics are"; "" for nothing.
      resumable: beginnings of config keys that a resumed run may change, beside those
        of `train.settings`.
    """

    name: str
    init: Callable[[Any], Params]
    feeds: Mapping[str, Feed]
    phases: tuple[Phase, ...]
    evaluations: Mapping[str, Evaluation] = dataclasses.field(default_factory=dict)
    constants: Constants = dataclasses.field(default_factory=dict)
    init_state: Callable[[], State] = dict
    post_update: Callable[[Params, State, Any, Any], tuple[Params, State]] | None = None
    alarm: Callable[[Mapping[str, float]], str | None] | None = None
    unit: str = "examples"
    whole_batch: str = ""
    resumable: tuple[str, ...] = ()

    def note_on_microbatches(self, grad_accum: int) -> str:
        """How that many microbatches change the objective; "" where they do not."""
        if grad_accum < 2 or not self.whole_batch:
            return ""
        return (
            f"grad_accum {grad_accum} changes the objective: {self.whole_batch} "
            f"within 1/{grad_accum} of the batch"
        )

    def held_out(self, **batches: Any) -> System:
        """The system with held-out batches of the evaluations of these names."""
        evaluations = {
            name: dataclasses.replace(given, batches=batches.get(name, given.batches))
            for name, given in self.evaluations.items()
        }
        return dataclasses.replace(self, evaluations=evaluations)
