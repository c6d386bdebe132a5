"""Edits of pictures, judged by a classifier: did they do what the text says?

Figures of `judge_edits`:

attributes: name -> `evaluate.edits.Rates` as a dict
mean: the same of all edits
others_kept: share of the judge's other verdicts that the edits leave alone
outside_psnr: in dB, the lowest of all edits
outside_psnr_raw: mean before compositing, where the editor tells
seconds: an edit, without compilation, where the editor tells
examples: uint8 [A,3,S,S,3], the first picture before, asked, opposite
inside_psnr: with `Measures.truth`, dB within the region
kept_distance, points_moved, faces_lost, kid, seam_auc: of `side_effects`, as far as
    `Measures` has what they need
kinds: kind of edit (`kind_of`) -> its own figures: those of `side_effects`,
    `others_kept`, and the rates of all its edits
frechet: with `Measures.features`, distance of edits to unedited pictures
same_person: with `Measures.people` too, share of edits to which, of all other pictures
    before, the nearest in features is one of the same person
same_person_before: that of the pictures before
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from gptface_jax.data import image, regions, sources, synthetic
from gptface_jax.evaluate import agreement, distributions, edits
from gptface_jax.protocols import markdown
from gptface_jax.protocols.editors import Edit, Edited, Task
from gptface_jax.protocols.feature_space import FeatureSpace
from gptface_jax.protocols.judge import Judge
from gptface_jax.protocols.side_effects import Landmarks, SideEffects


@dataclasses.dataclass(frozen=True)
class Measures:
    """Measures beside the judge's verdicts.

    Attributes:
      truth: (number of the picture, attribute, present) -> the picture as it ought
        to look, uint8 [S,S,3].
      features: of a network trained apart.
      people: [N], who is shown; only of drawn faces, and counts with `features`.
      landmarks, seams: see `side_effects.SideEffects`.
    """

    truth: Callable[[int, str, bool], np.ndarray] | None = None
    features: FeatureSpace | None = None
    people: np.ndarray | None = None
    landmarks: Landmarks | None = None
    seams: bool = False

    def side_effects(self) -> SideEffects:
        """What collects the edits for these measures."""
        return SideEffects(self.features, self.landmarks, self.seams)


def judge_edits(
    edit: Edit,
    judge: Judge,
    photos: np.ndarray,
    tasks: Sequence[Task],
    measures: Measures | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Rates at which edits show what the text asks for, and what else they change.

    Every picture is edited twice an attribute, with a text for it and a text against
    it, in the region where the attribute shows; the judge says whether it is there.

    Args:
      edit: what edits, see `protocols.editors`.
      judge: what judges.
      photos: uint8 [B,S,S,3].
      tasks: of `editors.tasks`.
      measures: what is measured besides.
      progress: show a bar.

    Returns:
      The figures that the module's docstring lists.

    Raises:
      UserError: an attribute that the judge does not know.
    """
    measures = measures or Measures()
    judge.check([task.attribute for task in tasks])
    before = judge(photos)
    psnr: dict[str, list[np.ndarray]] = {}
    verdicts: dict[str, dict[bool, np.ndarray]] = {}
    examples: dict[str, list[np.ndarray]] = {}
    others, seconds, aside = [], [], measures.side_effects()
    bar = tqdm.tqdm(total=len(tasks) * len(photos), disable=not progress)
    for task in tasks:
        name, column = task.attribute, judge.attributes.index(task.attribute)
        edited = edit(photos, task, bar.update)
        said = judge(edited.images)
        verdicts.setdefault(name, {})[task.present] = said[:, column]
        others.append(np.delete(said == before, column, axis=1).mean())
        examples.setdefault(name, [photos[0]]).append(edited.images[0])
        for kind, values in _psnr(photos, task, edited, measures.truth).items():
            psnr.setdefault(kind, []).append(values)
        seconds += edited.seconds
        aside.add(kind_of(name), photos, edited.images, task.regions)
    bar.close()
    everywhere, by_kind = aside.figures()
    kinds = {
        kind: {**_kind(kind, tasks, verdicts, before, judge, others), **more}
        for kind, more in by_kind.items()
    }
    figures = {
        **_rates(verdicts, before, judge.attributes),
        "others_kept": float(np.mean(others)),
        **everywhere,
        "kinds": kinds,
        "examples": np.array(list(examples.values())),
        **{k: float(_SUMMARY[k](np.concatenate(x))) for k, x in psnr.items()},
    }
    if seconds:  # the first batch of each shape was compiled
        figures["seconds"] = float(np.median(seconds))
    if measures.features:
        figures |= _distances(*aside.features(), measures.people)
    return figures


# Of attributes that are no mere attribute of a face (SPEC A.10); hair by its region.
_KINDS = {
    "Smiling": "expression",
    "Mouth_Slightly_Open": "expression",
    "Wearing_Hat": "clothing",
    "Wearing_Necktie": "clothing",
    "Eyeglasses": "occlusion",
    "Wearing_Mask": "face mask",
}


def kind_of(attribute: str) -> str:
    """Kind of edit that an attribute is changed by, such as "hair"."""
    if regions.OF_ATTRIBUTE.get(attribute) in ("hair", "forehead"):
        return "hair"
    return _KINDS.get(attribute, "attribute")


def _kind(kind, tasks, verdicts, before, judge, others) -> dict[str, Any]:
    """Rates of the edits of a kind as of `evaluate.edits.Rates`, and others_kept."""
    own = [kind_of(task.attribute) == kind for task in tasks]
    said = {name: x for name, x in verdicts.items() if kind_of(name) == kind}
    rates = _rates(said, before, judge.attributes)["mean"]
    return {**rates, "others_kept": float(np.mean(np.array(others)[own]))}


# Figures that are infinite where nothing has changed.
PSNR_OUTSIDE = ("outside_psnr", "outside_psnr_raw")
_SUMMARY = {
    "outside_psnr": np.min,
    "outside_psnr_raw": np.mean,
    "inside_psnr": edits.mean_psnr,
}


def _psnr(photos, task: Task, edited: Edited, truth) -> dict[str, np.ndarray]:
    """PSNR in dB of each picture, as far as it is known, by figure of `_SUMMARY`."""
    masks = task.regions
    found = {"outside_psnr": edits.outside_psnr(edited.images, photos, masks)}
    if edited.raw is not None:
        found["outside_psnr_raw"] = edits.outside_psnr(edited.raw, photos, masks)
    if truth:
        wanted = [
            image.fit(truth(i, task.attribute, task.present), photos.shape[1])
            for i in range(len(photos))
        ]
        inside = edits.outside_psnr(edited.images, np.stack(wanted), ~masks)
        found["inside_psnr"] = inside
    return found


def _rates(
    verdicts: Mapping[str, Mapping[bool, np.ndarray]],
    before: np.ndarray,
    known: Sequence[str],
) -> dict[str, Any]:
    """ "attributes" and "mean" of `judge_edits`.

    Args:
      verdicts: attribute -> asked for -> bool [B], whether it is there.
      before: bool [B,A], what is in the pictures before.
      known: names of its A columns.
    """
    columns = {name: before[:, known.index(name)] for name in verdicts}
    table = {
        name: edits.rates(said[True], said[False], columns[name]).to_dict()
        for name, said in verdicts.items()
    }
    asked, opposite = (
        np.concatenate([said[present] for said in verdicts.values()])
        for present in (True, False)
    )
    mean = edits.rates(asked, opposite, np.concatenate(list(columns.values())))
    # Edits of one photograph are not independent: photographs are what is counted.
    gained = sum(x[True].astype(int) - x[False] for x in verdicts.values())
    p_value = edits.mcnemar(gained > 0, gained < 0)
    mean = dataclasses.replace(mean, p_value=p_value, count=len(before))
    return {"attributes": table, "mean": mean.to_dict()}


def _distances(
    edited: Sequence[np.ndarray], originals: np.ndarray, people: np.ndarray | None
) -> dict[str, float]:
    """ "frechet", "same_person" and "same_person_before" of features [B,D]."""
    joined = np.concatenate(edited)
    figures = {"frechet": distributions.frechet_distance(joined, originals)}
    if people is not None:
        parts = ("same_person", edited), ("same_person_before", [originals])
        for name, sets in parts:
            sums = [agreement.identity_sums(x, originals, people) for x in sets]
            hits, count = np.sum(sums, axis=0)
            figures[name] = float(hits / count) if count else float("nan")
    return figures


# Figure of `judge_edits` -> column, digits.
_COLUMNS = {
    "asked": ("asked", 3),
    "opposite": ("opposite", 3),
    "gap": ("gap", 3),
    "others_kept": ("others kept", 3),
    "same_person": ("same person", 3),
    "inside_psnr": ("inside, dB", 2),
    "outside_psnr_raw": ("outside before compositing, dB", 1),
    "kept_distance": ("features outside", 4),
    "points_moved": ("points moved", 4),
    "faces_lost": ("faces lost", 3),
    "frechet": ("Frechet", 2),
    "kid": ("KID", 4),
    "seam_auc": ("seam AUC", 3),
    "seconds": ("s/edit", 3),
}
_OUTSIDE = {"outside_psnr": ("outside at least, dB", 1)}  # of ours nothing changes


def edits_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: what `gptface evaluate edits` found, a line for each method.

    Args:
      rows: "method", "seed", "forwards" (None of another program) and the figures of
        `judge_edits`; those of `protocols.repairs` are passed over.

    Returns:
      Means over the seeds, of the gap with the lowest and the highest one.
    """
    flat = [{**row, **row["mean"]} for row in rows if "mean" in row]
    columns = dict(_COLUMNS)
    if any(row["forwards"] is None for row in flat):
        columns |= _OUTSIDE
    costs, lines = {}, {}
    for row in flat:
        cost = costs.setdefault(row["method"], row["forwards"])
        cells = (row["method"], "" if cost is None else f"{cost:g}")
        lines.setdefault(cells, []).append(row)
    return _table(("method", "forwards"), lines, columns)


def kinds_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown of the same rows, a line for each kind of edit by each method."""
    lines = {}
    for row in rows:
        for kind, figures in row.get("kinds", {}).items():
            lines.setdefault((kind, row["method"]), []).append(figures)
    by_kind = sorted(lines.items(), key=lambda line: line[0][0])
    return _table(("kind", "method"), dict(by_kind), _COLUMNS)


def _table(head, lines: Mapping[tuple, Sequence[Mapping]], columns) -> str:
    """Means of the figures that there are; a line's key is its first cells."""
    flat = [row for same in lines.values() for row in same]
    shown = {k: c for k, c in columns.items() if any(k in row for row in flat)}
    table = [[*head, *(column for column, _ in shown.values())]]
    for cells, same in lines.items():
        line = list(cells)
        for name, (_, digits) in shown.items():
            # What is not defined is NaN, and null where it was read again.
            values = [v for row in same if (v := row.get(name)) is not None]
            values = [v for v in values if not np.isnan(v)]
            text = f"{np.mean(values):.{digits}f}" if values else ""
            if name == "gap" and len(values) > 1:
                text += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
            line.append(text)
        table.append(line)
    return markdown.table(table)


def counterfactuals(
    spec: Mapping[str, Any],
) -> Callable[[int, str, bool], np.ndarray]:
    """`truth` of `judge_edits` for the drawn faces of a spec."""
    faces = sources.open_source(spec)

    def truth(number: int, name: str, present: bool) -> np.ndarray:
        wanted = synthetic.set_attribute(faces.factors(number), name, present)
        return synthetic.render(wanted, faces.size).image

    return truth
