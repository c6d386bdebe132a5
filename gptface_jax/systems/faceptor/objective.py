"""What Faceptor's tasks learn from, jointly, and metrics of held-out pictures.

    total = sum_t alpha_t L_t / sum_t alpha_t,   a batch of every task in every step

(SPEC C.5, C.6). Pictures of one size go through the encoder together.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.core import perception_tasks, trees
from gptface_jax.nn.perception import (
    Perception,
    PerceptionConfig,
    normalised,
    prediction,
)
from gptface_jax.ops import heatmaps, losses, resampling

STATS = "batch_stats"
# (constants, pictures float [B,H,W,3] in [-1,1]) -> image tokens int [B,h,w].
Tokenise = Callable[[Any, jax.Array], jax.Array]
TRAINED = ("all", "stage2", "stage2_released")


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """Loss weights and options.

    Attributes:
      weights: alpha of each task; 1 where none is given.
      main: auxiliary supervised learning: the task for whose sake the others are
        learnt; "" for none.
      main_share: of all weight, what the main task gets.
      stage: 1, or 2 with the new levels.
      trained: "all"; "stage2", the new levels and the queries of the tasks that have
        data; or "stage2_released", the new levels alone, as the released code does.
      heatmap_side: of the target of landmarks; 0 for that of the maps.
      heatmap_radius: of its blobs, in cells.
      cosface_scale, cosface_margin: of recognition.
    """

    weights: Mapping[str, float] = dataclasses.field(default_factory=dict)
    main: str = ""
    main_share: float = 0.5
    stage: int = 1
    trained: str = "all"
    heatmap_side: int = 0
    heatmap_radius: float = 5.0
    cosface_scale: float = 64.0
    cosface_margin: float = 0.4

    def __post_init__(self):
        if self.trained not in TRAINED:
            raise ValueError(f"trained {self.trained!r} is none of {TRAINED}")
        if self.stage == 1 and self.trained != "all":
            raise ValueError(f"trained is {self.trained!r}; that is of stage 2")
        if not 0 < self.main_share < 1:
            raise ValueError(f"main_share is {self.main_share}; use 0 to 1")

    def shares(self, tasks: Sequence[str]) -> dict[str, float]:
        """Part of each task in the loss; together 1.

        Raises:
          ValueError: a weight of a task that is not trained, or a negative one.
        """
        unknown = {*self.weights, *([self.main] if self.main else [])} - {*tasks}
        if unknown:
            raise ValueError(
                f"weights or main name {min(unknown)!r}, which has no batch_size; "
                f"trained are {', '.join(tasks)}"
            )
        alpha = {task: float(self.weights.get(task, 1.0)) for task in tasks}
        if min(alpha.values()) < 0 or not sum(alpha.values()):
            raise ValueError(f"weights are {alpha}; use 0 or more, and not all 0")
        if self.main and len(tasks) > 1:
            rest = sum(a for task, a in alpha.items() if task != self.main)
            scale = (1 - self.main_share) / max(rest, 1e-9)
            alpha = {task: scale * a for task, a in alpha.items()}
            alpha[self.main] = self.main_share
        total = sum(alpha.values())
        return {task: a / total for task, a in alpha.items()}

    def trainable(self, tasks: Sequence[str]) -> str:
        """Regex of the parameters that are trained."""
        queries = "|".join(f"queries_{task}/" for task in tasks)
        return {
            # Not what released files hold and no output depends on.
            "all": r"^(?!backbone/output_)",
            "stage2": rf"^decoder/(new_|{queries})",
            "stage2_released": r"^decoder/new_",
        }[self.trained]


def label_spec(config: PerceptionConfig, task: str, side: int) -> dict[str, Any]:
    """Spec of an example of a task's feed, with pictures `side` pixels wide.

    "image" float32 in [-1,1]; "label": an identity or expression int32, an age float32
    in years, attributes float32 [Q] (1, 0, or -1 unknown), classes uint8 [side,side]
    (255: does not count), or points float32 [Q,2], shares of the sides (NaN unknown);
    "weight" float32, 0 of an example without a label.
    """
    entry = config.task(task)
    shape, dtype = {
        "recog": ((), jnp.int32),
        "affect": ((), jnp.int32),
        "age": ((), jnp.float32),
        "biattr": ((entry.queries,), jnp.float32),
        "parsing": ((side, side), jnp.uint8),
        "align": ((entry.queries, 2), jnp.float32),
    }[entry.family]
    return {
        "image": jax.ShapeDtypeStruct((side, side, 3), jnp.float32),
        "label": jax.ShapeDtypeStruct(shape, dtype),
        "weight": jax.ShapeDtypeStruct((), jnp.float32),
    }


def forward(
    module: Perception,
    variables: Mapping[str, Any],
    images: Mapping[str, jax.Array],
    stage: int,
    key: jax.Array | None = None,
    tokenise: Callable[[jax.Array], jax.Array] | None = None,
) -> tuple[dict[str, jax.Array], Any]:
    """Raw outputs of every task for its own pictures, and the new batch statistics.

    Args:
      module: the network.
      variables: its parameters and statistics.
      images: task -> float [B,H,W,3] in [-1,1]; one array may serve several tasks.
      stage: 1 or 2.
      key: of training; None for evaluation.
      tokenise: pictures to image tokens, for the encoder "tokens".

    Returns:
      ({task: see `Perception.read`}, {"batch_stats": ...} as it is now).
    """
    config, train = module.config, key is not None
    statistics = variables.get(STATS, {})
    params = variables["params"]

    def run(*args, name, **options):
        """One method; statistics go on from the last."""
        nonlocal statistics
        rngs = {"dropout": trees.stream(key, name)} if train else None
        found, changed = module.apply(
            {"params": params, STATS: statistics}, *args, **options,
            train=train, rngs=rngs, mutable=[STATS] if train else [],
        )  # fmt: skip
        statistics = changed.get(STATS, statistics)
        return found

    groups: dict[tuple[int, ...], dict[Any, list[str]]] = {}
    for task, image in images.items():
        # Pictures that are the very same array are encoded once.
        same = id(image), config.pixels == "unit" or config.task(task).dense
        groups.setdefault(image.shape[1:], {}).setdefault(same, []).append(task)
    raw = {}
    for shape, group in groups.items():
        parts = []
        for tasks in group.values():
            image = images[tasks[0]]
            ready = tokenise(image) if tokenise else normalised(config, tasks[0], image)
            parts.append(ready)
        asked = tuple(task for tasks in group.values() for task in tasks)
        levels = config.levels(asked, stage)
        together = jnp.concatenate(parts) if len(parts) > 1 else parts[0]
        maps = run(together, levels, method="encode", name=f"encoder_{shape}")
        ends = [*itertools.accumulate(len(x) for x in parts)]
        rows = {
            task: slice(end - len(part), end)
            for tasks, part, end in zip(group.values(), parts, ends)
            for task in tasks
        }
        named = f"decoder_{shape}"
        raw |= run(maps, asked, stage, rows=rows, method="read", name=named)
    return {task: raw[task] for task in images}, {STATS: statistics}


def terms(
    config: PerceptionConfig,
    objective: ObjectiveConfig,
    params: Any,
    task: str,
    raw: jax.Array,
    label: jax.Array,
) -> dict[str, jax.Array]:
    """Parts of a task's loss, {name: float32 [B]}; the loss is their sum."""
    kind = perception_tasks.family(task).loss
    if kind == "cosface":
        margins = objective.cosface_scale, objective.cosface_margin
        classifier = params[f"classifier_{task}"]
        return {"cosface": losses.cosface(raw, classifier, label, *margins)}
    if kind == "age":
        return dict(zip(("kl", "l1"), losses.age_terms(raw, label)))
    if kind == "binary":
        return {"binary": losses.binary_sum(raw, label)}
    if kind == "cross_entropy":
        known = jnp.maximum(label, 0)  # -1 has no weight
        return {"cross_entropy": losses.cross_entropy(raw, known)}
    if kind == "pixels":
        logits = resampling.resize(raw, label.shape[1:])
        return {"pixels": losses.pixel_cross_entropy(logits, label.astype(jnp.int32))}
    side = objective.heatmap_side or raw.shape[1]
    target = heatmaps.painted(label, (side, side), objective.heatmap_radius)
    points, logits = prediction(config, task, raw), resampling.resize(raw, (side, side))
    found = losses.landmark_terms(points, logits, target, label)
    return dict(zip(("points", "maps"), found))


def _summed(values: Mapping[str, jax.Array], weight: jax.Array) -> dict[str, Any]:
    """{name: (sum, count)} of values [B] and their sum "loss"."""
    values = {"loss": sum(values.values()), **values}
    return {name: losses.masked_sum(x, weight > 0) for name, x in values.items()}


def make_loss(
    module: Perception,
    objective: ObjectiveConfig,
    tasks: Sequence[str],
    tokenise: Tokenise | None = None,
):
    """The training loss of a phase with a feed of each task; see `core.types.LossFn`.

    Raises:
      ValueError: see `ObjectiveConfig.shares`.
    """
    shares = objective.shares(tasks)

    def loss_fn(params, state, constants, batches, key, step):
        del step
        encode = None if tokenise is None else lambda x: tokenise(constants, x)
        images = {task: batches[task]["image"] for task in tasks}
        variables = {"params": params, **state}
        raw, new = forward(module, variables, images, objective.stage, key, encode)
        total, metrics = 0.0, {}
        for task in tasks:
            label, weight = batches[task]["label"], batches[task]["weight"]
            given = module.config, objective, params, task, raw[task], label
            found = _summed(terms(*given), weight)
            total += shares[task] * losses.mean(found["loss"])
            metrics |= {f"{task}/{name}": pair for name, pair in found.items()}
        return total, ({**state, **new}, metrics)

    return loss_fn


def make_eval(
    module: Perception,
    objective: ObjectiveConfig,
    task: str,
    tokenise: Tokenise | None = None,
):
    """Held-out metrics of a task: its loss, and what its benchmark counts.

    Sums over sums are what they are of the whole set: "f1" of parsing is of all pixels
    of all foreground classes, "nme" the mean over faces.
    """
    config = module.config

    def eval_fn(params, state, constants, batch, key):
        del key
        encode = None if tokenise is None else lambda x: tokenise(constants, x)
        variables, images = {"params": params, **state}, {task: batch["image"]}
        raw, _ = forward(module, variables, images, objective.stage, None, encode)
        label, weight = batch["label"], batch["weight"]
        given = config, objective, params, task, raw[task], label
        metrics = _summed(terms(*given), weight)
        judged = _judged(config, task, raw[task], label)
        for name, (total, count) in judged.items():
            metrics[name] = jnp.sum(total * weight), jnp.sum(count * weight)
        return metrics

    return eval_fn


def _judged(config, task, raw, label) -> dict[str, tuple[Any, Any]]:
    """{metric: (sum, count)} [B] of a task's answers."""
    metric, one = perception_tasks.family(task).metric, jnp.ones(len(raw))
    if metric == "mae":
        away = jnp.abs(losses.expected_age(raw) - label)
        return {"mae": (away, one), "within_5": (away <= 5, one)}
    if metric == "accuracy" and raw.shape == label.shape:  # attributes
        known = label >= 0
        right = known & ((raw > 0) == (label > 0.5))
        return {"accuracy": (jnp.sum(right, -1), jnp.sum(known, -1))}
    if metric == "accuracy":
        return {"accuracy": (jnp.argmax(raw, -1) == label, one)}
    if metric == "f1":
        said = jnp.argmax(resampling.resize(raw, label.shape[1:]), -1)
        right = jnp.sum((said == label) & (label > 0) & (label < raw.shape[-1]), (1, 2))
        known = label < raw.shape[-1]
        marked = [jnp.sum((x > 0) & known, (1, 2)) for x in (said, label)]
        return {"f1": (2 * right, sum(marked))}
    if metric == "nme":
        scheme = perception_tasks.scheme(task, raw.shape[-1])
        if scheme not in perception_tasks.ENDS:
            return {}
        away = jnp.linalg.norm(prediction(config, task, raw) - label, axis=-1)
        left, right = perception_tasks.ENDS[scheme]["inter_ocular"]
        middles = [label[:, jnp.array(list(side))].mean(1) for side in (left, right)]
        apart = jnp.linalg.norm(middles[0] - middles[1], axis=-1)
        error = jnp.nanmean(away, -1) / apart
        known = jnp.isfinite(error)
        return {"nme": (jnp.where(known, error, 0.0), known)}
    return {}
