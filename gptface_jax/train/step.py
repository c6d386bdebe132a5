"""One training step, one jit: every phase's gradient and update in order.

A phase's update is applied only while every metric of the step so far is finite;
otherwise the parameters pass through unchanged and the loop stops the run when it
reads the metrics.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gptface_jax.core import trees, types
from gptface_jax.train import sharding
from gptface_jax.train.metrics import Packer
from gptface_jax.train.state import TrainState, phase_key

Gradients = tuple[Any, Any, Any, types.Metrics]  # (loss, grads, state, metrics)


def prefix(phase: types.Phase) -> str:
    """Start of the phase's metric names: "" or "name/"."""
    return f"{phase.name}/" if phase.name else ""


def _weight(metrics: types.Metrics) -> Any:
    """Weight of a microbatch: what its loss was averaged over, else 1."""
    return jnp.float32(metrics["loss"][1] if "loss" in metrics else 1.0)


def _split(batches: types.Batches, parts: int, mesh: Mesh, rules) -> types.Batches:
    """Microbatches [parts, B / parts, ...] of [B, ...], each example on its device.

    Microbatch i has every `parts`-th example: cut into contiguous parts, each would lie
    on a share of the devices and the others would wait.
    """
    where = NamedSharding(mesh, PartitionSpec(None, rules["batch"]))

    def split(x):
        x = x.reshape(x.shape[0] // parts, parts, *x.shape[1:]).swapaxes(0, 1)
        return jax.lax.with_sharding_constraint(x, where)

    return jax.tree.map(split, dict(batches))


def phase_gradients(
    phase: types.Phase,
    params,
    state,
    constants,
    batches,
    key,
    step,
    microbatches: int = 1,
) -> Gradients:
    """Loss, gradient of the phase's own parameters, new state and metrics.

    Args:
      batches: of every feed [B, ...] arrays, or [microbatches, B / microbatches, ...]
        when `microbatches` > 1. Microbatches are weighted by the count of the
        phase's metric "loss", so that a loss that is one sum over one count has
        exactly the gradient of the whole batch; without that metric they weigh
        the same, which is exact for means over the examples of each feed.
    """
    chosen, fixed = trees.split(params, phase.trainable)

    def loss_fn(trainable, state, batches, key):
        merged = trees.merge(trainable, fixed)
        return phase.loss(merged, state, constants, batches, key, step)

    value_and_grad = jax.value_and_grad(loss_fn, has_aux=True)

    def gradients(state, batches, key):
        (loss, (state, metrics)), grads = value_and_grad(chosen, state, batches, key)
        return jnp.float32(loss), grads, state, jax.tree.map(jnp.float32, dict(metrics))

    if microbatches == 1:
        return gradients(state, batches, key)

    def body(carry, inputs):
        loss, grads, state, metrics, total = carry
        index, batches = inputs
        key_i = jax.random.fold_in(key, index)
        loss_i, grads_i, state, metrics_i = gradients(state, batches, key_i)
        weight = _weight(metrics_i)
        add = lambda a, b: a + b  # noqa: E731
        grads = jax.tree.map(lambda a, b: a + weight * b, grads, grads_i)
        metrics = jax.tree.map(add, metrics, metrics_i)
        return (loss + weight * loss_i, grads, state, metrics, total + weight), None

    # Shapes of the sums, without computing a microbatch for them.
    first = jax.tree.map(lambda x: x[0], batches)
    shapes = jax.eval_shape(gradients, state, first, key)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    carry = (zeros[0], zeros[1], state, zeros[3], jnp.float32(0))
    inputs = (jnp.arange(microbatches), batches)
    (loss, grads, state, metrics, total), _ = jax.lax.scan(body, carry, inputs)
    # A batch in which nothing counted has gradients of 0, not NaN.
    total = jnp.where(total > 0, total, 1.0)
    return loss / total, jax.tree.map(lambda g: g / total, grads), state, metrics


def make_step(
    system: types.System,
    optimizers: Mapping[str, optax.GradientTransformation],
    logged: Mapping[str, Callable],
    shardings: TrainState,
    mesh: Mesh,
    *,
    seed: int,
    grad_accum: int = 1,
    ema_decay: float = 0.0,
    skip_bad: bool = False,
    rules: sharding.Rules = sharding.RULES,
) -> tuple[Callable, Packer]:
    """The jitted training step, and what unpacks its metrics.

    A batch that gives something that is not finite leaves the state as it was; with
    `skip_bad` the step counts all the same.

    Args:
      system, optimizers: what is trained, and phase key -> optax transformation.
      logged: phase key -> ({path: gradient}, step) -> {name: scalar} to log.
      shardings, mesh, rules: where everything lies.
      seed, grad_accum, ema_decay: as in `train.settings`.

    Returns:
      (step function, packer): (state, constants, batches) -> (state, packed metrics
      float32 [names, 2]); the state is donated, the packer unpacks. Every phase adds
      `loss`, `grad_norm` (before clipping) and what `logged` gives to the metrics of
      its loss.
    """
    packer = Packer()
    post_update = system.post_update

    def train_step(train_state: TrainState, constants, batches):
        step = train_state.step
        key = jax.random.fold_in(trees.stream(jax.random.key(seed), "train"), step)
        if grad_accum > 1:
            batches = _split(batches, grad_accum, mesh, rules)
        (params, opt_state, state), metrics, healthy = _all_phases(
            system, optimizers, logged, train_state, constants, batches, key, grad_accum
        )
        if post_update is not None:
            last = trees.stream(key, "post_update")
            params, state = post_update(params, state, last, step)
        ema = _average(train_state.ema, params, ema_decay, step)
        new = TrainState(step + 1, params, opt_state, state, ema)
        old = train_state.replace(step=step + 1) if skip_bad else train_state
        # All or nothing: NaN would stay in parameters for good, and one phase without
        # the others is a step that nobody meant.
        new = jax.tree.map(lambda n, o: jnp.where(healthy, n, o), new, old)
        return new, packer.pack(metrics)

    everywhere = sharding.replicated(mesh)
    placed = (shardings, everywhere, sharding.batch_sharding(mesh, rules))
    out = (shardings, everywhere)
    jitted = jax.jit(
        train_step, in_shardings=placed, out_shardings=out, donate_argnums=0
    )
    return jitted, packer


def _all_phases(
    system: types.System,
    optimizers: Mapping[str, optax.GradientTransformation],
    logged: Mapping[str, Callable],
    train_state: TrainState,
    constants,
    batches: types.Batches,
    key: jax.Array,
    grad_accum: int,
) -> tuple[tuple[Any, dict[str, Any], Any], types.Metrics, jax.Array]:
    """((params, opt_state, state), metrics, whether all is finite) after all phases."""
    params, state = train_state.params, train_state.state
    opt_state, metrics, healthy = {}, {}, jnp.bool_(True)
    # In order: a phase sees the parameters and the state that the one before left.
    for phase in system.phases:
        name = phase_key(phase)
        before = params, train_state.opt_state[name], state
        healthy, after, found = _phase_update(
            phase, optimizers[name], logged[name], before, healthy, constants, batches,
            trees.stream(key, name), train_state.step, grad_accum,
        )  # fmt: skip
        params, opt_state[name], state = after
        metrics |= found
    return (params, opt_state, state), metrics, healthy


def _phase_update(
    phase: types.Phase,
    tx: optax.GradientTransformation,
    logged: Callable,
    before: tuple[Any, Any, Any],
    healthy: jax.Array,
    constants,
    batches: types.Batches,
    key: jax.Array,
    step: jax.Array,
    grad_accum: int,
) -> tuple[jax.Array, tuple[Any, Any, Any], types.Metrics]:
    """One phase of a step.

    Args:
      phase, tx, logged: the phase, its optimizer, what else it logs.
      before: (params, opt_state of the phase, state).
      healthy: bool scalar, whether every metric of the step so far is finite.
      constants, batches, key, step, grad_accum: see `phase_gradients`.

    Returns:
      (whether all is finite still, what `before` became, metrics with the phase's
      prefix).
    """
    params, opt_state, state = before
    loss, grads, new_state, parts = phase_gradients(
        phase, params, state, constants, batches, key, step, grad_accum
    )
    grad_norm = optax.global_norm(grads)
    watched = [loss, grad_norm, *(total for total, _ in parts.values())]
    healthy &= jnp.isfinite(jnp.stack(watched)).all()
    applied = _apply(tx, phase, params, grads, opt_state)
    if phase.learns:
        learns = parts[phase.learns][0] > 0
        applied = _paused(applied, (params, opt_state), learns)
    after = (*applied, new_state)
    start = prefix(phase)
    metrics = {start + name: value for name, value in parts.items()}
    metrics.setdefault(f"{start}loss", (loss, 1.0))
    metrics[f"{start}grad_norm"] = (grad_norm, 1.0)
    for name, value in logged(grads, step).items():
        metrics[start + name] = (value, 1.0)
    return healthy, after, metrics


def _apply(tx, phase, params, grads, opt_state):
    """(params, opt_state) after one optax update of the phase's parameters."""
    chosen, fixed = trees.split(params, phase.trainable)
    nested = trees.unflatten(chosen)
    updates, opt_state = tx.update(trees.unflatten(grads), opt_state, nested)
    chosen = trees.flatten(optax.apply_updates(nested, updates))
    return trees.merge(chosen, fixed), opt_state


def _paused(new, old, learns: jax.Array):
    """The old parameters and optimizer state where a phase does not learn.

    The learning rate goes on in its schedule, which counts the steps of the run.
    """
    counts = optax.ScaleByScheduleState

    def chosen(new, old):
        if isinstance(new, counts):
            return new
        return jnp.where(learns, new, old)

    is_count = lambda x: isinstance(x, counts)  # noqa: E731
    return jax.tree.map(chosen, new, old, is_leaf=is_count)


def _average(ema, params, decay: float, step):
    """Exponential average; the decay starts low so that the start is forgotten."""
    if ema is None:
        return None
    # At step t the average spans about t / 9 steps, until `decay` spans fewer.
    rate = jnp.minimum(decay, (1.0 + step) / (10.0 + step))
    return jax.tree.map(
        lambda e, p: (rate * e + (1 - rate) * p).astype(e.dtype), ema, params
    )


def make_eval(
    name: str, metrics: types.EvalFn, seed: int, mesh: Mesh
) -> tuple[Callable, Packer]:
    """A jitted evaluation, and what unpacks its metrics.

    Returns:
      (function, packer): (params, state, constants, batch, index int) -> packed
      metrics. The key depends on the name and the index of the batch only, so that
      evaluations of different steps see the same randomness.
    """
    packer = Packer()

    def evaluate(params, state, constants, batch, index):
        key = jax.random.fold_in(trees.stream(jax.random.key(seed), "eval"), index)
        key = trees.stream(key, name)
        return packer.pack(dict(metrics(params, state, constants, batch, key)))

    return jax.jit(evaluate, out_shardings=sharding.replicated(mesh)), packer


def eval_names(metrics: Mapping[str, Iterable[str]]) -> dict[str, dict[str, str]]:
    """{evaluation: {metric: name in the log}} of {evaluation: its metrics}.

    Names are "eval/<metric>", or "eval/<evaluation>/<metric>" for a metric that several
    evaluations have.
    """
    owners = collections.Counter(name for own in metrics.values() for name in own)
    return {
        evaluation: {
            name: f"eval/{evaluation}/{name}" if owners[name] > 1 else f"eval/{name}"
            for name in own
        }
        for evaluation, own in metrics.items()
    }
