"""Four tasks over the same records, captions and attributes both ways (SPEC B.7.3).

A fifth, "edit", draws a picture after another one and a sentence; its records come in
pairs. Each task has a source of its own, and one feed takes turns among all
(`composed.Interleaved`): row i of a batch is of task i mod 4. So a task draws only from
records that can serve it (expressions have no sentence), the shares of the data sets
hold within each task, and batches, also those of one process and those gradients are
accumulated over, are balanced exactly, from any step on.
"""

from __future__ import annotations

import itertools
import logging
import math
from collections.abc import Mapping, Sequence
from typing import Any

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import (
    age_tokens,
    composed,
    label_text,
    phrases,
    synthetic,
    tables,
)
from gptface_jax.data.label_text import DataSet
from gptface_jax.data.record import Record
from gptface_jax.data.transforms import CaptionOptions

log = logging.getLogger(__name__)

EDIT = "edit"
# Task -> its prompt; the number of a task is its place here.
PROMPTS = {
    "image_to_caption": "to caption",
    "caption_to_image": "to image",
    "image_to_attributes": "to attributes",
    "attributes_to_image": "to image",
    EDIT: "to edit",
}
# Behind the prompt of an answer that ends in a 3D head.
AND_HEAD = " and head"
TASKS = tuple(task for task in PROMPTS if task != EDIT)


def tasks_of(edits: bool) -> tuple[str, ...]:
    """The tasks of a run that learns to edit as well, or not."""
    return (*TASKS, EDIT) if edits else TASKS


def has_caption(record: Record, captions: CaptionOptions) -> bool:
    """Whether a sentence can be had that is about the picture."""
    if not (captions.from_labels and record.labels):
        return bool(record.text or record.texts)
    among = captions.attributes
    said = phrases.claims(record.labels)
    return any(not among or name in among for name, _ in said)


def has_attributes(record: Record, data_sets: Mapping[str, DataSet]) -> bool:
    """Whether a record says anything that its data set has a key for."""
    data_set = label_text.data_set_of(record, data_sets)
    return data_set is not None and bool(data_set.pairs(record))


def task_sources(
    source: Sequence[Record],
    captions: CaptionOptions,
    data_sets: Mapping[str, DataSet],
    power: float = 0.5,
    edits: bool = False,
    keys: dict[str, set[str]] | None = None,
    needed: Sequence[str] = (),
) -> dict[str, Sequence[Any]]:
    """The records of each task; every record is read once to see what it serves.

    Args:
      source: a data set, or a mixture of some.
      captions, data_sets: as of the transforms.
      power: within a task, a data set is drawn in proportion to its size to this power
        (SPEC B.7.3), unless the mixture was given weights. Parts of the mixture are
        data sets, and the records of each in a part that holds several.
      edits: the task "edit" as well, whose items are (before, after).
      keys: to which the keys that any record has are added, by data set.
      needed: tasks that must have records; others are left out where they have none.
        Default all.

    Pairs of `synthetic.SyntheticEdits` serve that one alone. A key whose label no
    record has is warned of: it may be misspelt.

    Raises:
      UserError: a task that is needed has no records.
    """
    needed = needed or tasks_of(edits)
    mixed = isinstance(source, composed.Mixture)
    parts = source.sources if mixed else [source]
    # Numbers of records, by data set, of each part.
    captioned: list[dict[str, list[int]]] = [{} for _ in parts]
    labelled: list[dict[str, list[int]]] = [{} for _ in parts]
    seen: dict[str, set[str]] = {}  # names of labels, by data set
    pairs: list[Sequence[Any]] = []
    for number, part in enumerate(parts):
        if len(part) and part[0].source == synthetic.EDITS:
            pairs.append(composed.Pairs(part))
            continue
        for index in range(len(part)):
            record = part[index]
            data_set = label_text.data_set_of(record, data_sets)
            group = data_set.name if data_set else ""
            if has_caption(record, captions):
                captioned[number].setdefault(group, []).append(index)
            if data_set:
                names = seen.setdefault(data_set.name, {"expression"})
                names |= {*(record.labels or {}), *record.facts}
                said = {key for key, _ in data_set.pairs(record)}
                if said:
                    labelled[number].setdefault(group, []).append(index)
                if keys is not None:
                    keys.setdefault(data_set.name, set()).update(said)
    for name, names in seen.items():
        _tell_misspelt(data_sets[name], names)
    given = source.weights if mixed else None
    found = {
        what: _mixed(what, parts, kept, given, power)
        for what, kept in (("caption", captioned), ("attributes", labelled))
        if any(kept) or any(what in task for task in needed)
    }
    tasks = {task: found[what] for task in TASKS for what in found if what in task}
    if EDIT in needed and not pairs:
        raise UserError(
            "data.tasks.edits learns from pairs, and there are none; add a source of "
            "kind 'synthetic_edits', or its cache (`gptface tokenize --images "
            "synthetic_edits`), to data.train and data.eval"
        )
    return tasks | ({EDIT: composed.Mixture(pairs)} if edits and pairs else {})


def _mixed(
    what: str,
    parts: Sequence[Sequence[Record]],
    kept: Sequence[Mapping[str, Sequence[int]]],
    given: Sequence[float] | None,
    power: float,
) -> Sequence[Record]:
    """The kept records of all parts, in their shares; see `task_sources`."""
    if not any(kept):
        raise UserError(
            f"no record has {what}, among {sum(map(len, parts))} of "
            f"'{parts[0][0].source}' and others; tasks need captions or labels, and "
            "the name of a data set as their source"
        )
    groups = [[*sets.values()] for sets in kept]
    if given:  # of whole parts
        groups = [[sorted(itertools.chain(*rows))] if rows else [] for rows in groups]
    chosen = [composed.Chosen(p, rows) for p, some in zip(parts, groups)
              for rows in some]  # fmt: skip
    weights = [w for w, sets in zip(given or (), kept) if sets]
    drawn = weights or [len(part) ** power for part in chosen]
    # Long enough for the part that is drawn most rarely for its size.
    passes = max(len(c) * sum(drawn) / w for c, w in zip(chosen, drawn))
    length = math.ceil(passes) + len(chosen)
    return chosen[0] if len(chosen) == 1 else composed.Mixture(chosen, drawn, length)


def interleaved(
    found: Mapping[str, Sequence[Record]], turns: Sequence[str] = ()
) -> composed.Interleaved:
    """The sources of `task_sources` as one, whose items are (number, record).

    Args:
      found: the records of each task.
      turns: task of each number; by default all that were found, each once.
    """
    return composed.Interleaved([found[task] for task in turns or found])


def _tell_misspelt(data_set: DataSet, seen: set[str]) -> None:
    """Warns of keys whose label no record has, unless it may be there elsewhere."""
    for key in data_set.keys:
        known = {*seen, *label_text.DERIVED, *tables.CELEBA_ATTRIBUTES, "Age"}
        if key.label not in known and key.name not in seen:
            log.warning(
                "no record of data set '%s' has the label '%s'%s: nothing will be "
                "learnt of its key '%s'",
                data_set.name,
                key.label,
                nearest(key.label, known),
                key.name,
            )


def vocabulary_texts(
    data_sets: Mapping[str, DataSet], edits: bool = False
) -> list[str]:
    """Texts that a vocabulary should be learnt from besides captions: prompts, that of
    edits or not, and keys with all their values."""
    texts = [*dict.fromkeys(PROMPTS[task] for task in tasks_of(edits))]
    texts += [
        d.template.replace("{", " ").replace("}", " ") for d in data_sets.values()
    ]
    for data_set in data_sets.values():
        for key in data_set.keys:
            values = key.kind.candidates or map(
                key.kind.write, range(age_tokens.NUMBERS)
            )
            texts += [label_text.write(data_set.name, [(key.name, v)]) for v in values]
    return list(dict.fromkeys(texts))
