"""Few-shot probes: a small head on frozen features, or a whole network (SPEC A.11)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gptface_jax.evaluate import edits

# (params, inputs [B,...], key) -> logits [B,A]; key None: nothing is random.
Forward = Callable[[Any, jax.Array, jax.Array | None], jax.Array]
FEWEST = 10  # test pictures of either kind that an attribute's balanced accuracy needs


@dataclasses.dataclass(frozen=True)
class Training:
    """Settings of the training of a head.

    Attributes:
      peak_lr: of AdamW; it falls to 0 along a cosine.
      weight_decay: of AdamW.
      batch_size: most examples of an update; of few examples a 32nd, but at least 4.
      epochs: 0 = by the number of examples, see `epochs_for`.
      held_out: share of the labelled subset that chooses the epoch.
    """

    peak_lr: float = 1e-3
    weight_decay: float = 1e-5
    batch_size: int = 32
    epochs: int = 0
    held_out: float = 0.2


@dataclasses.dataclass(frozen=True)
class Examples:
    """Inputs and targets of training or of testing.

    Attributes:
      inputs: [N,...].
      labels: bool [N,A] of attributes, or int [N] of classes.
    """

    inputs: np.ndarray | jax.Array
    labels: np.ndarray


def pooled(states: Sequence[jax.Array], where: slice) -> jax.Array:
    """Three vectors of each layer: mean and maximum of the image positions, [CLS].

    Args:
      states: [B,L,D] of each layer, [CLS] first.
      where: the image positions.

    Returns:
      [B,3 * layers,D].
    """
    parts = []
    for x in states:
        image = x[:, where]
        parts += [jnp.mean(image, 1), jnp.max(image, 1), x[:, 0]]
    return jnp.stack(parts, 1)


def subset(count: int, fraction: float, seed: int) -> np.ndarray:
    """The labelled examples: a prefix of a permutation that only the seed decides.

    Returns:
      int [n] of 0..count-1; n is at least 2, for one of them is held out.
    """
    number = max(2, round(fraction * count))
    return np.random.default_rng(seed).permutation(count)[:number]


def carve(chosen: np.ndarray, share: float) -> tuple[np.ndarray, np.ndarray]:
    """A subset [...,n] split into what is learnt from and its last part, held out."""
    number = chosen.shape[-1]
    held = min(number - 1, max(1, round(share * number)))
    return chosen[..., :-held], chosen[..., -held:]


def epochs_for(count: int) -> int:
    """Number of epochs: 100 up to 300 examples, 20 from 1,500 on."""
    return min(100, max(20, 30_000 // count))


def loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy in nats, float32 [B]: sigmoid of attributes, softmax of classes."""
    if labels.ndim == 2:
        return jnp.mean(optax.sigmoid_binary_cross_entropy(logits, labels), -1)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


@functools.partial(jax.jit, static_argnames=("forward", "training"))
def fit(
    forward: Forward,
    training: Training,
    params: Any,
    inputs: jax.Array,
    labels: jax.Array,
    learnt: jax.Array,
    held_out: jax.Array,
    key: jax.Array,
) -> tuple[Any, jax.Array]:
    """Trains on some examples; those held out choose the epoch.

    Args:
      forward: the head, or a whole network.
      training: how.
      params: to start from.
      inputs, labels: of all `Examples`.
      learnt, held_out: int, which of them.
      key: of the order, and of whatever `forward` draws.

    Returns:
      (params of the epoch with the lowest held-out loss, that loss by epoch [E]).
    """
    epochs = training.epochs or epochs_for(len(learnt))
    size = min(training.batch_size, max(4, len(learnt) // 32), len(learnt))
    steps = len(learnt) // size
    schedule = optax.cosine_decay_schedule(training.peak_lr, epochs * steps)
    tx = optax.adamw(schedule, weight_decay=training.weight_decay)

    def update(carry, batch):
        params, opt_state = carry
        rows, key = batch

        def mean_loss(params):
            return jnp.mean(loss(forward(params, inputs[rows], key), labels[rows]))

        updates, opt_state = tx.update(jax.grad(mean_loss)(params), opt_state, params)
        return (optax.apply_updates(params, updates), opt_state), None

    def epoch(carry, key):
        learner, best, lowest = carry
        order, drawn = jax.random.split(key)
        rows = jax.random.permutation(order, learnt)[: steps * size]
        batches = rows.reshape(steps, size), jax.random.split(drawn, steps)
        learner, _ = jax.lax.scan(update, learner, batches)
        logits = predict(forward, learner[0], inputs[held_out])
        value = jnp.mean(loss(logits, labels[held_out]))
        best = jax.tree.map(
            lambda new, old: jnp.where(value < lowest, new, old), learner[0], best
        )
        return (learner, best, jnp.minimum(value, lowest)), value

    carry = (params, tx.init(params)), params, jnp.float32(jnp.inf)
    (_, best, _), values = jax.lax.scan(epoch, carry, jax.random.split(key, epochs))
    return best, values


@functools.partial(jax.jit, static_argnames="forward")
def predict(forward: Forward, params: Any, inputs: jax.Array) -> jax.Array:
    """Logits [N,A] of inputs [N,...], a part at a time."""

    def one(x):
        return forward(params, x[None], None)[0]

    return jax.lax.map(one, inputs, batch_size=256)


def learning_curve(
    forward: Forward,
    init: Callable[[jax.Array], Any],
    train: Examples,
    test: Examples,
    fractions: Sequence[float],
    seeds: Sequence[int],
    training: Training,
    *,
    together: bool = True,
) -> dict[float, list[dict[str, float]]]:
    """Trains on subsets of several sizes and tests on all of `test`.

    A seed decides the subsets, the start and the order.

    Args:
      forward: the head, or a whole network.
      init: key -> its parameters.
      train, test: the examples.
      fractions: of `train`.
      seeds: of the runs.
      training: how.
      together: all seeds in one program; else one after another.

    Returns:
      fraction -> `scores` by seed.
    """
    inputs, labels = jnp.asarray(train.inputs), jnp.asarray(train.labels)
    keys = jax.vmap(jax.random.key)(jnp.array(seeds))
    result = {}
    for fraction in fractions:
        chosen = np.stack([subset(len(labels), fraction, seed) for seed in seeds])
        parts = carve(chosen, training.held_out)

        def run(key, learnt, held_out):
            start, rest = jax.random.split(key)
            params, _ = fit(
                forward, training, init(start), inputs, labels, learnt, held_out, rest
            )
            return predict(forward, params, jnp.asarray(test.inputs))

        if together:
            logits = jax.vmap(run)(keys, *parts)
        else:
            logits = [run(*one) for one in zip(keys, *parts)]
        result[fraction] = [scores(np.asarray(x), test.labels) for x in logits]
    return result


def majority(
    train: Examples,
    test: Examples,
    fractions: Sequence[float],
    seeds: Sequence[int],
) -> dict[float, list[dict[str, float]]]:
    """The `learning_curve` of always saying the most common label of the subset."""
    result = {}
    for fraction in fractions:
        rows = []
        for seed in seeds:
            known = train.labels[subset(len(train.labels), fraction, seed)]
            if known.ndim == 2:
                said = 2 * known.mean(0) - 1
            else:
                said = np.bincount(known)
            logits = np.broadcast_to(said, (len(test.labels), len(said)))
            rows.append(scores(logits, test.labels))
        result[fraction] = rows
    return result


def scores(logits: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """Figures "accuracy" and "balanced_accuracy".

    Args:
      logits: [N,A]; an attribute is there above 0, of classes the highest counts.
      labels: bool [N,A] or int [N].

    Returns:
      accuracy: share of right answers, of attributes their mean. balanced_accuracy:
      mean of the classes' hit rates; of attributes the mean over those that `FEWEST`
      pictures have and as many have not. NaN where there is none.
    """
    if labels.ndim == 1:
        right = logits.argmax(-1) == labels
        hits = [right[labels == c].mean() for c in np.unique(labels)]
        balanced = float(np.mean(hits))
    else:
        said, right = logits > 0, (logits > 0) == labels
        chosen = balanced_attributes(labels)
        each = [edits.balanced_accuracy(said[:, i], labels[:, i]) for i in chosen]
        balanced = float(np.mean(each)) if each else float("nan")
    return {"accuracy": float(right.mean()), "balanced_accuracy": balanced}


def balanced_attributes(labels: np.ndarray) -> np.ndarray:
    """Columns, int, of bool [N,A] that a balanced accuracy is taken of."""
    present = labels.sum(0)
    return np.flatnonzero(np.minimum(present, len(labels) - present) >= FEWEST)


def summary(
    curves: Mapping[str, Mapping[float, Sequence[Mapping[str, float]]]],
) -> list[dict[str, Any]]:
    """Rows of {"backbone", "fraction", metric: mean, "metric_std": over seeds}."""
    rows = []
    for name, curve in curves.items():
        for fraction, runs in curve.items():
            row: dict[str, Any] = {"backbone": name, "fraction": fraction}
            for metric in runs[0]:
                values = [run[metric] for run in runs]
                row[metric] = float(np.mean(values))
                spread = np.std(values, ddof=1) if len(values) > 1 else 0.0
                row[f"{metric}_std"] = float(spread)
            rows.append(row)
    return rows
