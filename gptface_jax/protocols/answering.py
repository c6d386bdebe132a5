"""Questions asked of pictures whose answers are known (SPEC B.10)."""

from __future__ import annotations

import collections
import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from gptface_jax.core.errors import UserError
from gptface_jax.data import label_sets, label_text, questions
from gptface_jax.data.label_values import Integer
from gptface_jax.data.questions import Question
from gptface_jax.data.record import Record
from gptface_jax.evaluate import answers as scoring
from gptface_jax.evaluate import edits, linear_probe
from gptface_jax.pipelines import answers, batching, pseudo_ages
from gptface_jax.pipelines.sequence_model import SequenceModel
from gptface_jax.protocols.records import pictures_of

_BATCH = 32
_AGES = ("Age", "flattered_age")  # labels that are ages, or follow from one


@dataclasses.dataclass(frozen=True)
class Asked:
    """A question about the pictures that have an answer to it.

    Attributes:
      question: that was asked.
      rows: numbers of the pictures.
      said: what the model answered.
      truth: what is known.
    """

    question: Question
    rows: tuple[int, ...]
    said: tuple[answers.Answer, ...]
    truth: tuple[Any, ...]

    def figures(self, median: float | None = None) -> dict[str, float]:
        """Figures of `evaluate.answers`: errors of ages, else accuracies.

        Of two answers also "auc", the chance that one of the second kind is told from
        one of the first.

        Args:
          median: of the ages of the training set, if it is known.
        """
        said = [answer.value for answer in self.said]
        if isinstance(self.question.key.kind, Integer):
            return scoring.age_errors(said, self.truth, median)
        found = scoring.accuracy(said, self.truth)
        words = self.question.candidates
        if len(words) == 2 and all(answer.probabilities for answer in self.said):
            chances = np.array([a.probabilities[words[1]] for a in self.said])
            second = np.array([value == self.question.read(words[1])
                               for value in self.truth])  # fmt: skip
            found["auc"] = edits.area_under_curve(chances[second], chances[~second])
        return found

    def majority(self, usual: Any = None) -> dict[str, float]:
        """Figures of one answer to all pictures, which need not be looked at.

        Args:
          usual: the answer; default `usual` of what is true of these very pictures.
        """
        if usual is None:
            usual = _usual(self.question, self.truth)
        said = [usual] * len(self.truth)
        if isinstance(self.question.key.kind, Integer):
            return scoring.age_errors(said, self.truth)
        return scoring.accuracy(said, self.truth)


def usual(question: Question, examples: Sequence[Record]) -> Any:
    """What is most often true of examples, of ages the median; None if not known."""
    truths = [_truth(question, record) for record in examples]
    known = [truths[i] for i in _known(truths)]
    return _usual(question, known) if known else None


def _usual(question: Question, truths: Sequence[Any]) -> Any:
    if isinstance(question.key.kind, Integer):
        return float(np.median(truths))
    return collections.Counter(truths).most_common(1)[0][0]


def ask(
    model: SequenceModel,
    records: Sequence[Record],
    asked: Sequence[str] = (),
    *,
    convention: str = "",
    balanced: bool = False,
    progress: bool = True,
    **how: Any,
) -> list[Asked]:
    """The answers to questions about pictures of which something is known.

    Args:
      model: the networks.
      records: the pictures, taken as they are: upright faces; or of a token cache of
        the model's tokenizer.
      asked: words of questions; default all that the model was trained to answer by
        the convention.
      convention: name of a data set; default that which the pictures belong to.
      balanced: answers are told apart by how much likelier they are than on average
        over the pictures, so that what is rare is not never said.
      progress: show a bar.
      **how: fields of `pipelines.answers.AskOptions`.

    Raises:
      UserError: no question that the model knows, nothing that is known of the
        pictures, or balanced answers that the model writes itself.
    """
    options = answers.AskOptions(**how)
    if balanced and not options.closed:
        raise UserError(
            "balanced (--balanced) weighs the chances of answers that are given, and "
            "the model is to write its own (--open); leave one of them out"
        )
    if not convention:
        data_set = label_text.data_set_of(records[0], label_sets.TABLE)
        convention = data_set.name if data_set else records[0].source.split("/")[0]
    own = [q for q in model.learnt.questions if q.data_set == convention]
    if not own:
        known = ", ".join(dict.fromkeys(q.data_set for q in model.learnt.questions))
        raise UserError(
            f"the model was not trained by the convention of '{convention}'; give "
            f"--convention, one of {known}"
        )
    if asked:
        own = [questions.find(words, own) for words in asked]
    truths = {q: [_truth(q, record) for record in records] for q in own}
    known = {q: rows for q, row in truths.items() if (rows := _known(row))}
    if not known:
        raise UserError(
            f"nothing is known of the {len(records)} pictures that could be asked by "
            f"the convention of '{convention}'"
        )
    ids = _codes(model, records)
    found = []
    for question in tqdm.tqdm(known, unit="question", disable=not progress):
        rows = known[question]
        asking = answers.asked(model, ids[list(rows)], question, options)
        said = list(batching.run(asking.function, asking.arrays, _BATCH))
        if balanced and 1 < len(question.candidates) <= answers.SHOWN:
            said = answers.balanced(question, said)
        truth = tuple(truths[question][i] for i in rows)
        found.append(Asked(question, rows, tuple(said), truth))
    return found


def probed(
    model: SequenceModel,
    examples: Sequence[Record],
    records: Sequence[Record],
    found: Sequence[Asked],
) -> list[dict[str, float]]:
    """Figures of a linear probe on the codes, asked the same, by question.

    Args:
      model: whose tokenizer made the codes.
      examples: with codes or pictures, which the probe learns from.
      records: the pictures that were asked about.
      found: of `ask`.

    Returns:
      Figures of `Asked.figures`, {} where the probe learns nothing: open answers, or
      examples that say fewer than two different things.
    """
    codebook = np.asarray(model.vqgan.network.params["codebook"], np.float32)
    train, test = (
        linear_probe.codes_as_features(_codes(model, part), codebook)
        for part in (examples, records)
    )
    return [_probed(train, examples, test, asked) for asked in found]


def _probed(train, examples, test, asked: Asked) -> dict[str, float]:
    question = asked.question
    truths = [_truth(question, record) for record in examples]
    rows = list(_known(truths))
    known = [truths[i] for i in rows]
    if len(set(known)) < 2:
        return {}
    seen = train[rows], known, test[list(asked.rows)]
    if isinstance(question.key.kind, Integer):
        said = linear_probe.numbers(*seen)
        return scoring.age_errors(list(said), asked.truth, float(np.median(known)))
    values = [question.read(word) for word in question.candidates]
    if not 1 < len(values) <= answers.SHOWN:
        return {}
    said, scores = linear_probe.classes(*seen, values)
    figures = scoring.accuracy(said, asked.truth)
    if len(values) == 2:
        second = np.array([truth == values[1] for truth in asked.truth])
        figures["auc"] = edits.area_under_curve(scores[second, 1], scores[~second, 1])
    return figures


def table(
    found: Sequence[Asked],
    figures: Sequence[Mapping[str, float]],
    majority: Sequence[Mapping[str, float]],
    probes: Sequence[Mapping[str, float]] = (),
) -> str:
    """A line a question: pictures and figures in percent, errors of ages in years.

    The accuracy or error of `Asked.majority` stands beside; with the figures of
    `probed`, its balanced accuracy or error stands last.
    """
    head = f"{'question':34s}{'count':>7s}{'acc':>8s}{'balanced':>10s}{'auc':>8s}"
    lines = [head + f"{'majority':>10s}" + ("     probe" if probes else "")]
    for asked, row, usual, probe in itertools.zip_longest(
        found, figures, majority, probes, fillvalue={}
    ):
        if "mae" in row:
            kind = "mae" if np.isnan(row["mae_with_median"]) else "mae_with_median"
            cells = f"   {row[kind]:.1f} years off in the mean, the median"
            cells += f" {usual['mae']:.1f}"
        else:
            names = ("accuracy", "balanced_accuracy", "auc")
            share = [100 * row.get(name, float("nan")) for name in names]
            share.append(100 * usual["accuracy"])
            cells = "{:8.1f}{:10.1f}{:8.1f}{:10.1f}".format(*share)
            cells = cells.replace("nan", " - ")
        if "mae" in probe:
            cells += f", the probe {probe['mae']:.1f}"
        elif probe:
            cells += f"{100 * probe['balanced_accuracy']:10.1f}"
        none = 1 - row["coverage"]
        cells += f"   {100 * none:.1f} % none" if none else ""
        lines.append(f"{asked.question.name:34s}{int(row['count']):7d}{cells}")
    return "\n".join(lines)


def guessed_ages(found: Sequence[Asked], records: Sequence[Record]) -> dict[str, int]:
    """Estimator -> pictures that were asked for an age which it guessed.

    Such an age is no truth, see `pipelines.pseudo_ages`.
    """
    by_row = {
        row: by
        for asked in found
        for row in asked.rows
        for by in _guessed_by(asked.question, records[row]).values()
    }
    return dict(collections.Counter(by_row.values()))


def samples(found: Sequence[Asked], records: Sequence[Record]) -> list[dict[str, Any]]:
    """A row for each picture and question: what was said, and what is true.

    "truth_by" says who guessed what stands as "truth", see `guessed_ages`.
    """
    return [
        {
            "picture": row,
            "source": records[row].source,
            "question": asked.question.name,
            "text": answer.text,
            "value": answer.value,
            "truth": truth,
            "confidence": answer.confidence,
            **_guessed_by(asked.question, records[row]),
        }
        for asked in found
        for row, answer, truth in zip(asked.rows, asked.said, asked.truth)
    ]


def _guessed_by(question: Question, record: Record) -> dict[str, str]:
    by = record.facts.get(pseudo_ages.FACT)
    return {"truth_by": by} if by and question.key.label in _AGES else {}


def _truth(question: Question, record: Record) -> Any:
    text = question.key.text_of(record)
    return None if text is None else question.read(text)


def _known(truths: Sequence[Any]) -> tuple[int, ...]:
    return tuple(i for i, value in enumerate(truths) if value is not None)


def _codes(model: SequenceModel, records: Sequence[Record]) -> np.ndarray:
    """int32 [N,n], those that the records hold or of their pictures."""
    if all(record.image_ids is not None for record in records):
        return np.stack([r.image_ids.reshape(-1).astype(np.int32) for r in records])
    return np.concatenate(
        [
            model.image_ids(pictures_of(records[start : start + _BATCH], model.size))
            for start in range(0, len(records), _BATCH)
        ]
    )
