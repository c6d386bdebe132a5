"""Perception tasks judged on pictures whose truth is known (SPEC C.8)."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tqdm

from gptface_jax.core import perception_tasks
from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data.perception_examples import (
    NAMES,
    PerceptionExample,
    answer_names,
)
from gptface_jax.data.record import Record
from gptface_jax.evaluate import perception
from gptface_jax.evaluate.perceived import Perceiver
from gptface_jax.nn.perception import prediction
from gptface_jax.pipelines import batching, rows
from gptface_jax.pipelines.perception import PerceptionModel
from gptface_jax.protocols import samples as samples_file
from gptface_jax.systems.faceptor import objective

_TOGETHER = 32
_SINGLE = ("affect", "age")  # families with single predictions
_FEWEST = 5  # pictures of each kind from which an attribute is judged
AUC_AT = 0.1  # inter-ocular, as WFLW and COFW have it
BOX_AUC_AT = 0.07  # by the root of the box's area, as AFLW has it


def evaluate(
    model: PerceptionModel,
    task: str,
    records: Sequence[Record],
    progress: bool = True,
    attributes: Sequence[str] = (),
    samples: list[dict[str, Any]] | None = None,
) -> dict[str, Any]:
    """Figures of a task on pictures of upright faces, taken as they are.

    Args:
      model: the networks.
      task: one of its tasks; of recognition see `verification`.
      records: with what the task asks for; others are left out.
      progress: show a bar.
      attributes: those that count, of a task of attributes; all, if none are named.
      samples: takes the prediction for each picture, of expressions and ages; see
        `protocols.folds`, and `check_tasks` first.

    Returns:
      "count", the pictures that were asked, and by the task's family: of landmarks see
      `_landmarks`; "f1" by class with "mean" and the "absent" classes; "mae",
      "within_5" and "epsilon"; "accuracy" and "balanced"; of attributes means of both
      over those with five pictures of either kind, "balanced_by_attribute", and
      "too_few", the names of the others. "intervals", of "mae", "accuracy" or the
      inter-ocular "nme": "low" and "high" of the 95 % interval over people.

    Raises:
      UserError: a task that cannot be asked, an attribute that there is not, or no
        picture with a label.
    """
    (task,) = model.chosen([task])
    check_attributes(attributes)
    entry, size = model.config.task(task), model.config.resolution(task)
    examples = PerceptionExample(task, entry.queries, size, boxes=True)
    named = samples is not None
    answers = _answers(model, task, examples, records, progress, named)
    if entry.family == "parsing":  # the maps of many pictures would fill the memory
        count, found = _parsing(task, entry, answers)
    else:
        count, found = _others(task, entry, answers, attributes, samples)
    if not count:
        raise UserError(
            f"none of the {len(records)} pictures says what task '{task}' asks for"
        )
    return {"count": count, **found}


def _others(task, entry, answers, attributes, samples) -> tuple[int, dict[str, Any]]:
    """Number of pictures, and figures of all answers together; see `evaluate`."""
    kept, said = [], []
    for some, answer in answers:
        kept += some
        said.append(answer)
    if not kept:
        return 0, {}
    raw = np.concatenate(said)
    if samples is not None:
        samples += _samples(task, entry.family, kept, raw)
    labels, boxes = (np.stack([x[name] for x in kept]) for name in ("label", "box"))
    people = [x.get("person") for x in kept]
    judge = {
        "age": _ages,
        "affect": _expressions,
        "biattr": functools.partial(_attributes, asked=attributes),
        "align": functools.partial(_landmarks, boxes=boxes),
    }[entry.family]
    return len(kept), judge(task, entry, labels, raw, people)


def check_tasks(
    model: PerceptionModel, tasks: Sequence[str], samples: bool = False
) -> None:
    """Refuses tasks that cannot be judged, before any is.

    Args:
      model: that is asked.
      tasks: which are.
      samples: whether single predictions are wanted.

    Raises:
      UserError: no task, one that the model was not trained on, or one without single
        predictions.
    """
    if not tasks:
        raise UserError(
            f"the perception model {model.digest} has no task that can be asked; name "
            f"one by --task (it was trained on {', '.join(model.tasks) or 'none'})"
        )
    for task in tasks:
        family = task.partition("_")[0]
        if family == "recog" and task not in model.tasks:
            raise UserError(
                f"there is no task '{task}'{nearest(task, model.tasks)}; the model was "
                f"trained on {', '.join(model.tasks)}"
            )
        if family != "recog":
            model.chosen([task])
        if samples and family not in _SINGLE:
            raise UserError(
                f"single predictions are of expressions and ages, and task '{task}' is "
                "of neither; name others by --task"
            )


def _samples(task, family, kept, raw) -> list[dict[str, Any]]:
    names = NAMES["seven"]
    if family == "affect":
        said = [names[c] for c in np.argmax(raw, -1)]
        truth = [names[int(x["label"])] for x in kept]
    else:
        said = perception.expected_ages(raw).tolist()
        truth = [float(x["label"]) for x in kept]
    return [
        {"task": task, **x["named"], "truth": t, "said": s}
        for x, t, s in zip(kept, truth, said)
    ]


def check_attributes(names: Sequence[str]) -> None:
    """Refuses an attribute that no task asks for.

    Raises:
      UserError: there is one.
    """
    known = NAMES["celeba"]
    for name in names:
        if name not in known:
            raise UserError(
                f"no task asks for '{name}'{nearest(name, known)}; the attributes are "
                + ", ".join(known)
            )


def _answers(model, task, examples, records, progress, named):
    """Batches of (examples with a label, without pictures; what is said of them).

    With `named` an example has what tells its picture apart, see `samples.named`.
    """
    rng = np.random.default_rng(0)
    run = jax.jit(lambda v, x: _read(model, task, v, x))
    waiting: list[dict] = []

    def said():
        images = np.stack([example.pop("image") for example in waiting])
        return batching.run(lambda x: run(model.variables, x), [images], _TOGETHER)

    for record in tqdm.tqdm(records, unit="image", disable=not progress):
        example = examples(record, rng)
        if example["weight"] > 0:
            more = {"named": samples_file.named(record)} if named else {}
            waiting.append({**example, **more, "person": record.identity})
        if len(waiting) == _TOGETHER:
            yield waiting, said()
            waiting = []
    if waiting:
        yield waiting, said()


def _read(model: PerceptionModel, task: str, variables, images):
    """Predictions as metrics take them: classes, points, embeddings, logits."""
    config = model.config
    raw, _ = objective.forward(
        model.module, variables, {task: images}, model.stages[task], None,
        model.tokenise,
    )  # fmt: skip
    answer = prediction(config, task, raw[task])
    if config.task(task).output == "parsing":
        return jnp.argmax(answer, -1).astype(np.uint8)
    return answer


def _interval(values: np.ndarray, people: Sequence[Any]) -> dict[str, float]:
    """{"low", "high"}: the 95 % interval of the mean of the means of columns.

    Args:
      values: [N] or [N,C] of pictures; those that are NaN do not count.
      people: [N], whose pictures they are; None of a picture of its own.
    """
    values = np.float64(values).reshape(len(people), -1)
    known = np.isfinite(values)
    counted = np.flatnonzero(known.any(1))
    who = [("picture", i) if people[i] is None else people[i] for i in counted]
    numbers = {person: i for i, person in enumerate(dict.fromkeys(who))}
    rows = [numbers[person] for person in who]
    sums, counts = np.zeros((2, len(numbers), values.shape[1]))
    np.add.at(sums, rows, np.where(known, values, 0)[counted])
    np.add.at(counts, rows, known[counted])

    def mean(sums, counts):
        with np.errstate(invalid="ignore"):
            return np.nanmean(sums / counts, -1)

    _, low, high = perception.with_interval(mean, sums, counts)
    return {"low": low, "high": high}


def _ages(task, entry, labels, raw, people):
    said = perception.expected_ages(raw)
    away = np.abs(said - labels)
    return {
        **perception.ages(said, labels),
        "intervals": {"mae": _interval(away, people)},
    }


def _expressions(task, entry, labels, raw, people):
    names = NAMES["seven"]
    said = np.argmax(raw, -1)
    return {
        "intervals": {"accuracy": _interval(said == labels, people)},
        "accuracy": perception.accuracy(raw, labels),
        "balanced": perception.balanced_classes(raw, labels),
        "right": {
            names[c]: f"{int((said[labels == c] == c).sum())}/{(labels == c).sum()}"
            for c in np.unique(labels)
        },
    }


def _attributes(task, entry, labels, raw, people, asked):
    found = perception.attributes(raw, labels)
    names = NAMES["celeba"]
    counts = np.isin(names, asked or names)
    rare = np.minimum((labels == 1).sum(0), (labels == 0).sum(0)) < _FEWEST
    enough = counts & ~rare
    chosen = {names[i]: float(found["balanced"][i]) for i in np.flatnonzero(enough)}
    accuracy = found["accuracy"][enough]
    right = np.where(labels < 0, np.nan, (raw > 0) == (labels == 1))[:, enough]
    return {
        "intervals": {"accuracy": _interval(right, people)} if enough.any() else {},
        "accuracy": float(accuracy.mean()) if len(accuracy) else None,
        "balanced": float(np.mean([*chosen.values()])) if chosen else None,
        "balanced_by_attribute": chosen,
        "too_few": [names[i] for i in np.flatnonzero(counts & rare)],
    }


def _parsing(task, entry, answers):
    """Number of pictures, and figures of one confusion matrix of all."""
    count, matrix = 0, np.zeros((entry.queries,) * 2, np.int64)
    for some, said in answers:
        for example, classes in zip(some, said):
            matrix += perception.confusion(example["label"], classes, entry.queries)
        count += len(some)
    found = perception.parsing(matrix)
    names = answer_names(task, entry.queries)
    return count, {
        "mean": found.mean,
        "f1": {n: float(x) for n, x in zip(names, found.f1) if np.isfinite(x)},
        "absent": [names[i] for i in found.absent],
    }


def _landmarks(task, entry, labels, raw, people, boxes):
    """Figures of points; a picture counts for a normaliser that it has.

    Returns:
      "nme" and "judged", the pictures that count, by normaliser; "median", "auc" and
      "failures" at 0.1 inter-ocular; "box_auc" and "box_failures" at 0.07 by the box;
      "boxes", the pictures with a box of their own, which in others is that of their
      points. None where no picture counts. "intervals", see `evaluate`.
    """
    scheme = perception_tasks.scheme(task, entry.queries)
    if scheme not in perception_tasks.ENDS:
        away = np.linalg.norm(raw - labels, axis=-1)
        return {"distance": float(np.nanmean(away))}
    around = perception.face_boxes(labels, boxes)
    errors, intervals = {}, {}
    for name, length in perception.landmark_normalisers(labels, scheme, around).items():
        error = perception.landmark_error(raw, labels, length)
        errors[name] = error[np.isfinite(error)]
        if name == "inter_ocular" and len(errors[name]):
            intervals["nme"] = _interval(error, people)
    ocular = errors["inter_ocular"]
    area, failures = _curve(ocular, AUC_AT)
    box_area, box_failures = _curve(errors["box"], BOX_AUC_AT)
    return {
        "nme": {n: float(x.mean()) if len(x) else None for n, x in errors.items()},
        "judged": {name: len(x) for name, x in errors.items()},
        "median": float(np.median(ocular)) if len(ocular) else None,
        "auc": area,
        "failures": failures,
        "box_auc": box_area,
        "box_failures": box_failures,
        "boxes": int(np.isfinite(boxes).all(-1).sum()),
        "intervals": intervals,
    }


def _curve(errors, limit):
    return perception.cumulative(errors, limit) if len(errors) else (None, None)


def perceived_by(model: PerceptionModel) -> Perceiver:
    """What a perception model says of parts and points, as evaluation reads it.

    Raises:
      UserError: it says neither.
    """
    tasks, classes, points = [], (), ""
    for task in model.chosen():
        entry = model.config.task(task)
        scheme = perception_tasks.scheme(task, entry.queries)
        if entry.family == "parsing":
            classes = answer_names(task, entry.queries)
        elif scheme in perception_tasks.ENDS:
            points = scheme
        else:
            continue
        tasks.append(task)
    if not tasks:
        raise UserError(
            f"the perception model {model.digest} tells neither parts nor landmarks; "
            f"give one that does (this one has {', '.join(model.chosen()) or 'none'})"
        )

    def read(photos: np.ndarray) -> dict[str, np.ndarray]:
        (found,) = rows.answer([model.look(list(photos), tasks)], _TOGETHER)
        return {name: x for parts in found.values() for name, x in parts.items()}

    return Perceiver(read, classes, points)


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
    several = [numbers for numbers in people.values() if len(numbers) > 1]
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
