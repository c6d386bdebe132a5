"""Records as examples of four tasks, captions and attributes both ways (SPEC B.7)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.core.vocab import JointVocab
from gptface_jax.data import age_tokens, label_sets, label_text, sequences
from gptface_jax.data.label_text import DataSet
from gptface_jax.data.label_values import Integer
from gptface_jax.data.record import Record
from gptface_jax.data.tasks import (
    AND_HEAD,
    EDIT,
    PROMPTS,
    has_attributes,
    has_caption,
    tasks_of,
)
from gptface_jax.data.text import TextTokenizer
from gptface_jax.data.transforms import CaptionOptions

# Joins a caption and attributes.
_AND = label_text.JOINT.strip()

Pairs = Sequence[tuple[str, str]]
GIVEN_KEYS = ("first", "all")


def check_task(task: str, known: Iterable[str]) -> None:
    """Raises UserError for a task that is none of those known."""
    if task not in known:
        raise UserError(
            f"task '{task}' is unknown{nearest(task, known)}; use " + ", ".join(known)
        )


@dataclasses.dataclass(frozen=True)
class TaskOptions:
    """How texts of examples are made.

    Attributes:
      captions: of the sentences.
      max_attributes: most attributes in a text; their number is uniform up to it.
      combined_fraction: examples whose target is an image and whose prefix is a
        caption with attributes behind it, where the record has both.
      given_fraction: examples whose target is attributes and whose first key, with the
        name of the data set, is given and not predicted, as in a question.
      given_keys: "first", or "all": the other keys of these examples are not predicted
        either. Keys come in random order, which nothing could predict, and are five
        tokens for each of a value.
      age_tokens: "word", "digits" or "ordinal", see `data.age_tokens`.
      max_prefix: most positions of a prefix of text with its prompt and separators.
      name_data_sets: the data set's name stands before the first key, and says whose
        convention the values follow; without, one word may mean two things (claim T4).
      edits: learn to draw a picture after another one and a sentence too, from pairs.
      turns: tasks that the rows of a training batch take turns among, where not all as
        often as each other: ("image_to_attributes", "image_to_attributes",
        "image_to_caption") learns to answer and to describe, and not to draw. No
        record need serve another task.
    """

    captions: CaptionOptions = CaptionOptions()
    max_attributes: int = 12
    combined_fraction: float = 0.2
    given_fraction: float = 0.0
    given_keys: str = "first"
    age_tokens: str = "word"
    max_prefix: int = 64
    name_data_sets: bool = True
    edits: bool = False
    turns: tuple[str, ...] = ()

    def __post_init__(self):
        for task in self.turns:
            check_task(task, tasks_of(self.edits))
        if self.given_keys not in GIVEN_KEYS:
            raise ValueError(
                f"given_keys {self.given_keys!r} is none of {', '.join(GIVEN_KEYS)}"
            )


@dataclasses.dataclass(frozen=True)
class TaskTransform:
    """Transform from records to `sequences.assemble` of one task and its number.

    With age_tokens "ordinal" also where a number is predicted, the first of a text, and
    what instead of it alone: "soft_position" int32 [], its place in tokens, -1 for
    none; "soft_ids" int32 [11] and "soft_weights" float32 [11], 0 for none.

    Attributes:
      task: a name of `tasks.PROMPTS`.
      tokenizer: of the text.
      vocab: the joint id space.
      length: L.
      options: how texts are made.
      data_sets: whose labels become text.
      tail: joint ids that every text about a picture ends in, such as face tokens; its
        prompt then asks for a head.
    """

    task: str
    tokenizer: TextTokenizer
    vocab: JointVocab
    length: int
    options: TaskOptions = TaskOptions()
    data_sets: Mapping[str, DataSet] = dataclasses.field(
        default_factory=lambda: label_sets.TABLE
    )
    tail: tuple[int, ...] = ()

    def __post_init__(self):
        check_task(self.task, PROMPTS)
        table = age_tokens.with_age_tokens(self.data_sets, self.options.age_tokens)
        object.__setattr__(self, "data_sets", table)
        if self.options.age_tokens == "ordinal":
            _ = self._number_ids  # refuses a vocabulary without numbers at once

    def __call__(self, record: Any, rng: np.random.Generator) -> dict:
        """The example of a record, or of (before, after) for "edit"."""
        if self.task == EDIT:
            return self._edit(*record, rng)
        image = self._image(record)
        prompt = self._sure_ids(PROMPTS[self.task] + AND_HEAD * bool(self.tail))
        if self.task.endswith("_to_image"):
            room = self.options.max_prefix - 3 - len(prompt)
            text = self._prefix(record, rng, room)
            example = self._assembled(prompt, text, image, self.options.max_prefix)
            return example | self._soft([], "", 0)
        room = self.length - 4 - len(prompt) - len(image) - len(self.tail)
        tail = np.array(self.tail, np.int32)
        if self.task == "image_to_caption":
            text = np.concatenate([self._caption(record, rng)[:room], tail])
            return self._assembled(prompt, image, text) | self._soft([], "", 0)
        name, pairs = self._attributes(record, rng, room)
        text = self._sure_ids(self._written(name, pairs))
        given = 0
        if rng.random() < self.options.given_fraction:
            given = self._keys(name, pairs)
        if np.ndim(given):
            given = np.append(given, np.zeros(len(tail), bool))
        text = np.concatenate([text, tail])
        example = self._assembled(prompt, image, text, given=given)
        return example | self._soft(pairs, name, 3 + len(prompt) + len(image))

    def _edit(self, before: Record, after: Record, rng: np.random.Generator) -> dict:
        """One picture after the other and its sentence, either way round."""
        if before.text and rng.random() < 0.5:
            before, after = after, before
        first, second = self._image(before), self._image(after)
        prompt, text = self._sure_ids(PROMPTS[EDIT]), self._ids(after.text)
        room = self.length - 4 - len(prompt) - len(first) - len(second)
        prefix = np.concatenate([first, text[: max(room, 0)]])
        return self._assembled(prompt, prefix, second) | self._soft([], "", 0)

    def _image(self, record: Record) -> np.ndarray:
        if record.image_ids is None:
            raise UserError(
                f"a record of source '{record.source}' holds no image ids; run "
                "`gptface tokenize` first"
            )
        ids = record.image_ids.reshape(-1).astype(np.int32)
        return self.vocab.image_to_joint(ids)

    def _assembled(self, prompt, prefix, target, max_prefix=None, given=0) -> dict:
        example = sequences.assemble(
            prompt,
            prefix,
            target,
            self.vocab,
            self.length,
            max_prefix=max_prefix,
            given=given,
        )
        return example | {"task": np.int32([*PROMPTS].index(self.task))}

    def _ids(self, text: str) -> np.ndarray:
        ids = self.tokenizer.encode([text], self.length)[0]
        return ids[ids != self.tokenizer.pad_id]

    def _sure_ids(self, text: str) -> np.ndarray:
        """Ids that say all of the text, which captions from anywhere need not."""
        ids = self._ids(text)
        if (ids == self.tokenizer.unk_id).any():
            raise UserError(
                f"the vocabulary cannot spell '{text}'; learn it from "
                "`tasks.vocabulary_texts` as well, or use BERT's vocab.txt"
            )
        return ids

    def _length(self, text: str) -> int:
        """The number of ids; of the few texts that labels are made of, kept."""
        if text not in self._lengths:
            self._lengths[text] = len(self._ids(text))
        return self._lengths[text]

    @functools.cached_property
    def _lengths(self) -> dict[str, int]:
        return {}

    def _caption(self, record: Record, rng: np.random.Generator) -> np.ndarray:
        return self._ids(self.options.captions.text(record, rng))

    def _prefix(self, record, rng, room: int) -> np.ndarray:
        """The words that an image depends on, at most `room` of them."""
        own = self.task == "caption_to_image"
        both = rng.random() < self.options.combined_fraction and (
            has_attributes(record, self.data_sets)
            if own
            else has_caption(record, self.options.captions)
        )
        if not both and own:
            return self._caption(record, rng)[:room]
        if not both:
            text = self._written(*self._attributes(record, rng, room))
            return self._sure_ids(text)
        # A long caption leaves half of the room to the attributes.
        caption, joint = self._caption(record, rng), self._sure_ids(_AND)
        left = room - len(joint) - min(len(caption), room // 2)
        name, pairs = self._attributes(record, rng, left, needed=not own)
        if not pairs:
            return caption[:room]
        attributes = self._sure_ids(self._written(name, pairs))
        caption = caption[: room - len(joint) - len(attributes)]
        return np.concatenate([caption, joint, attributes])

    def _attributes(
        self, record, rng, room: int, needed: bool = True
    ) -> tuple[str, Pairs]:
        """The data set's name and some of what it says, within `room` tokens."""
        data_set = label_text.data_set_of(record, self.data_sets)
        pairs = data_set.pairs(record) if data_set else []
        if not pairs:
            raise UserError(
                f"a record of source '{record.source}' says nothing of the keys of a "
                "known data set; name its data set, or draw from `tasks.task_sources`"
            )

        def fits(some: Pairs) -> bool:
            # Blanks and punctuation part WordPieces, so lengths add up.
            pieces = [data_set.name, *(f"{key}: {value}" for key, value in some)]
            joints = (len(some) - 1) * self._length(_AND)
            return sum(map(self._length, pieces)) + joints <= room

        most = self.options.max_attributes
        chosen = label_text.draw(pairs, rng, most=most, fits=fits)
        if needed and not chosen:
            raise UserError(
                f"not one attribute of data set '{data_set.name}' fits into {room} "
                "tokens; make sequences or max_prefix longer"
            )
        return data_set.name, chosen

    def _keys(self, name: str, pairs: Pairs) -> int | np.ndarray:
        """Keys given to `sequences.assemble`: the first, or all.

        Each value is predicted with the token after it, which says where it ends.
        """
        if self.options.given_keys == "first":
            return len(self._before_value(name, pairs[:1]))
        given = np.ones(len(self._ids(self._written(name, pairs))), bool)
        for count in range(1, len(pairs) + 1):
            start = len(self._before_value(name, pairs[:count]))
            end = len(self._ids(self._written(name, pairs[:count])))
            given[start : end + 1] = False
        return given

    def _before_value(self, name: str, pairs: Pairs) -> np.ndarray:
        """The ids of pairs up to the colon of the last."""
        *rest, (key, _) = pairs
        return self._ids(self._written(name, [*rest, (key, "")]))

    def _written(self, name: str, pairs: Pairs) -> str:
        return label_text.write(name if self.options.name_data_sets else "", pairs)

    @functools.cached_property
    def _number_ids(self) -> np.ndarray:
        """int [age_tokens.NUMBERS]: the token of each number.

        Raises:
          UserError: some number is several tokens.
        """
        ids = [self._ids(str(number)) for number in range(age_tokens.NUMBERS)]
        broken = [
            number
            for number, pieces in enumerate(ids)
            if len(pieces) != 1 or pieces[0] == self.tokenizer.unk_id
        ]
        if broken:
            raise UserError(
                f"age_tokens 'ordinal' needs a vocabulary with every number up to "
                f"{age_tokens.NUMBERS - 1}, and this one has no {broken[0]}; use "
                "BERT's vocab.txt or age_tokens 'digits'"
            )
        return np.concatenate(ids)

    def _soft(self, pairs: Pairs, name: str, start: int) -> dict:
        """Soft targets of the first number of a text that begins at `start`."""
        if self.options.age_tokens != "ordinal":
            return {}
        for place, (key, value) in enumerate(pairs):
            kind = self.data_sets[name].key(key).kind
            if isinstance(kind, Integer) and int(value) < age_tokens.NUMBERS:
                before = self._before_value(name, pairs[: place + 1])
                ids, weights = age_tokens.ordinal_targets(int(value), self._number_ids)
                position = start + len(before)
                break
        else:
            ids, weights = age_tokens.ordinal_targets(0, self._number_ids)
            position, weights = -1, 0 * weights
        return {
            "soft_position": np.int32(position),
            "soft_ids": ids,
            "soft_weights": weights,
        }


@dataclasses.dataclass(frozen=True)
class EachTask:
    """Items (number of a task, record) -> examples of that task.

    For sources of `tasks.interleaved`; all examples have the same entries and shapes.

    Attributes:
      transforms: of each number.
    """

    transforms: tuple[TaskTransform, ...]

    def __call__(self, item: tuple[int, Any], rng: np.random.Generator) -> dict:
        number, record = item
        return self.transforms[number](record, rng)


def all_tasks(
    tokenizer: TextTokenizer,
    vocab: JointVocab,
    length: int,
    options: TaskOptions = TaskOptions(),
    data_sets: Mapping[str, DataSet] = label_sets.TABLE,
) -> EachTask:
    """The transform of the options' turns, or of all their tasks.

    Arguments as of `TaskTransform`.
    """
    transforms = (
        TaskTransform(task, tokenizer, vocab, length, options, data_sets)
        for task in options.turns or tasks_of(options.edits)
    )
    return EachTask(tuple(transforms))
