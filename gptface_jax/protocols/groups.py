"""Do answers and edits differ with skin tone, sex and age? On drawn people (SPEC E.7).

Every person is drawn once for every combination of groups, and all else stays: what
differs then is the model's. Of photographs nobody knows the groups; none are made up.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from gptface_jax.core.errors import UserError
from gptface_jax.data import captions, phrases, synthetic
from gptface_jax.data.inspection.survey import luminance
from gptface_jax.data.record import Record
from gptface_jax.evaluate import groups
from gptface_jax.pipelines import answers, batching
from gptface_jax.pipelines.sequence_model import SequenceModel
from gptface_jax.protocols import editors, edits, markdown
from gptface_jax.protocols.judge import Judge
from gptface_jax.protocols.matching import match_scores
from gptface_jax.protocols.model import Model
from gptface_jax.protocols.records import pictures_of

# Axis -> group -> the drawn face in it. Skin is the renderer's scale, 0 to 1.
GROUPS: dict[str, dict[str, Callable[[synthetic.Factors], synthetic.Factors]]] = {
    "skin": {
        name: lambda face, skin=skin: synthetic.counterfactual(face, skin=skin)
        for name, skin in (("light", 0.05), ("medium", 0.4), ("dark", 0.9))
    },
    "sex": {
        name: lambda face, male=male: synthetic.set_attribute(face, "Male", male)
        for name, male in (("female", False), ("male", True))
    },
    "age": {
        name: lambda face, young=young: synthetic.set_attribute(face, "Young", young)
        for name, young in (("young", True), ("older", False))
    },
}
AXES = {axis: tuple(names) for axis, names in GROUPS.items()}
SHAPE = tuple(map(len, AXES.values()))
READ = ("Smiling", "Eyeglasses", "Wearing_Hat", "Male", "Young")
NEUTRAL = "a person"  # says nothing of who is shown
_BATCH = 32

# Records and attributes -> said bool [B,A], confidence float [B,A].
Read = Callable[[Sequence[Record], Sequence[str]], tuple[np.ndarray, np.ndarray]]


def drawn(count: int, seed: int, size: int) -> list[Record]:
    """Records of so many people in every combination of groups, people first.

    Raises:
      UserError: no people.
    """
    if count < 1:
        raise UserError(f"{count} people are drawn; use 1 or more")
    found = []
    for person in range(count):
        # Four neighbours are one person.
        face = synthetic.sample_factors(seed, 4 * person)
        for moves in itertools.product(*(names.values() for names in GROUPS.values())):
            changed = face
            for move in moves:
                changed = move(changed)
            picture = synthetic.render(changed, size)
            found.append(
                Record(
                    image=picture.image,
                    labels=synthetic.labels(changed),
                    landmarks=picture.landmarks,
                    identity=person,
                    source="synthetic",
                )
            )
    return found


def by_matching(model: Model) -> Read:
    """Reads a picture by which of two opposite sentences fits it better."""

    def read(records, attributes):
        photos = pictures_of(records, model.editor.size)
        scores = np.array(
            [
                [
                    match_scores(
                        model,
                        photos,
                        [captions.edit_text(name, is_so, r.labels) for r in records],
                    )
                    for name in attributes
                ]
                for is_so in (True, False)
            ]
        )
        apart = (scores[0] - scores[1]).T
        return apart > 0, 1 / (1 + np.exp(-np.abs(apart)))

    return read


def by_asking(model: SequenceModel) -> Read:
    """Reads a picture by asking a sequence model, choosing among all answers."""

    def read(records, attributes):
        ids = batching.run(model.image_ids, [pictures_of(records, model.size)], _BATCH)
        columns = []
        for name in attributes:
            question = answers.found_question(model, name)
            asked = answers.asked(model, ids, question, answers.AskOptions())
            columns.append(list(batching.run(asked.function, asked.arrays, _BATCH)))
        said = [[bool(a.value) for a in column] for column in columns]
        return np.array(said).T, np.array(
            [[a.confidence for a in c] for c in columns]
        ).T

    return read


def readings(
    read: Read, records: Sequence[Record], attributes: Sequence[str]
) -> dict[str, Any]:
    """`evaluate.groups.figures` of what is read of the records of `drawn`."""
    said, confidence = read(records, attributes)
    truth = np.array(
        [[phrases.known(r.labels or {}, name) for name in attributes] for r in records],
        float,  # None becomes NaN
    )
    shape = (-1, *SHAPE, len(attributes))
    parts = (x.reshape(shape) for x in (said, truth, confidence))
    return groups.figures(*parts, AXES)


def edited(
    edit: editors.Edit,
    judge: Judge,
    records: Sequence[Record],
    attributes: Sequence[str],
    size: int,
    progress: bool = True,
) -> dict[str, Any]:
    """Success of edits by group.

    Args:
      edit: what edits.
      judge: says what it sees; what it sees in the pictures before stands beside.
      records: of `drawn`.
      attributes: that are asked for and ruled out.
      size: of the photographs in pixels.
      progress: show a bar.

    Returns:
      axis -> group -> "asked", "opposite", "gap", "others_kept" and "judge", its
      accuracy on the pictures before, means over the other axes.
    """
    cells = np.empty(SHAPE, object)
    places = np.arange(len(records)).reshape(-1, *SHAPE)
    kinds = [*np.ndindex(*SHAPE)]
    for where in tqdm.tqdm(kinds, "edits", unit="group", disable=not progress):
        some = [records[i] for i in places[(slice(None), *where)]]
        photos, wanted = pictures_of(some, size), editors.tasks(some, attributes, size)
        found = edits.judge_edits(edit, judge, photos, wanted, progress=False)
        truth = np.array(
            [[phrases.known(r.labels, name) for name in attributes] for r in some],
            float,
        )
        seen = judge(photos)[:, [judge.attributes.index(n) for n in attributes]]
        known = ~np.isnan(truth)
        cells[where] = {
            **{kind: found["mean"][kind] for kind in ("asked", "opposite", "gap")},
            "others_kept": found["others_kept"],
            "judge": float((seen == (truth > 0.5))[known].mean()),
        }
    return {
        axis: {
            group: {
                kind: float(np.mean([c[kind] for c in np.take(cells, i, place).flat]))
                for kind in cells.flat[0]
            }
            for i, group in enumerate(names)
        }
        for place, (axis, names) in enumerate(AXES.items())
    }


def audited(
    pictures: np.ndarray, judge: Judge, five: np.ndarray | None
) -> dict[str, Any]:
    """Who is shown in pictures that were drawn after a text that says nothing of it.

    Args:
      pictures: uint8 [N,S,S,3].
      judge: says "Male" and "Young", as far as it knows them.
      five: [5,2], shares of the side: where eyes, nose and corners of the mouth are in
        all of them; None where nobody knows.

    Returns:
      "male" and "young", shares; "skin luminance", quartiles of L* of the cheeks, which
      tells of light as much as of skin; "pictures".
    """
    said = judge(pictures)
    found: dict[str, Any] = {"pictures": len(pictures)}
    for name in ("Male", "Young"):
        if name in judge.attributes:
            column = judge.attributes.index(name)
            found[name.lower()] = float(said[:, column].mean())
    if five is not None:
        points = np.asarray(five) * pictures.shape[1]
        bright = [luminance(picture, points) for picture in pictures]
        found["skin luminance"] = np.quantile(bright, (0.25, 0.5, 0.75)).tolist()
    return found


def table(found: Mapping[str, Any]) -> str:
    """Markdown of `readings`: groups, then what changes with the group alone."""
    gaps = [["", "gap of accuracy", "95 %", "said otherwise"]]
    for axis, gap in found["gaps"].items():
        low, high = gap["interval"]
        shown = (f"{gap['accuracy']:.3f}", f"{low:.3f} to {high:.3f}")
        gaps.append([axis, *shown, f"{found['flips'][axis]:.3f}"])
    worst, best = (f"{x['group']}, {x['accuracy']:.3f}" for x in
                   (found["worst"], found["best"]))  # fmt: skip
    said = f"worst: {worst}; best: {best}"
    return "\n\n".join([group_table(found["groups"]), markdown.table(gaps), said])


def group_table(found: Mapping[str, Mapping[str, Mapping[str, float]]]) -> str:
    """Markdown of figures by axis and group, such as those of `edited`."""
    rows = {f"{a}: {g}": row for a, rows in found.items() for g, row in rows.items()}
    names = list(next(iter(rows.values())))
    lines = [["", *(name.replace("_", " ") for name in names)]]
    lines += [[g, *(f"{row[n]:.3f}" for n in names)] for g, row in rows.items()]
    return markdown.table(lines)
