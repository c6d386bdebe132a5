"""What a training step costs, before it runs: FLOPs, memory, collectives, time.

FLOPs are counted in the program as written; memory and collectives are those of the
compiled step. Times are a roofline: what the step cannot be faster than.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.core import trees, types
from gptface_jax.train import sharding
from gptface_jax.train.planning import collectives, estimates
from gptface_jax.train.planning.hardware import Accelerator
from gptface_jax.train.program import Program
from gptface_jax.train.state import TrainState


def count_flops(function: Callable, *arguments: Any, turns: int = 1) -> float:
    """FLOPs of the matrix products and convolutions that a call would do.

    A multiplication with its addition counts 2. Of the branches of a condition the
    dearest counts.

    Args:
      function: any function of JAX.
      *arguments: arrays or shape structs.
      turns: of a loop of unknown length.
    """
    return _of_jaxpr(jax.make_jaxpr(function)(*arguments).jaxpr, turns)


def _of_jaxpr(jaxpr: Any, turns: int = 1) -> float:
    return sum(_of_equation(equation, turns) for equation in jaxpr.eqns)


def _of_equation(equation: Any, turns: int) -> float:
    name, params = equation.primitive.name, equation.params
    if name == "dot_general":
        (contracted, _), _ = params["dimension_numbers"]
        left = equation.invars[0].aval.shape
        inner = math.prod(left[i] for i in contracted)
        return 2.0 * inner * math.prod(equation.outvars[0].aval.shape)
    if name == "conv_general_dilated":
        kernel = equation.invars[1].aval.shape
        features = kernel[params["dimension_numbers"].rhs_spec[0]]
        each = math.prod(kernel) / features
        return 2.0 * each * math.prod(equation.outvars[0].aval.shape)
    if name == "cond":
        return max(_of_jaxpr(branch.jaxpr, turns) for branch in params["branches"])
    inner = sum(_of_jaxpr(inner, turns) for inner in _inner(params.values()))
    return _executions(name, params, turns) * inner


def _executions(name: str, params: Mapping[str, Any], turns: int) -> int:
    """Number of runs of the programs inside an equation, over all devices."""
    if name == "while":
        return turns
    if name == "scan":
        return params["length"]
    if name == "pallas_call":
        return math.prod(params["grid_mapping"].grid)
    if name == "shard_map":
        axes = next(v for k, v in params.items() if k.endswith("manual_axes"))
        return math.prod(params["mesh"].shape[axis] for axis in axes)
    return 1


def _inner(values: Any) -> list[Any]:
    """The programs inside an equation's parameters."""
    found = []
    for value in values:
        if isinstance(value, (tuple, list)):
            found += _inner(value)
        elif hasattr(value, "jaxpr"):
            found.append(value.jaxpr)
        elif hasattr(value, "eqns"):
            found.append(value)
    return found


def forward_flops(system: types.System, program: Program) -> float:
    """FLOPs of the losses of all phases on one batch, without any gradient."""
    key = jax.random.key(0)
    params = jax.eval_shape(lambda k: sharding.unbox(system.init(k)), key)
    values = jax.eval_shape(system.init_state)
    half = jnp.int32(program.settings.total_steps // 2)

    constants = program.constants(abstract=True)

    def losses(params, values, constants, batches, key):
        return [
            phase.loss(params, values, constants, batches, key, half)[0]
            for phase in system.phases
        ]

    return count_flops(losses, params, values, constants, program.batches(), key)


@dataclasses.dataclass(frozen=True)
class Memory:
    """Bytes on one device.

    Attributes:
      params, optimizer, ema: of the state.
      other: what is learnt without gradients, and constants.
      batch: the inputs.
      temporary: what else the step needs while it runs, activations above all.
    """

    params: float
    optimizer: float
    ema: float
    other: float
    batch: float
    temporary: float

    @property
    def total(self) -> float:
        return sum(dataclasses.astuple(self))


def bytes_on_a_device(tree: Any) -> float:
    """Bytes that one device holds of arrays or shape structs, by their shardings."""

    def one(x: Any) -> float:
        shape = x.sharding.shard_shape(x.shape)
        if jax.dtypes.issubdtype(x.dtype, jax.dtypes.prng_key):
            return 8.0
        return math.prod(shape) * x.dtype.itemsize

    return float(sum(one(x) for x in jax.tree.leaves(tree)))


@dataclasses.dataclass(frozen=True)
class Cost:
    """Cost of one training step.

    Attributes:
      mesh: devices along each axis.
      parameters: their number.
      model_flops: three times the forward pass, of all devices together; the common
        measure, which leaves recomputation out. No more than are counted: frozen
        features and the first layers have less of a backward pass. With recomputation
        counted on top, what they lack may still be in it.
      counted_flops: of the whole step as written, recomputation included.
      compiled_flops: what XLA counts, on one device; most of its backends count the
        body of a loop once.
      memory: on one device.
      collectives: of the compiled step.
      operations: of the compiled step, where the compiler says what it expects of them
        (see `estimates`); kernels and collectives are not among them.
    """

    mesh: Mapping[str, int]
    parameters: int
    model_flops: float
    counted_flops: float
    compiled_flops: float
    memory: Memory
    collectives: tuple[collectives.Collective, ...]
    operations: tuple[estimates.Operation, ...] = ()

    @property
    def devices(self) -> int:
        """Number of devices that share the step."""
        return math.prod(self.mesh.values())

    def times(
        self, on: Accelerator, slow_axes: tuple[str, ...] = ()
    ) -> dict[str, float]:
        """Seconds that the step cannot do without: {"compute", "links", "network"}.

        Args:
          on: the device.
          slow_axes: mesh axes that cross the network between slices.
        """
        parts = {"compute": self.counted_flops / self.devices / on.peak_flops}
        parts["links"] = parts["network"] = 0.0
        for op in self.collectives:
            slow = any(axis in slow_axes for axis in op.axes)
            speed = on.network if slow else on.link
            parts["network" if slow else "links"] += op.wire_bytes / speed
        return parts

    def mfu(self, on: Accelerator, seconds: float) -> float:
        """Share of the peak that `model_flops` in so many seconds are."""
        return self.model_flops / self.devices / on.peak_flops / seconds


def of_program(program: Program) -> Cost:
    """Compiles the step and reads its cost. To be called as `Program` says."""
    traced, shapes = program.trace()
    compiled = traced.lower().compile()
    analysis, text = compiled.cost_analysis() or {}, compiled.as_text()
    counted = _of_jaxpr(traced.jaxpr.jaxpr)
    return Cost(
        mesh=dict(program.mesh.shape),
        parameters=trees.count(shapes.params),
        model_flops=min(3.0 * forward_flops(program.system, program), counted),
        counted_flops=counted,
        compiled_flops=float(analysis.get("flops", math.nan)),
        memory=_memory(compiled, shapes, program),
        collectives=tuple(collectives.of_program(text, program.mesh)),
        operations=tuple(estimates.of_program(text)),
    )


def _memory(compiled: Any, shapes: TrainState, program: Program) -> Memory:
    stats = compiled.memory_analysis()
    # The state is donated: what comes out lies where it was.
    beyond = stats.output_size_in_bytes - stats.alias_size_in_bytes
    return Memory(
        params=bytes_on_a_device(shapes.params),
        optimizer=bytes_on_a_device(shapes.opt_state),
        ema=bytes_on_a_device(shapes.ema) if shapes.ema is not None else 0.0,
        other=sum(
            map(bytes_on_a_device, (shapes.state, shapes.step, program.constants(True)))
        ),
        batch=bytes_on_a_device(program.batches()),
        temporary=float(stats.temp_size_in_bytes + max(0, beyond)),
    )
