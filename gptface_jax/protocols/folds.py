"""Predictions of several folds put together, with intervals over people.

Rows are what `evaluate perception --samples` writes: {"task", "picture", "person",
"truth", "said"}, of expressions words and of ages years.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.evaluate import perception

Row = Mapping[str, Any]
_KEYS = ("task", "picture", "person", "truth", "said")


def read(paths: Sequence[str | os.PathLike]) -> list[Row]:
    """The rows of all files.

    Raises:
      UserError: a file that cannot be read, or a picture that two rows judge: folds
        hold each picture out once.
    """
    rows, seen = [], {}
    for path in map(pathlib.Path, paths):
        try:
            lines = path.read_text("utf-8").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UserError(f"'{path}' cannot be read ({error})") from None
        for number, line in enumerate(lines, 1):
            row = _row(line, path, number)
            key = row["task"], row["picture"]
            if key in seen:
                raise UserError(
                    f"'{path}' line {number}: picture {row['picture']} of task "
                    f"'{row['task']}' is in '{seen[key]}' as well; give each fold once"
                )
            seen[key] = path
            rows.append(row)
    if not rows:
        raise UserError("there is no prediction in " + ", ".join(map(str, paths)))
    return rows


def _row(line: str, path: pathlib.Path, number: int) -> Row:
    try:
        row = json.loads(line)
        if all(key in row for key in _KEYS):
            return row
    except (ValueError, TypeError):
        pass
    raise UserError(
        f"'{path}' line {number} is no prediction; give files that evaluate perception "
        "--samples wrote"
    )


def figures(
    rows: Sequence[Row], against: Sequence[Row] = ()
) -> dict[str, dict[str, Any]]:
    """Figures of each task over all pictures, with 95 % intervals over people.

    Args:
      rows: of `read`.
      against: predictions of another model of the same pictures; its tasks may have
        other names.

    Returns:
      Task -> "count", "people", and of expressions "accuracy" and "balanced", of ages
      "mae", each [value, low, high]; "majority" (the share of the most frequent
      expression) or "median" (the error of the median age said of all); "difference",
      of "balanced" or "mae", from the other model on the same resampled people.

    Raises:
      UserError: the other model judged other pictures.
    """
    found = {}
    others = {(_kind(row), row["picture"]): row for row in against}
    for task in dict.fromkeys(row["task"] for row in rows):
        mine = [row for row in rows if row["task"] == task]
        theirs = [others.get((_kind(row), row["picture"])) for row in mine]
        if against and None in theirs:
            raise UserError(
                f"{theirs.count(None)} of {len(mine)} pictures of task '{task}' are "
                "not judged by the other model; give the same folds of both"
            )
        of = _expressions if _kind(mine[0]) is str else _ages
        found[task] = of(mine, theirs if against else None)
    return found


def _kind(row: Row) -> type:
    """`str` of expressions, else `float`: what models may call differently."""
    return str if isinstance(row["truth"], str) else float


def _people(rows: Sequence[Row]) -> tuple[np.ndarray, int]:
    """Number of each row's person, int [N], and how many there are; a row without one
    is a person of its own."""
    names: dict[Any, int] = {}
    keys = [
        ("picture", row["picture"]) if row["person"] is None else row["person"]
        for row in rows
    ]
    return np.array([names.setdefault(key, len(names)) for key in keys]), len(names)


def _expressions(rows, theirs) -> dict[str, Any]:
    truth = [row["truth"] for row in rows]
    classes = list(dict.fromkeys(truth))
    number = np.array([classes.index(word) for word in truth])
    person, people = _people(rows)

    def tables(predictions):
        right = np.zeros((people, len(classes)))
        hits = [row["said"] == word for row, word in zip(predictions, truth)]
        np.add.at(right, (person, number), np.float64(hits))
        return right

    total = np.zeros((people, len(classes)))
    np.add.at(total, (person, number), 1.0)

    def accuracy(right, total):
        return right.sum(-1) / total.sum(-1)

    def balanced(right, total):
        with np.errstate(invalid="ignore"):
            return np.nanmean(right / total, -1)  # of classes that were drawn

    mine = tables(rows)
    found = {
        "count": len(rows),
        "people": people,
        "accuracy": perception.with_interval(accuracy, mine, total),
        "balanced": perception.with_interval(balanced, mine, total),
        "majority": Counter(truth).most_common(1)[0][1] / len(truth),
    }
    if theirs:
        other = tables(theirs)
        found["difference"] = perception.with_interval(
            lambda a, b, n: balanced(a, n) - balanced(b, n), mine, other, total
        )
    return found


def _ages(rows, theirs) -> dict[str, Any]:
    truth = np.array([row["truth"] for row in rows], float)
    person, people = _people(rows)

    def errors(predictions):
        away = np.abs(np.array([row["said"] for row in predictions], float) - truth)
        return np.bincount(person, away, people)[:, None]

    total = np.bincount(person, minlength=people)[:, None].astype(float)

    def mean(sums, total):
        return sums[..., 0] / total[..., 0]

    found = {
        "count": len(rows),
        "people": people,
        "mae": perception.with_interval(mean, errors(rows), total),
        "median": float(np.abs(truth - np.median(truth)).mean()),
    }
    if theirs:
        found["difference"] = perception.with_interval(
            lambda a, b, n: mean(a, n) - mean(b, n), errors(rows), errors(theirs), total
        )
    return found
