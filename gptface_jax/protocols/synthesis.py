"""Faces that a Talk2Face draws, judged by a classifier trained apart (SPEC B.10)."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from gptface_jax.core.errors import UserError
from gptface_jax.data import questions
from gptface_jax.data.questions import Question
from gptface_jax.data.record import Record
from gptface_jax.evaluate import distributions
from gptface_jax.pipelines import pictures, rows, sequence_drawing
from gptface_jax.pipelines.results import Samples
from gptface_jax.pipelines.sequence_model import SequenceModel
from gptface_jax.protocols import captioning
from gptface_jax.protocols.judge import Judge


def known_to_both(
    model: SequenceModel, judge: Judge, convention: str
) -> tuple[str, ...]:
    """The judge's attributes that the model can be asked for."""
    own = {q.key.label for q in _of(model, convention)}
    return tuple(name for name in judge.attributes if name in own)


def _of(model: SequenceModel, convention: str) -> list[Question]:
    own = [q for q in model.learnt.questions if q.data_set == convention]
    if not own:
        raise UserError(
            f"the model was not trained by the convention of '{convention}'; it knows "
            + ", ".join(dict.fromkeys(q.data_set for q in model.learnt.questions))
        )
    return own


@dataclasses.dataclass(frozen=True)
class Drawn:
    """Faces drawn after one text, and what a judge sees in them.

    Attributes:
      asked: {"attribute": "Smiling", "present": True}, or of a picture's sentence
        {"picture": 3, "source": "lfw_attributes/a.jpg"}.
      faces: the pictures, with the text and the seed in their details.
      logits: float32 [B,A], scores of the judge.
    """

    asked: Mapping[str, Any]
    faces: Samples
    logits: np.ndarray


def draw_attributes(
    model: SequenceModel,
    judge: Judge,
    attributes: Sequence[str],
    convention: str,
    *,
    count: int = 64,
    seed: int = 0,
    progress: bool = True,
    **decode: Any,
) -> list[Drawn]:
    """Faces that should have each attribute, and as many that should not.

    Args:
      model: draws the faces.
      judge: says what they have.
      attributes: names that both know ("Smiling").
      convention: data set by whose convention they are asked.
      count: faces with, and faces without.
      seed: of the drawing.
      progress: show a bar.
      **decode: fields of `GenerateConfig`.

    Raises:
      UserError: an attribute that one of them does not know.
    """
    judge.check(attributes)
    own = _of(model, convention)
    keys = {name: questions.find(name, own) for name in attributes}
    found = []
    for name, question in tqdm.tqdm(keys.items(), disable=not progress):
        # "Male" is asked as "gender: male": both answers, as the key writes them.
        for present in (True, False):
            text = {question.name: question.key.write(present)}
            steps = sequence_drawing.synthesize(model, "", text, count, seed, decode)
            faces = rows.run_immediately(steps)
            asked = {"attribute": name, "present": present}
            found.append(Drawn(asked, faces, judge.logits(_pixels(faces))))
    return found


def draw_sentences(
    model: SequenceModel,
    judge: Judge,
    records: Sequence[Record],
    *,
    seed: int = 0,
    progress: bool = True,
    **decode: Any,
) -> list[Drawn]:
    """A face after a sentence about each picture.

    Args:
      records: the pictures, with sentences, labels or expressions.
      model, judge, seed, progress, **decode: as of `draw_attributes`.

    Raises:
      UserError: a picture of which nothing is known.
    """
    sentences = [texts[0] for texts in captioning.references(records, seed)]
    faces = []
    for i, text in enumerate(tqdm.tqdm(sentences, disable=not progress)):
        steps = sequence_drawing.synthesize(model, text, {}, 1, seed + i, decode)
        faces.append(rows.run_immediately(steps))
    logits = judge.logits(np.concatenate([_pixels(face) for face in faces]))
    return [
        Drawn({"picture": i, "source": record.source}, face, row[None])
        for i, (record, face, row) in enumerate(zip(records, faces, logits))
    ]


def _pixels(faces: Samples) -> np.ndarray:
    """uint8 [B,S,S,3]."""
    return np.stack([np.asarray(face) for face in faces])


def carried(drawn: Sequence[Drawn], judge: Judge) -> dict[str, dict[str, float]]:
    """Shares of drawn faces that show what was asked, by attribute.

    Args:
      drawn: of `draw_attributes`.
      judge: that saw them.

    Returns:
      name -> {"asked": share with it, of those that should, "opposite": share with it
      of those that should not, "carried": mean share of what was asked}.
    """
    shares: dict[str, dict[bool, float]] = {}
    for some in drawn:
        name = some.asked["attribute"]
        seen = some.logits[:, judge.attributes.index(name)] > 0
        shares.setdefault(name, {})[some.asked["present"]] = float(seen.mean())
    return {
        name: {
            "asked": share[True],
            "opposite": share[False],
            "carried": (share[True] + 1 - share[False]) / 2,
        }
        for name, share in shares.items()
    }


def distribution(
    drawn: Sequence[Drawn],
    judge: Judge,
    features: Callable[[np.ndarray], np.ndarray],
    pictures: np.ndarray,
) -> dict[str, float]:
    """How far faces drawn after the sentences of pictures are from the pictures.

    Args:
      drawn: of `draw_sentences`.
      judge: whose softmax over its attributes gives the inception-style score.
      features: uint8 [B,S,S,3] -> [B,D], the space of the distance.
      pictures: uint8 [B,S,S,3].

    Returns:
      "frechet", "frechet_of_halves" of the pictures themselves (the first half against
      the second: what a perfect model of half as many would have), "precision",
      "recall", "inception_style" and "inception_style_of_pictures", "count".
    """
    ours = features(np.concatenate([_pixels(some.faces) for some in drawn]))
    theirs = features(pictures)
    half = len(theirs) // 2
    precision, recall = distributions.precision_recall(theirs, ours)
    return {
        "frechet": distributions.frechet_distance(ours, theirs),
        "frechet_of_halves": distributions.frechet_distance(
            theirs[:half], theirs[half:]
        ),
        "precision": precision,
        "recall": recall,
        "inception_style": _variety(np.concatenate([some.logits for some in drawn])),
        "inception_style_of_pictures": _variety(judge.logits(pictures)),
        "count": float(len(ours)),
    }


def samples(drawn: Sequence[Drawn], judge: Judge) -> list[dict[str, Any]]:
    """A row for each drawn face: what was asked, and what the judge sees."""
    return [
        {
            **some.asked,
            "text": some.faces.details["text"],
            "seed": some.faces.details["seed"],
            "number": number,
            "seen": dict(zip(judge.attributes, logits > 0)),
        }
        for some in drawn
        for number, logits in enumerate(some.logits)
    ]


def sheet(drawn: Sequence[Drawn], shown: int = 4) -> np.ndarray:
    """The first faces with and without each attribute in a row, uint8 [H,W,3].

    Args:
      drawn: of `draw_attributes`.
      shown: with, and as many without.
    """
    shown = min(shown, *(len(some.faces) for some in drawn))
    faces = [np.asarray(face) for some in drawn for face in some.faces[:shown]]
    said = [
        f"{'+' if some.asked['present'] else '-'} {some.asked['attribute']}"
        for some in drawn
        for _ in range(shown)
    ]
    return pictures.sheet(faces, 2 * shown, said, cell=96)


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Markdown: a line an attribute and the mean."""
    lines = ["| attribute | asked | opposite | carried |", "| --- | --- | --- | --- |"]
    names = ("asked", "opposite", "carried")
    for attribute, row in found.items():
        cells = " | ".join(f"{row[name]:.3f}" for name in names)
        lines.append(f"| {attribute} | {cells} |")
    means = [np.mean([row[name] for row in found.values()]) for name in names]
    lines.append("| mean | " + " | ".join(f"{mean:.3f}" for mean in means) + " |")
    return "\n".join(lines)


def _variety(logits: np.ndarray) -> float:
    """Inception-style score of scores [B,A]."""
    chances = np.exp(logits - logits.max(1, keepdims=True))
    return distributions.inception_score(chances / chances.sum(1, keepdims=True))[0]
