"""What may be asked of a picture: a person's words as the key that a model knows."""

from __future__ import annotations

import dataclasses
import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gptface_jax.core.errors import UserError
from gptface_jax.data import captions, phrases
from gptface_jax.data.age_tokens import NUMBERS
from gptface_jax.data.label_text import DataSet, Key, write
from gptface_jax.data.label_values import Integer, plain

# Words of a question -> the label that is meant; besides the wordings of captions.
_MEANT = {
    "Male": "male female man woman sex gender",
    "Age": "age old years",
    "expression": "expression emotion mood feeling",
    "race": "race ethnicity",
    "Young": "young",
}
_ARTICLES = ("a", "an", "the")
# Of whom it is asked, which is no question of its own.
_SUBJECT = re.compile(r"\b(?:this|that|the) (?:man|woman|guy|lady|person|face)\b")
_ASKING = frozenset(
    "is are does do has have he she it they his her their this that there what which "
    "how wear wears wearing look looks looking like".split()
)
_SHOWN = 12  # known questions in an error


@dataclasses.dataclass(frozen=True)
class _Anything:
    """An answer to a key that no data set has: any text."""

    candidates: tuple[str, ...] = ()
    kind: str = "anything"

    def write(self, value: Any) -> str:
        return str(value)

    def read(self, text: str) -> str | None:
        return text or None


@dataclasses.dataclass(frozen=True)
class Question:
    """One attribute, asked by the convention of one data set.

    Attributes:
      data_set: whose convention the answer follows; "" for a key of one's own.
      key: what is asked.
      named: the model was taught to read the data set's name before the key.
    """

    data_set: str
    key: Key
    named: bool = True

    @property
    def name(self) -> str:
        """Data set and key, "lfw gender"."""
        return f"{self.data_set} {self.key.name}".strip()

    @property
    def prompt(self) -> str:
        """Prompt of the question, "lfw gender:"."""
        return f"{self.name if self.named else self.key.name}:"

    @property
    def candidates(self) -> tuple[str, ...]:
        """All answers there are, as text; () where they are open."""
        return self.key.kind.candidates

    def read(self, text: str) -> Any:
        """The value that an answer gives, None where it is none (SPEC B.9.1).

        Args:
          text: what came after the prompt; what follows a ";" is another attribute.
        """
        return self.key.kind.read(plain(text.split(";")[0]))


def of(data_sets: Mapping[str, DataSet], names: Iterable[str]) -> tuple[Question, ...]:
    """All questions about the data sets of these names, in their order."""
    return tuple(Question(n, key) for n in names for key in data_sets[n].keys)


def find(asked: str, trained: Sequence[Question]) -> Question:
    """The question that a person's words mean.

    Understood are the key with or without its data set ("lfw age", "age"), the label
    ("Wearing_Hat"), and words for it ("wearing a hat", "is she smiling?", "emotion",
    "how old is this man?").
    Where several data sets know the answer, the one trained first is asked. Words that
    end in a colon are taken as they are, as a key of one's own if no data set has them.

    Args:
      asked: the words.
      trained: questions that the model was trained to answer.

    Raises:
      UserError: nothing known is meant; the nearest known questions are named.
    """
    if asked.rstrip().endswith(":") and (own := plain(asked.rstrip(" :"))):
        known = [q for q in trained if own in (q.name, q.prompt.removesuffix(":"))]
        return known[0] if known else Question("", Key(own, own, _Anything()))
    text = plain(asked.replace("?", " "))
    said = " ".join(_words(text))
    for matches in (
        lambda q: said == q.name,
        lambda q: said == q.key.name,
        lambda q: said == plain(q.key.label),
    ):
        for question in filter(matches, trained):
            return question
    for part in (_SUBJECT.sub(" ", text), text):
        words = _words(part)
        meant = captions.named(part)
        meant += [n for n, hints in _MEANT.items() if {*hints.split()} & {*words}]
        if found := [q for q in trained if q.key.label in meant]:
            break
    # A question in plain words may name a part of the key, "does she wear makeup?".
    words = {*_words(_SUBJECT.sub(" ", text))}
    if not found and words & _ASKING and (rest := words - _ASKING):
        found = [q for q in trained if rest <= {*q.key.name.split()}]
    if found and len({q.key.label for q in found}) == 1:
        return found[0]
    raise UserError(_unknown(asked, said, found or trained, trained))


def _words(text: str) -> list[str]:
    return [word for word in text.split() if word not in _ARTICLES]


def parsed(text: str) -> dict[str, str]:
    """Attributes of a text "Smiling=true; Eyeglasses=false", name -> value.

    Raises:
      UserError: a part without a name or a value, or a name that is there twice.
    """
    found: dict[str, str] = {}
    for part in filter(None, map(str.strip, text.split(";"))):
        name, sign, value = map(str.strip, part.partition("="))
        if not (name and sign and value):
            raise UserError(
                f"attribute '{part}' is no NAME=VALUE; write e.g. 'Smiling=true; "
                "Eyeglasses=false'"
            )
        if name in found:
            raise UserError(
                f"attribute '{name}' is {found[name]} and {value}; say it once"
            )
        found[name] = value
    return found


def stated(attributes: Mapping[str, Any], trained: Sequence[Question]) -> str:
    """Attributes as a model has read them, "lfw smiling: true; eyeglasses: false".

    They are written by the convention of one data set that knows all of them.

    Args:
      attributes: name, understood as by `find`, -> value: True, "male", 25, ...
      trained: what the model was trained on.

    Raises:
      UserError: an unknown name or value, two names of one key, or no data set knows
        all of them.
    """
    if not attributes:
        return ""
    meant = {name: find(name, trained) for name in attributes}
    # "street hat" is asked of that data set and no other.
    named = [q.data_set for name, q in meant.items() if plain(name) == q.name]
    for data_set in dict.fromkeys(named or (q.data_set for q in trained)):
        if {*named} - {data_set}:
            break
        own = [q for q in trained if q.data_set == data_set]
        try:
            keys = {name: find(name, own).key for name in attributes}
        except UserError:
            continue
        return write(
            data_set if own[0].named else "",
            _pairs((name, keys[name], value) for name, value in attributes.items()),
        )
    said = ", ".join(f"'{name}' ({q.data_set})" for name, q in meant.items())
    raise UserError(f"no data set knows all of {said}; leave some of them out")


def _pairs(wanted: Iterable[tuple[str, Key, Any]]) -> list[tuple[str, str]]:
    """(key, value) as text of what a person calls (name, key, value)."""
    called: dict[str, str] = {}
    pairs = []
    for name, key, value in wanted:
        if key.name in called:
            raise UserError(
                f"'{called[key.name]}' and '{name}' are both '{key.name}'; say it once"
            )
        called[key.name] = name
        text = key.write(value)
        read = key.kind.read(text)
        if isinstance(key.kind, Integer) and read >= NUMBERS:
            raise UserError(
                f"'{name}' is {value}; give a number from 0 to {NUMBERS - 1}"
            )
        pairs.append((key.name, text))
    return pairs


def in_words(attributes: Mapping[str, Any], trained: Sequence[Question]) -> str:
    """A plain sentence that says attributes, "a man wearing glasses, smiling".

    Left out is what captions have no words for, such as the absence of a round face;
    "" where nothing is left.

    Args:
      attributes, trained: as of `stated`.

    Raises:
      UserError: an unknown name or value.
    """
    labels: dict[str, float] = {}
    expression = ""
    for name, value in attributes.items():
        key = find(name, trained).key
        said = key.kind.read(key.write(value))
        if key.label == "expression":
            expression = said
        elif isinstance(said, bool):
            labels[key.label] = float(said)
        elif key.label == "Age" and isinstance(said, int) and captions.decade(said):
            labels[key.label] = float(said)
    chosen = phrases.claims(labels)
    subject = {
        "male": phrases.known(labels, "Male"),
        "young": phrases.known(labels, "Young"),
        "age": labels.get("Age"),
        "expression": expression if expression in phrases.EXPRESSIONS else None,
    }
    subject = {name: value for name, value in subject.items() if value is not None}
    return captions.describe(chosen, **subject) if chosen or subject else ""


def _unknown(
    asked: str, said: str, among: Sequence[Question], trained: Sequence[Question]
) -> str:
    names = list(dict.fromkeys(q.key.name for q in among))
    if among is not trained:
        return f"'{asked}' asks several things; ask for one of " + ", ".join(names)
    near = difflib.get_close_matches(said, names, n=3, cutoff=0.5)
    if near:
        hint = "did you mean " + " or ".join(map(repr, near)) + "?"
    else:
        more = ", ..." if len(names) > _SHOWN else ""
        hint = f"it answers {', '.join(names[:_SHOWN])}{more}"
    return (
        f"the model was not trained to answer '{asked}': {hint} (a key of your own "
        "ends in a colon)"
    )
