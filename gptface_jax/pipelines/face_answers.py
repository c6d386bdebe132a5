"""Answers about a face that end in its 3D head (SPEC D.3), by one sequence model.

The words are written first, the likeliest each time. A model that ends them without a
head has one appended, and that is told. Of the heads that may follow some are drawn,
and their mean is taken: the likeliest codes mean a head that is further from the truth.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.data.questions import Question
from gptface_jax.data.tasks import AND_HEAD, PROMPTS
from gptface_jax.nn.prefix_lm import PrefixLM
from gptface_jax.pipelines import answers
from gptface_jax.pipelines.answers import Answer
from gptface_jax.pipelines.faces3d import Face3DModel, Head3D
from gptface_jax.pipelines.networks import Network
from gptface_jax.pipelines.sequence_model import (
    Learnt,
    SequenceModel,
    generate_options,
)
from gptface_jax.systems.facegpt import coefficients, spoken
from gptface_jax.systems.talk2face.decode import Generated

DESCRIBED = "description"
_TOKENS = 8  # of an answer in words, beside a description
_HEADS = 16  # that are drawn


@dataclasses.dataclass(frozen=True)
class HeadAnswer:
    """An answer in words, and the head that it ends in.

    Attributes:
      answer: to the question, or a sentence ("description").
      head: JSON of it, and of its files, tells the answer as well.
      head_confidence: geometric mean of the probabilities of the likeliest codes.
      missing: the model ended its answer without a head, which was appended.
    """

    answer: Answer
    head: Head3D
    head_confidence: float
    missing: bool

    def __str__(self) -> str:
        note = " (the answer ended without one, which was appended)" * self.missing
        return f"{self.answer}\nhead: {self.head_confidence:.2f}{note}"

    def save(self, path: str | os.PathLike) -> list[pathlib.Path]:
        """Writes the head; see `Head3D.save`."""
        return self.head.save(path)


@dataclasses.dataclass(frozen=True)
class Answers:
    """Answers about B pictures.

    Attributes:
      answers: B of them.
      coeffs: of their heads, [B,...] by entry.
      deviations: how far heads differ that the same words could end in, [B,...] by
        group in units of a usual deviation.
      head_confidence: float [B], see `HeadAnswer`.
      missing: bool [B], likewise.
    """

    answers: list[Answer]
    coeffs: Mapping[str, np.ndarray]
    deviations: Mapping[str, np.ndarray]
    head_confidence: np.ndarray
    missing: np.ndarray


class ChatModel(Face3DModel):
    """A FaceGPT whose weights are a sequence model too.

    Args:
      network: its config says what `sequences` is.
      given: as of `Face3DModel`.
      learnt: what may be asked.
    """

    def __init__(self, network: Network, *given: Any, learnt: Learnt, **named: Any):
        super().__init__(network, *given, **named)
        same = dataclasses.replace(network, module=PrefixLM(network.config.sequences))
        self.sequences = SequenceModel(
            same, self.vqgan, self.tokenizer, learnt, self.frame, self.card,
            self.module.config.transformer.dtype,
        )  # fmt: skip

    @property
    def learnt(self) -> Learnt:
        """What may be asked."""
        return self.sequences.learnt

    def answers_about(
        self, image_ids: np.ndarray, question: Question | None = None
    ) -> Answers:
        """Answers about pictures by their codes int [B,n], each with a head.

        Args:
          image_ids: the codes.
          question: of `answers.found_question`; None for a sentence.

        Raises:
          UserError: the vocabulary cannot spell the question, or it is too long.
        """
        model, tail = self.sequences, spoken.ranges(self.network.config)
        task = "image_to_caption" if question is None else "image_to_attributes"
        prompt = PROMPTS[task] + AND_HEAD
        prefixes = np.stack([model.image_prefix(prompt, ids) for ids in image_ids])
        key = np.zeros(0, np.int32)
        if question is not None:
            key = answers.spelt(model, question.prompt)
        # The [SEP] behind the head need not be written.
        room = model.network.config.length - prefixes.shape[1] - len(tail) - 1
        if len(key) >= room:
            raise UserError(
                f"the question has {len(key)} tokens, and with its answer there is "
                f"room for {room}; ask in fewer words"
            )
        most = room if question is None else min(room, len(key) + _TOKENS)
        given = np.tile(key, (len(prefixes), 1))
        found = self._written(prefixes, given, most, temperature=0.0)
        tokens, said = (np.asarray(x)[:, 0] for x in (found.tokens, found.log_probs))
        starts = (tokens == tail[0][0]).argmax(1)
        words = [
            self._answer(question, row[len(key) : start], chances[len(key) : start + 1])
            for row, chances, start in zip(tokens, said, starts)
        ]
        place = np.arange(tokens.shape[1]) - starts[:, None]
        codes = said[(place > 0) & (place < len(tail))].reshape(len(tokens), -1)
        before = np.where(place <= 0, tokens, self.tokenizer.pad_id)
        drawn = self._written(prefixes, before, most + 1, _HEADS, top_k=0)
        coeffs, deviations = self._mean_head(np.asarray(drawn.tokens))
        sure, missing = np.exp(codes.mean(1)), np.asarray(found.missing)[:, 0]
        return Answers(words, coeffs, deviations, sure, missing)

    def _written(
        self, prefixes: np.ndarray, given: np.ndarray, most: int, count: int = 1,
        **options: Any,
    ) -> Generated:  # fmt: skip
        """Texts after prefixes [P,Q] that begin as given [P,F], each with a head."""
        config = generate_options({"modality": "text", "max_tokens": most, **options})
        # The same for every picture, so that none depends on its batch mates.
        keys = jax.random.split(jax.random.key(0), (1, count))
        keys = jnp.broadcast_to(keys, (len(prefixes), count))
        tail = spoken.ranges(self.network.config)
        return self.sequences.generate(prefixes, config, keys, given, tail)

    def _mean_head(self, tokens: np.ndarray) -> tuple[dict, dict]:
        """Coefficients [P,...] by entry and deviations by group of texts [P,S,T]."""
        tail = spoken.ranges(self.network.config)
        rows = tokens.reshape(-1, tokens.shape[-1])
        starts = (rows == tail[0][0]).argmax(1)
        heads = np.take_along_axis(rows, starts[:, None] + np.arange(len(tail)), 1)
        coeffs = spoken.coefficients_of(self.module, self._params, heads)

        def apart(values):
            return np.asarray(values).reshape(*tokens.shape[:2], *values.shape[1:])

        units = coefficients.in_units(coeffs)
        return (
            {name: apart(value).mean(1) for name, value in coeffs.items()},
            {name: apart(value).std(1) for name, value in units.items()},
        )

    def _answer(self, question: Question | None, ids, log_probs) -> Answer:
        """The answer of these tokens; log_probs of them and of what ended them."""
        text = self.tokenizer.decode(ids)
        if question is None:
            sure = float(np.exp(log_probs.mean()))
            return Answer(DESCRIBED, text, text or None, sure)
        value = question.read(text)
        return Answer(question.name, text, value, float(np.exp(log_probs.sum())))

    def answer_about(
        self, photo: np.ndarray, question: str = "", face: Any = None,
        align: bool = True,
    ) -> HeadAnswer:  # fmt: skip
        """The answer about a photo uint8 [H,W,3]; a sentence without a question.

        Raises:
          UserError: nothing that the model was trained to answer, or no such face.
        """
        asked = answers.found_question(self.sequences, question) if question else None
        (_, view), notes = self.seen(photo, face, align)
        pixels = images.resize(view.picture(photo), (self.size,) * 2)[None]
        found = self.answers_about(self.image_ids(pixels), asked)
        (answer,), missing = found.answers, bool(found.missing[0])
        sure = float(found.head_confidence[0])
        deviations = {group: x[0] for group, x in found.deviations.items()}
        options = {"align": align, "face": face if isinstance(face, int) else None}
        details = {
            **self.details("", None, options, notes, deviations),
            "question": answer.question,
            "answer": answer.text,
            "value": answer.value,
            "confidence": answer.confidence,
            "head_confidence": sure,
            "face_tokens_missing": missing,
        }
        coeffs = {name: value[0] for name, value in found.coeffs.items()}
        head = Head3D(coeffs, self.face_model, details, photo, view)
        return HeadAnswer(answer, head, sure, missing)
