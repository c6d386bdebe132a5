"""Faces that a Talk2Face draws, judged by a classifier trained apart (SPEC B.10)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from gptface_jax.core.errors import UserError
from gptface_jax.data import questions
from gptface_jax.data.questions import Question
from gptface_jax.data.record import Record
from gptface_jax.evaluate import distributions
from gptface_jax.pipelines import rows, sequence_drawing
from gptface_jax.pipelines.sequence_model import SequenceModel
from gptface_jax.protocols import captioning
from gptface_jax.protocols.judge import Judge
from gptface_jax.protocols.records import pictures_of


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


def carried(
    model: SequenceModel,
    judge: Judge,
    attributes: Sequence[str],
    convention: str,
    *,
    count: int = 64,
    seed: int = 0,
    progress: bool = True,
    **decode: Any,
) -> dict[str, dict[str, float]]:
    """Shares of drawn faces that show what was asked, by attribute.

    Args:
      model: draws the faces, `count` asked to have an attribute and as many asked not
        to.
      judge: says whether they have.
      attributes: names that both know ("Smiling").
      convention: data set by whose convention they are asked.
      count: see above.
      seed: of the drawing.
      progress: show a bar.
      **decode: fields of `GenerateConfig`.

    Returns:
      name -> {"asked": share with it, of those that should, "opposite": share with it
      of those that should not, "carried": mean share of what was asked}.

    Raises:
      UserError: an attribute that one of them does not know.
    """
    judge.check(attributes)
    own = _of(model, convention)
    keys = {name: questions.find(name, own) for name in attributes}
    found = {}
    for name, question in tqdm.tqdm(keys.items(), disable=not progress):
        shares = []
        # "Male" is asked as "gender: male": both answers, as the key writes them.
        for present in (True, False):
            text = {question.name: question.key.write(present)}
            steps = sequence_drawing.synthesize(model, "", text, count, seed, decode)
            drawn = rows.run_immediately(steps)
            verdicts = judge(np.stack([np.asarray(x) for x in drawn]))
            shares.append(float(verdicts[:, judge.attributes.index(name)].mean()))
        asked, opposite = shares
        share = (asked + 1 - opposite) / 2
        found[name] = {"asked": asked, "opposite": opposite, "carried": share}
    return found


def distribution(
    model: SequenceModel,
    judge: Judge,
    features: Callable[[np.ndarray], np.ndarray],
    records: Sequence[Record],
    *,
    seed: int = 0,
    progress: bool = True,
    **decode: Any,
) -> dict[str, float]:
    """How far faces drawn after the sentences of pictures are from the pictures.

    Args:
      model: draws one face for each record.
      judge: whose softmax over its attributes gives the inception-style score.
      features: uint8 [B,S,S,3] -> [B,D], the space of the distance.
      records: the pictures, with sentences or labels.
      seed, progress, **decode: as of `carried`.

    Returns:
      "frechet", "frechet_of_halves" of the pictures themselves (the first half against
      the second: what a perfect model of half as many would have), "precision",
      "recall", "inception_style" and "inception_style_of_pictures", "count".
    """
    sentences = [texts[0] for texts in captioning.references(records, seed)]
    drawn = []
    for i, text in enumerate(tqdm.tqdm(sentences, disable=not progress)):
        steps = sequence_drawing.synthesize(model, text, {}, 1, seed + i, decode)
        drawn.append(np.asarray(rows.run_immediately(steps)[0]))
    drawn = np.stack(drawn)
    pictures = pictures_of(records, model.size)
    ours, theirs = features(drawn), features(pictures)
    half = len(theirs) // 2
    precision, recall = distributions.precision_recall(theirs, ours)
    return {
        "frechet": distributions.frechet_distance(ours, theirs),
        "frechet_of_halves": distributions.frechet_distance(
            theirs[:half], theirs[half:]
        ),
        "precision": precision,
        "recall": recall,
        "inception_style": _variety(judge, drawn),
        "inception_style_of_pictures": _variety(judge, pictures),
        "count": float(len(drawn)),
    }


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


def _variety(judge: Judge, pictures: np.ndarray) -> float:
    logits = judge.logits(pictures)
    chances = np.exp(logits - logits.max(1, keepdims=True))
    return distributions.inception_score(chances / chances.sum(1, keepdims=True))[0]
