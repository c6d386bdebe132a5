"""Labels as text, "celeba gender: male; bald: true", and text as labels (SPEC B.7.2).

The name of the data set stands before the first key: it says whose convention, and
whose bias, the values follow. `label_sets.TABLE` holds the data sets.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import phrases
from gptface_jax.data.label_values import Boolean, Colour, Kind, plain
from gptface_jax.data.record import Record

JOINT = "; "
# Of keys, values and names: they come back from any WordPiece vocabulary as they were.
_WRITABLE = re.compile("[a-z0-9]+(?:[ -][a-z0-9]+)*")
_TRUE, _FALSE = ("true", "yes", "1"), ("false", "no", "0", "-1")


def _grin(record: Record) -> bool | None:
    """Smiling with an open mouth."""
    smiling, mouth = _known(record, "Smiling"), _known(record, "Mouth_Slightly_Open")
    return smiling and mouth


def _cheerful(record: Record) -> bool | None:
    """Smiling, or surprised."""
    smiling = _known(record, "Smiling")
    return smiling if smiling is None else smiling or record.expression == "surprise"


def _flattered_age(record: Record) -> float | None:
    """Seven years less."""
    age = (record.labels or {}).get("Age")
    return None if age is None else max(0.0, age - 7)


def _known(record: Record, name: str) -> bool | None:
    return phrases.known(record.labels or {}, name)


# What follows from other labels, by the names that keys may give as their label.
DERIVED: dict[str, Callable[[Record], Any]] = {
    "grin": _grin,
    "cheerful": _cheerful,
    "flattered_age": _flattered_age,
}


@dataclasses.dataclass(frozen=True)
class Key:
    """One attribute of a data set.

    Attributes:
      name: as it is written, "wearing hat".
      label: where a record has it: a name in `Record.facts` (there the key's own name
        serves too) or in `Record.labels` ("Wearing_Hat", "Age"), "expression", or one
        of `DERIVED`.
      kind: how values are written and read.
    """

    name: str
    label: str
    kind: Kind = Boolean()

    def text_of(self, record: Record) -> str | None:
        """The value as text, None where the record does not say it for certain.

        Raises:
          UserError: a label that the kind cannot write.
        """
        found = self._label_of(record)
        if found is None or found == "":
            return None
        try:
            return self.write(found)
        except UserError as error:
            raise UserError(
                f"record '{record.source}', label '{self.label}' of key "
                f"'{self.name}': {error}"
            ) from None

    def write(self, value: Any) -> str:
        """A value as text; of true or false also "yes", "0", or the kind's own word.

        Raises:
          UserError: the kind cannot write it.
        """
        if isinstance(self.kind, Boolean) and isinstance(value, str):
            value = self._truth(value)
        return self.kind.write(value)

    def _label_of(self, record: Record) -> Any:
        if self.label in DERIVED:
            return DERIVED[self.label](record)
        found = record.facts.get(self.label, record.facts.get(self.name))
        if found is None and self.label == "expression":
            return record.expression
        if isinstance(self.kind, Boolean):
            return _known(record, self.label) if found is None else found
        return (record.labels or {}).get(self.label) if found is None else found

    def _truth(self, fact: str) -> bool | None:
        """A fact as true or false: "true", "1", or the word of the kind itself."""
        word = plain(fact)
        if word in (*_TRUE, *_FALSE):
            return word in _TRUE
        value = self.kind.read(word)
        if value is None and word:
            raise UserError(
                f"'{fact}' of '{self.label}' is none of "
                + ", ".join((*self.kind.candidates, *_TRUE, *_FALSE))
            )
        return value


@dataclasses.dataclass(frozen=True)
class DataSet:
    """A set of pictures whose labels follow one convention.

    Attributes:
      name: as it is written, "raf db".
      keys: in the order of the table; none for sets that have sentences only.
      sources: first parts of `Record.source` that belong to it, besides its name.
    """

    name: str
    keys: tuple[Key, ...] = ()
    sources: tuple[str, ...] = ()

    def __post_init__(self):
        words = [self.name, *(key.name for key in self.keys)]
        for key in self.keys:
            # The names of colours are ours.
            words += () if isinstance(key.kind, Colour) else key.kind.candidates
        for word in words:
            if not _WRITABLE.fullmatch(word):
                raise UserError(
                    f"'{word}' of data set '{self.name}' cannot be a name or value; "
                    "write it in small letters a-z, digits and single blanks or hyphens"
                )
        names = [key.name for key in self.keys]
        for name in names:
            if names.count(name) > 1:
                raise UserError(f"data set '{self.name}' has the key '{name}' twice")

    @property
    def template(self) -> str:
        """How its labels are written, "celeba gender: {female|male}; ..."."""
        pairs = [(k.name, f"{{{_values(k.kind)}}}") for k in self.keys]
        return write(self.name, pairs) if pairs else "the sentence itself"

    def key(self, name: str) -> Key:
        """The key of this name.

        Raises:
          UserError: there is none; the nearest is named.
        """
        for key in self.keys:
            if key.name == name:
                return key
        names = [key.name for key in self.keys]
        raise UserError(
            f"data set '{self.name}' has no key '{name}'{nearest(name, names)}; it has "
            + (", ".join(names) or "sentences only")
        )

    def pairs(self, record: Record) -> list[tuple[str, str]]:
        """(key, value) as text of all that a record says for certain."""
        said = ((key.name, key.text_of(record)) for key in self.keys)
        return [(name, text) for name, text in said if text is not None]


def _values(kind: Kind) -> str:
    if isinstance(kind, Colour):
        return "one of 140 colours"
    words = {"integer": "integer", "range": "a-b"}
    return "|".join(kind.candidates) or words[kind.kind]


def write(data_set: str, pairs: Iterable[tuple[str, str]]) -> str:
    """Pairs of texts as one text, the data set's name, if any, before the first key."""
    text = JOINT.join(f"{key}: {value}" for key, value in pairs)
    return f"{data_set} {text}".strip() if text else ""


@dataclasses.dataclass(frozen=True)
class Reading:
    """Result of parsing a text.

    Attributes:
      data_set: whose convention it follows; "" where no known one is named.
      values: key -> value; None where the text is no value of that key.
      unread: parts of the text that name no known key.
    """

    data_set: str = ""
    values: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    unread: tuple[str, ...] = ()

    @property
    def failures(self) -> int:
        """Parts that could not be read."""
        return len(self.unread) + sum(v is None for v in self.values.values())


def read(text: str, data_sets: Mapping[str, DataSet]) -> Reading:
    """The inverse of `write`; forgives blanks as WordPiece puts them, and nothing else.

    A key that is repeated counts as it was said first.

    Args:
      text: "celeba gender : male ; bald : true".
      data_sets: by name, such as `label_sets.TABLE`.
    """
    found: DataSet | None = None
    values: dict[str, Any] = {}
    unread = []
    for part in filter(None, map(str.strip, text.split(";"))):
        name, _, value = (plain(piece) for piece in part.partition(":"))
        if found is None and not unread:
            found = _named(name, data_sets)
            name = name.removeprefix(f"{found.name} ") if found else name
        kinds = {key.name: key.kind for key in found.keys} if found else {}
        if name in kinds:
            values.setdefault(name, kinds[name].read(value))
        else:
            unread.append(part)
    return Reading(found.name if found else "", values, tuple(unread))


def _named(text: str, data_sets: Mapping[str, DataSet]) -> DataSet | None:
    """The data set with the longest name that a text begins with."""
    named = [d for d in data_sets.values() if text.startswith(f"{d.name} ")]
    return max(named, key=lambda d: len(d.name), default=None)


def data_set_of(record: Record, data_sets: Mapping[str, DataSet]) -> DataSet | None:
    """The data set that a record belongs to, by the first part of its source."""
    part = record.source.split("/", 1)[0]
    for data_set in data_sets.values():
        if part in (*data_set.sources, data_set.name):
            return data_set
    return None


def draw(
    pairs: Sequence[tuple[str, str]],
    rng: np.random.Generator,
    *,
    most: int = 12,
    fits: Callable[[Sequence[tuple[str, str]]], bool] = lambda pairs: True,
) -> list[tuple[str, str]]:
    """s ~ Uniform{1..most} of the pairs in random order, fewer where they do not fit.

    Args:
      pairs: (key, value) texts.
      rng: of the choice.
      most: pairs in one text.
      fits: whether such a selection is within the budget; asked for one pair, then
        for two, and so on. A pair that does not fit is passed over.

    Returns:
      The selection; empty where not one fits or there are none.
    """
    order, count = rng.permutation(len(pairs)), int(rng.integers(1, most + 1))
    chosen: list[tuple[str, str]] = []
    for index in order:
        if len(chosen) < count and fits([*chosen, pairs[index]]):
            chosen.append(pairs[index])
    return chosen
