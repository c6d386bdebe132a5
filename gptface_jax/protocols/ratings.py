"""The papers' tables from ratings of people (SPEC A.12.3, B.10)."""

from __future__ import annotations

import collections
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.data import ratings
from gptface_jax.evaluate import ratings as metrics
from gptface_jax.evaluate import tagging
from gptface_jax.protocols import markdown

_SHOWN = ("quality", "agreement", "ndcg@5", "ndcg@10", "ndcg@20", "map")


def figures(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Means with bootstrap intervals over pictures, and agreement of raters.

    Args:
      rows: lines of `data.ratings`, each question of a rater once.

    Returns:
      {"edit": {system: {"quality", "agreement": {mean, low, high, pictures}}},
      "tag": {system: {"ndcg@5", ..., "linear_ndcg@5", ..., "map": the same}},
      "unfinished": photographs, times raters, of which not all words are rated,
      "raters": {answer: {alpha, raters, questions}}}.
      A photograph counts once, with the mean of what was said of its edits; a word's
      grade is the mean of its raters, as in SPEC A.12.3.
    """
    edits = [row for row in rows if row["kind"] == "edit"]
    tags = [row for row in rows if row["kind"] == "tag"]
    tagged, unfinished = _tags(tags)
    return {
        "edit": _edits(edits),
        "tag": tagged,
        "unfinished": unfinished,
        "raters": {
            name: _agreement(group, name)
            for group, kind in ((edits, "edit"), (tags, "tag"))
            for name in ratings.SCALES[kind]
            if any(name in row for row in group)
        },
    }


def _edits(rows) -> dict[str, dict[str, dict[str, float]]]:
    given: dict[tuple[str, str], dict[str, list[int]]] = {}
    for row in rows:
        for name in ratings.SCALES["edit"]:
            if name in row:
                items = given.setdefault(
                    (row["system"], name), collections.defaultdict(list)
                )
                items[row.get("photo") or row["item"]].append(row[name])
    found: dict[str, dict[str, dict[str, float]]] = {}
    for (system, name), items in sorted(given.items()):
        values = np.array([np.mean(items[item]) for item in sorted(items)])
        found.setdefault(system, {})[name] = _mean(values)
    return found


def _mean(values: np.ndarray) -> dict[str, float]:
    """Mean and interval over pictures [N]; NaN does not count."""
    values = values[~np.isnan(values)]
    low, high = metrics.interval(values)
    mean = float(values.mean()) if len(values) else float("nan")
    return {"mean": mean, "low": low, "high": high, "pictures": len(values)}


def _tags(rows) -> tuple[dict[str, dict[str, dict[str, float]]], int]:
    """Figures by system, and how many photographs of a rater are unfinished."""
    systems = sorted({name for row in rows for name in row["ranks"]})
    photos: dict[tuple[str, str], list[Mapping]] = collections.defaultdict(list)
    for row in rows:
        photos[row["item"], row["rater"]].append(row)
    finished: dict[str, list[Mapping]] = collections.defaultdict(list)
    unfinished = 0
    for (item, _), words in sorted(photos.items()):
        if len(words) == max(row["words"] for row in words):
            finished[item] += words
        else:
            unfinished += 1
    grades, rankings = [], {name: [] for name in systems}
    for words in finished.values():
        given: dict[str, list[int]] = collections.defaultdict(list)
        for row in words:
            given[row["word"]].append(row["grade"])
        grades.append({word: float(np.mean(all_)) for word, all_ in given.items()})
        for name in systems:
            rankings[name].append(_ranking(words, name))
    found = tagging.evaluate(rankings, grades)
    return {n: {m: _mean(x) for m, x in row.items()} for n, row in found.items()}, (
        unfinished
    )


def _ranking(words: Sequence[Mapping], system: str) -> list[str]:
    """The words that a system found of a photograph, best first."""
    own = {r["word"]: r["ranks"][system] for r in words if system in r["ranks"]}
    return sorted(own, key=own.__getitem__)


def _agreement(rows, name: str) -> dict[str, float]:
    """Krippendorff's alpha, ordinal, of one answer."""
    rows = [row for row in rows if name in row]
    raters = sorted({row["rater"] for row in rows})
    places = sorted({ratings.question_key(row) for row in rows})
    values = np.full((len(raters), len(places)), np.nan)
    for row in rows:
        values[raters.index(row["rater"]), places.index(ratings.question_key(row))] = (
            row[name]
        )
    several = int(((~np.isnan(values)).sum(axis=0) >= 2).sum())
    alpha = metrics.krippendorff_alpha(values) if several else float("nan")
    return {"alpha": alpha, "raters": len(raters), "questions": several}


def tables(found: Mapping[str, Any]) -> str:
    """Markdown: edits, tags and raters, as far as there are any."""
    parts = []
    for kind, scale, digits in (("edit", 1, 2), ("tag", 100, 1)):
        if not found[kind]:
            continue
        names = [n for n in _SHOWN if any(n in row for row in found[kind].values())]
        lines = [["system", "pictures", *names]]
        for system, row in found[kind].items():
            count = max(cell["pictures"] for cell in row.values())
            cells = [_cell(row.get(name), scale, digits) for name in names]
            lines.append([system, str(count), *cells])
        parts.append(markdown.table(lines))
    lines = [["answer", "raters", "questions of two or more", "Krippendorff's alpha"]]
    for name, row in found["raters"].items():
        lines.append(
            [name, str(row["raters"]), str(row["questions"]), f"{row['alpha']:.2f}"]
        )
    parts.append(markdown.table(lines))
    if found["unfinished"]:
        parts.append(
            f"left out: {found['unfinished']} times a rater has not rated all words of "
            "a photograph"
        )
    return "\n\n".join(parts)


def _cell(figure: Mapping[str, float] | None, scale: int, digits: int) -> str:
    if figure is None:
        return ""
    mean, low, high = (scale * figure[k] for k in ("mean", "low", "high"))
    if np.isnan(low):  # of one picture alone
        return f"{mean:.{digits}f}"
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"
