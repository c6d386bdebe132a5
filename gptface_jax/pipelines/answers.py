"""Questions about a picture, answered by a sequence model (SPEC B.9)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data.age_tokens import NUMBERS
from gptface_jax.data.label_values import Integer, Range
from gptface_jax.data.questions import Question, find
from gptface_jax.data.tasks import PROMPTS
from gptface_jax.pipelines.rows import Rows
from gptface_jax.pipelines.sequence_model import (
    SequenceModel,
    generate_options,
    padded,
)

PROMPT = PROMPTS["image_to_attributes"]
SHOWN = 16  # chances of an answer that are kept
SCORES = ("sum", "mean")
_STEP = 8
_TOKENS = 8  # of an answer that is written freely
_GREY = 128  # of a picture that says nothing


@dataclasses.dataclass(frozen=True)
class AskOptions:
    """How an answer is found.

    Attributes:
      closed: all answers are scored and the likeliest is taken, of numbers that by
        which half of the probability is reached. Else, and where answers are open,
        words are written one by one, the likeliest each time.
      score: "sum" of the log-probabilities of a closed answer's tokens, or their
        "mean", so that an answer of many does not lose by their number.
      prior: closed answers are told apart by how much likelier they are than of a grey
        picture, so that what is frequent is not said of everything.
    """

    closed: bool = True
    score: str = "sum"
    prior: bool = False

    def __post_init__(self):
        if self.score not in SCORES:
            raise UserError(
                f"score '{self.score}' is unknown; use " + " or ".join(SCORES)
            )
        if not self.closed and (self.prior or self.score != "sum"):
            raise UserError(
                "score and prior weigh answers that are given (closed); leave them out "
                "where the model writes its own"
            )


@dataclasses.dataclass(frozen=True)
class Answer:
    """Answer of a model to a question about a picture.

    Attributes:
      question: data set and key, "lfw age".
      text: the answer as it is written.
      value: what it means: True, 25, "happiness", ...; None where it means nothing.
      confidence: of the answer among all that may be answered; written freely, the
        probability of its words.
      probabilities: of the likeliest answers, the likeliest first; {} written freely.
    """

    question: str
    text: str
    value: Any
    confidence: float
    probabilities: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __str__(self) -> str:
        said = self.text if self.value is not None else f"{self.text!r} (no answer)"
        return f"{self.question}: {said}  {self.confidence:.2f}"


def candidates_of(question: Question) -> tuple[str, ...]:
    """All answers to a question, as text; () where they are open."""
    kind = question.key.kind
    if isinstance(kind, Integer):
        return tuple(kind.write(number) for number in range(NUMBERS))
    if isinstance(kind, Range):
        return tuple(kind.write(start) for start in range(0, NUMBERS, kind.width))
    return question.candidates


def found_question(model: SequenceModel, question: str) -> Question:
    """The question that a person's words mean; see `data.questions.find`.

    Raises:
      UserError: nothing that the model was trained to answer.
    """
    return find(question, model.learnt.questions)


def balanced(question: Question, said: Sequence[Answer]) -> list[Answer]:
    """The answers as they would be, were all that may be answered equally frequent.

    Chances are divided by their mean over the pictures.

    Args:
      question: with few candidates, all of whose chances are known.
      said: of `ask`, closed.
    """
    choices = candidates_of(question)
    chances = np.array([[a.probabilities.get(c, 0.0) for c in choices] for a in said])
    chances = chances / np.maximum(chances.mean(0), 1e-9)
    chances /= chances.sum(1, keepdims=True)
    return [_chosen(question, choices, row) for row in chances]


def ask(
    model: SequenceModel,
    image_ids: np.ndarray,
    question: Question,
    options: AskOptions = AskOptions(),
) -> list[Answer]:
    """One answer for each picture.

    Args:
      model: the networks.
      image_ids: int [B,n] codes.
      question: of `found_question`.
      options: how it is found.

    Raises:
      UserError: the vocabulary cannot spell the question.
    """
    prefixes = np.stack([model.image_prefix(PROMPT, ids) for ids in image_ids])
    key = spelt(model, question.prompt)
    choices = candidates_of(question) if options.closed else ()
    if not choices:
        return _written(model, prefixes, question, key)
    scores = _scores(model, prefixes, key, choices, options.score)
    if options.prior:
        grey = np.full((1, model.size, model.size, 3), _GREY, np.uint8)
        nothing = model.image_prefix(PROMPT, model.image_ids(grey)[0])[None]
        scores = scores - _scores(model, nothing, key, choices, options.score)
    chances = np.exp(scores - scores.max(1, keepdims=True))
    chances /= chances.sum(1, keepdims=True)
    return [_chosen(question, choices, row) for row in chances]


def asked(
    model: SequenceModel,
    image_ids: np.ndarray,
    question: Question,
    options: AskOptions,
) -> Rows:
    """Rows whose answer is what `ask` says of each of them."""

    def answers(image_ids):
        return np.array(ask(model, image_ids, question, options), object)

    return Rows(answers, (image_ids,), (question.name, options))


def attention(
    model: SequenceModel, image_ids: np.ndarray, question: Question
) -> np.ndarray:
    """Where the last layer looks before it answers, float32 [h,w]; adds up to 1.

    Args:
      model: the networks.
      image_ids: int [n] codes.
      question: of `found_question`.

    Raises:
      UserError: the vocabulary cannot spell the question.
    """
    prefix = model.image_prefix(PROMPT, image_ids)
    return model.attention_map(prefix, spelt(model, question.prompt))


def spelt(model: SequenceModel, text: str) -> np.ndarray:
    """int32 ids of a text.

    Raises:
      UserError: the vocabulary cannot spell it.
    """
    ids = model.ids(text)
    if not len(ids) or (ids == model.tokenizer.unk_id).any():
        raise UserError(
            f"this model's vocabulary cannot spell '{text}'; ask in other words"
        )
    return ids


def _scores(model, prefixes, key, choices: Sequence[str], score: str) -> np.ndarray:
    """log p [B,C] that an answer is said, and that it ends there; see `AskOptions`.

    It ends at [SEP], or at the ";" before another attribute: "2" is no answer that
    has begun "25".
    """
    said = [model.ids(choice) for choice in choices]
    ends = [np.array([model.tokenizer.sep_id]), model.ids(";")]
    rows = [np.concatenate([key, ids, end]) for end in ends for ids in said]
    # Widths in steps, so that questions of all lengths share few compiled programs.
    width = -(-max(map(len, rows)) // _STEP) * _STEP
    table = padded(rows, model.tokenizer.pad_id, width)
    table = np.broadcast_to(table, (len(prefixes), *table.shape))
    scores = model.score(prefixes, table, given=len(key))
    scores = np.logaddexp(*np.split(scores, len(ends), axis=1))
    lengths = np.array([len(ids) + 1 for ids in said])
    return scores / lengths if score == "mean" else scores


def _chosen(question: Question, choices: Sequence[str], chances: np.ndarray) -> Answer:
    order = np.argsort(-chances)
    best = int(order[0])
    if isinstance(question.key.kind, Integer):
        best = int(np.searchsorted(np.cumsum(chances), 0.5))
    text = choices[best]
    shown = {choices[i]: float(chances[i]) for i in order[:SHOWN]}
    return Answer(question.name, text, question.read(text), float(chances[best]), shown)


def _written(model, prefixes, question: Question, key) -> list[Answer]:
    """Answers that are written word by word, greedily."""
    config = generate_options(
        {"modality": "text", "max_tokens": len(key) + _TOKENS, "temperature": 0.0}
    )
    given = np.tile(key, (len(prefixes), 1))
    keys = jax.random.split(jax.random.key(0), (len(prefixes), 1))
    found = model.generate(prefixes, config, keys, given)
    answers = []
    tokens, log_probs = (
        np.asarray(found.tokens)[:, 0],
        np.asarray(found.log_probs)[:, 0],
    )
    for row, said in zip(tokens, log_probs):
        text = model.tokenizer.decode(row[len(key) :]).split(";")[0].strip()
        count = len(model.ids(text)) + 1  # what ends it as well
        chance = float(np.exp(said[len(key) : len(key) + count].sum()))
        answers.append(Answer(question.name, text, question.read(text), chance))
    return answers
