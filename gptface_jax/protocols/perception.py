"""Perception tasks judged on pictures whose truth is known (SPEC C.8)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from gptface_jax.core import perception_tasks
from gptface_jax.core.errors import UserError
from gptface_jax.data.perception_examples import NAMES, PerceptionExample
from gptface_jax.data.record import Record
from gptface_jax.evaluate import perception
from gptface_jax.nn.perception import prediction
from gptface_jax.pipelines import batching
from gptface_jax.pipelines.perception import PerceptionModel
from gptface_jax.systems.faceptor import objective

_TOGETHER = 32
_FEWEST = 5  # pictures of each kind from which an attribute is judged
AUC_AT = 0.1  # inter-ocular, as WFLW and COFW have it


def evaluate(
    model: PerceptionModel,
    task: str,
    records: Sequence[Record],
    progress: bool = True,
) -> dict[str, Any]:
    """Figures of a task on pictures of upright faces, taken as they are.

    Args:
      model: the networks.
      task: one of its tasks; of recognition see `verification`.
      records: with what the task asks for; others are left out.
      progress: show a bar.

    Returns:
      "count", the pictures that were judged, and by the task's family: "nme" by
      normaliser with "median", "auc" and "failures" at 0.1 inter-ocular; "f1" by class
      with "mean" and the "absent" classes; "mae", "within_5" and "epsilon"; "accuracy"
      and "balanced"; of attributes means of both over those with five pictures of
      either kind, and "balanced_by_attribute".

    Raises:
      UserError: a task that cannot be asked, or no picture with a label.
    """
    (task,) = model.chosen([task])
    entry = model.config.task(task)
    examples = PerceptionExample(task, entry.queries, model.config.resolution(task))
    kept, raw = _answers(model, task, examples, records, progress)
    if not kept:
        raise UserError(
            f"none of the {len(records)} pictures says what task '{task}' asks for"
        )
    labels = np.stack(kept)
    judge = {
        "age": _ages,
        "affect": _expressions,
        "biattr": _attributes,
        "parsing": _parsing,
        "align": _landmarks,
    }[entry.family]
    return {"count": len(kept), **judge(task, entry, labels, raw)}


def _answers(model, task, examples, records, progress):
    """(labels of the records that have one, what the network says of them)."""
    rng, kept, said = np.random.default_rng(0), [], []
    run = jax.jit(lambda v, x: _read(model, task, v, x))
    bar = tqdm.tqdm(records, unit="image", disable=not progress)
    waiting: list[dict] = []

    def flush():
        images = np.stack([example["image"] for example in waiting])
        answer = batching.run(lambda x: run(model.variables, x), [images], _TOGETHER)
        said.append(answer)
        kept.extend(example["label"] for example in waiting)
        waiting.clear()

    for record in bar:
        example = examples(record, rng)
        if example["weight"] > 0:
            waiting.append(example)
        if len(waiting) == _TOGETHER:
            flush()
    if waiting:
        flush()
    return kept, np.concatenate(said) if said else None


def _read(model: PerceptionModel, task: str, variables, images):
    """Predictions as metrics take them: classes, points, embeddings, logits."""
    config = model.config
    raw, _ = objective.forward(
        model.module, variables, {task: images}, config.last_stage, None,
        model.tokenise,
    )  # fmt: skip
    answer = prediction(config, task, raw[task])
    if config.task(task).output == "parsing":
        return jnp.argmax(answer, -1).astype(np.uint8)
    return answer


def _ages(task, entry, labels, raw):
    return perception.ages(perception.expected_ages(raw), labels)


def _expressions(task, entry, labels, raw):
    names = NAMES["seven"]
    said = np.argmax(raw, -1)
    return {
        "accuracy": perception.accuracy(raw, labels),
        "balanced": perception.balanced_classes(raw, labels),
        "right": {
            names[c]: f"{int((said[labels == c] == c).sum())}/{(labels == c).sum()}"
            for c in np.unique(labels)
        },
    }


def _attributes(task, entry, labels, raw):
    found = perception.attributes(raw, labels)
    enough = ((labels == 1).sum(0) >= _FEWEST) & ((labels == 0).sum(0) >= _FEWEST)
    names = NAMES["celeba"]
    chosen = {names[i]: float(found["balanced"][i]) for i in np.flatnonzero(enough)}
    accuracy = found["accuracy"][enough]
    return {
        "accuracy": float(accuracy.mean()) if len(accuracy) else None,
        "balanced": float(np.mean([*chosen.values()])) if chosen else None,
        "balanced_by_attribute": chosen,
    }


def _parsing(task, entry, labels, raw):
    matrix = np.zeros((entry.queries,) * 2, np.int64)
    for target, said in zip(labels, raw):
        matrix += perception.confusion(target, said, entry.queries)
    found = perception.parsing(matrix)
    names = NAMES.get(perception_tasks.scheme(task, entry.queries), ())
    names = names or tuple(map(str, range(entry.queries)))
    return {
        "mean": found.mean,
        "f1": {n: float(x) for n, x in zip(names, found.f1) if np.isfinite(x)},
        "absent": [names[i] for i in found.absent],
    }


def _landmarks(task, entry, labels, raw):
    scheme = perception_tasks.scheme(task, entry.queries)
    if scheme not in perception_tasks.ENDS:
        away = np.linalg.norm(raw - labels, axis=-1)
        return {"distance": float(np.nanmean(away))}
    by = perception.landmark_normalisers(labels, scheme)
    errors = {name: perception.landmark_error(raw, labels, n) for name, n in by.items()}
    ocular = errors["inter_ocular"]
    area, failures = perception.cumulative(ocular, AUC_AT)
    return {
        "nme": {name: float(x.mean()) for name, x in errors.items()},
        "median": float(np.median(ocular)),
        "auc": area,
        "failures": failures,
    }


def verification(
    model: PerceptionModel,
    task: str,
    records: Sequence[Record],
    pairs: int = 500,
    seed: int = 0,
) -> dict[str, float]:
    """How well a recognition task tells whether two drawn faces are one person's.

    Only of drawn faces: nothing here compares people.

    Args:
      model: the networks.
      task: of the family "recog".
      records: drawn faces with identities.
      pairs: half of them of one person.
      seed: of the choice.

    Returns:
      "accuracy" and "deviation" over ten folds, and the number of "pairs".

    Raises:
      UserError: pictures that are not drawn, or too few of one person.
    """
    if any(record.source != "synthetic" for record in records):
        raise UserError(
            "recognition is judged on drawn faces only (--images synthetic)"
        )
    people: dict[Any, list[int]] = {}
    for number, record in enumerate(records):
        people.setdefault(record.identity, []).append(number)
    several = [rows for rows in people.values() if len(rows) > 1]
    if len(several) < 2 or pairs < 20:
        raise UserError("verification needs two people with two pictures, and 20 pairs")
    rng = np.random.default_rng(seed)
    chosen, same = [], []
    for i in range(pairs):
        first = several[rng.integers(len(several))]
        if i % 2:
            chosen += list(rng.choice(first, 2, replace=False))
        else:
            other = several[rng.integers(len(several))]
            while other is first:
                other = several[rng.integers(len(several))]
            chosen += [rng.choice(first), rng.choice(other)]
        same.append(bool(i % 2))
    size = model.config.resolution(task)
    examples = PerceptionExample(task, 0, size)
    images = np.stack([examples(records[int(i)], rng)["image"] for i in chosen])
    run = jax.jit(lambda x: _read(model, task, model.variables, x))
    plain, mirrored = (
        batching.run(run, [np.ascontiguousarray(x)], _TOGETHER)
        for x in (images, images[:, :, ::-1])
    )
    found = perception.verification(plain, mirrored, np.array(same))
    return {
        "accuracy": float(found.accuracy.mean()),
        "deviation": float(found.accuracy.std()),
        "pairs": pairs,
    }
