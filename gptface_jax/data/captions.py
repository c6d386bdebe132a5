"""Sentences from attribute scores: strong, weak and contradicting ones.

A strong caption describes the picture with varied wording. A weak one is a line
as it stands beside a picture on the web: with probability rho it mentions
something true, otherwise it has nothing to do with the picture.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data.phrases import (
    EXPRESSIONS,
    HAIR_COLOURS,
    HAIR_SHAPES,
    PHRASES,
    TAGS,
    claims,
    known,
)
from gptface_jax.data.unrelated_text import name_like, pick, unrelated, web_line

_NOUNS = {
    True: ("man", "man", "gentleman", "guy"),
    False: ("woman", "woman", "lady"),
    None: ("person", "someone"),
}
_FILLERS = frozenset(
    "a an and in is looking no not of on over pair s some the under wearing with "
    "without".split()
)
_AGES = {True: ("young",), False: ("older", "mature", "middle-aged")}
_OPENERS = ("", "", "", "a photo of ", "a portrait of ", "this is ", "close-up of ")
_TENS = (
    "teens twenties thirties forties fifties sixties seventies eighties nineties"
).split()

_WEAK_FRAMES = (
    "{fact}, {line}",
    "{line} - {fact}",
    "{name}, {fact}",
    "{fact} at {name} square",
    "{fact} | {line}",
)


def _weight(claim: tuple[str, bool]) -> float:
    name, present = claim
    weight = PHRASES[name].weight if name in PHRASES else 1.2
    return weight if present else 0.5 * weight


def choose(
    labels: Mapping[str, float],
    rng: np.random.Generator,
    max_phrases: int,
    attributes: Sequence[str] | None = None,
    fewest: int = 1,
) -> list[tuple[str, bool]]:
    """Claims drawn by their weights without repetition, fewest..max_phrases of them.

    Raises:
      UserError: max_phrases below 1.
    """
    if max_phrases < 1:
        raise UserError(f"max_phrases is {max_phrases}; use 1 or more")
    pool = [c for c in claims(labels) if attributes is None or c[0] in attributes]
    if not pool:
        return []
    number = min(len(pool), int(rng.integers(max(1, fewest), max_phrases + 1)))
    weights = np.array([_weight(c) for c in pool])
    order = np.argsort(-np.log(rng.random(len(pool))) / weights)
    return [pool[i] for i in sorted(order[:number], key=lambda i: rng.random())]


def _joined(parts: Sequence[str]) -> str:
    if len(parts) < 2:
        return "".join(parts)
    return ", ".join(parts[:-1]) + " and " + parts[-1]


def describe(
    chosen: Sequence[tuple[str, bool]],
    rng: np.random.Generator | None = None,
    *,
    male: bool | None = None,
    young: bool | None = None,
    expression: str = "",
    age: float | None = None,
    apart: str = "",
) -> str:
    """A sentence that says the claims.

    Args:
      chosen: (attribute, present) pairs, in the order to be mentioned.
      rng: chooses among the wordings; None takes the first ones.
      male, young: None leaves them open.
      expression: one of `EXPRESSIONS`, or "".
      age: in years, or None; said from 10 to 99.
      apart: attribute that gets a clause of its own, so that the rest of the
        sentence is the same whether it is present or absent.

    Returns:
      A lower-case sentence without a full stop.
    """
    rng = rng or _First()
    clauses = _clauses(chosen, rng, apart)
    if expression in EXPRESSIONS:
        clauses.append(f"looking {EXPRESSIONS[expression]}")
    if age is not None and (tens := decade(age)):
        owner = {True: "his", False: "her", None: "the"}[male]
        clauses.append(f"in {owner} {tens}")
    noun = pick(_NOUNS[male], rng)
    adjective = "" if young is None else pick(_AGES[young], rng)
    if noun == "someone":
        subject = f"someone {adjective}".strip()
    else:
        first = adjective or noun
        subject = f"{'an' if first[0] in 'aeiou' else 'a'} {adjective} {noun}"
    subject = " ".join(subject.split())
    return f"{pick(_OPENERS, rng)}{subject} {', '.join(clauses)}".strip()


def decade(age: float) -> str:
    """The word for an age, "thirties" of 34; "" below 10 and from 100 on."""
    return _TENS[int(age) // 10 - 1] if 10 <= age < 100 else ""


def _clauses(
    chosen: Sequence[tuple[str, bool]], rng: np.random.Generator, apart: str
) -> list[str]:
    """Clauses that say the claims, as "with a beard and red hair"; see `describe`."""
    words: dict[str, list[str]] = {"with": [], "wearing": [], "doing": []}
    hair: dict[bool, str] = {}  # colour: True, shape: False
    for name, present in chosen:
        if name in PHRASES:
            entry = PHRASES[name]
            slot = entry.slot if present else "doing"
            phrase = pick(entry.present if present else entry.absent, rng)
            if name == apart and slot != "doing":
                slot, phrase = "doing", f"{slot} {phrase}"
            words[slot].append(phrase)
        elif name in HAIR_COLOURS:
            hair[True] = pick(HAIR_COLOURS[name], rng)
        elif name in HAIR_SHAPES:
            hair[False] = pick(HAIR_SHAPES[name], rng)
    if hair:
        adjectives = [hair[k] for k in (False, True) if k in hair]
        words["with"].insert(0, " ".join([*adjectives, "hair"]))
    clauses = []
    for slot in ("with", "wearing"):
        if words[slot]:
            clauses.append(f"{slot} {_joined(words[slot])}")
    return [*clauses, *words["doing"]]


def tag_list(
    chosen: Sequence[tuple[str, bool]],
    rng: np.random.Generator,
    *,
    male: bool | None = None,
    young: bool | None = None,
    expression: str = "",
) -> str:
    """A list of tags that says the claims, "man, glasses, no hat", in any order."""
    tags = _tags(chosen, male, young, expression)
    return ", ".join(tags[i] for i in rng.permutation(len(tags)))


def _tags(chosen, male, young, expression) -> list[str]:
    tags = []
    if male is not None:
        tags.append("man" if male else "woman")
    if young is not None:
        tags.append("young" if young else "older")
    if expression in EXPRESSIONS:
        tags.append(EXPRESSIONS[expression])
    for name, present in chosen:
        if name in TAGS:
            tags.append(TAGS[name][0 if present else 1])
        elif name in PHRASES:
            entry = PHRASES[name]
            words = (entry.present if present else entry.absent)[0]
            tags.append(words.removeprefix("a ").removeprefix("the "))
    return [t for t in tags if t]


def word_bag(
    labels: Mapping[str, float] | None,
    *,
    expression: str = "",
    attributes: Sequence[str] | None = None,
) -> str:
    """All words that are true of a picture.

    Args:
      labels, expression: as for `caption`.
      attributes: what may be named besides sex, age group and expression; None for
        all.

    Returns:
      Words in a fixed order, "" where nothing is known.
    """
    labels = labels or {}
    chosen = [c for c in claims(labels) if attributes is None or c[0] in attributes]
    return " ".join(
        _tags(chosen, known(labels, "Male"), known(labels, "Young"), expression)
    )


def caption(
    labels: Mapping[str, float] | None,
    rng: np.random.Generator,
    *,
    expression: str = "",
    max_phrases: int = 6,
    style: str = "strong",
    rho: float = 1.0,
    tags: float = 0.0,
    attributes: Sequence[str] | None = None,
) -> str:
    """A text for a picture.

    Args:
      labels: attribute -> score 0..1, used above 0.9 and below 0.1; may hold
        "Age" in years.
      rng: numpy generator; the same state gives the same text.
      expression: the expression label, or "".
      max_phrases: most claims in one text, at least 1; sex, age group, expression
        and age do not count.
      style: "strong" (a description) or "weak" (a web-like line).
      rho: probability that the text is about the picture at all.
      tags: probability of a list of tags instead of a sentence; it names one and
        a half times as many attributes.
      attributes: what may be mentioned besides sex, age group, expression and
        age; None for all.

    Returns:
      The text; unrelated with probability 1 - rho, else "" where nothing is known.

    Raises:
      UserError: an unknown style, or max_phrases below 1.
    """
    if style not in ("strong", "weak"):
        raise UserError(f"caption style '{style}' is unknown; use 'strong' or 'weak'")
    labels = labels or {}
    related = rng.random() < rho
    if not related:
        return unrelated(rng)
    listed = bool(tags) and rng.random() < tags
    most = max_phrases if style == "strong" else min(2, max_phrases)
    if listed and style == "strong":
        most = most + most // 2
    chosen = choose(labels, rng, most, attributes, fewest=most // 2 if listed else 1)
    subject = _subject(labels, expression, rng)
    if not chosen and subject["male"] is None:
        if not expression:
            return ""
        subject["expression"] = expression  # all there is to say
    if listed:
        subject.pop("age")
        text = tag_list(chosen, rng, **subject) or describe([], rng)
    else:
        text = describe(chosen, rng, **subject)
    if style == "strong":
        return text
    line = web_line(rng)
    return pick(_WEAK_FRAMES, rng).format(fact=text, line=line, name=name_like(rng))


def _subject(labels, expression, rng) -> dict:
    """Sex, age group, expression and age, each mentioned or left out."""
    mention = rng.random(4)
    age = labels.get("Age")
    return {
        "male": known(labels, "Male") if mention[0] < 0.85 else None,
        "young": known(labels, "Young") if mention[1] < 0.4 else None,
        "expression": expression if mention[2] < 0.25 else "",
        "age": age if age is not None and mention[3] < 0.1 else None,
    }


def hard_negative(
    labels: Mapping[str, float] | None,
    rng: np.random.Generator,
    *,
    max_phrases: int = 6,
    attributes: Sequence[str] | None = None,
) -> tuple[str, str] | None:
    """A true text and the same text with one attribute turned into its opposite.

    Args:
      labels, rng, max_phrases, attributes: as for `caption`.

    Returns:
      (true, false), equal but for the words of one claim (for sex the noun, and
      "his" or "her" before an age); None where nothing can be turned.
    """
    labels = labels or {}
    chosen = choose(labels, rng, max_phrases, attributes)
    subject = _subject(labels, "", rng)
    turnable = [i for i, c in enumerate(chosen) if _opposite(c, labels, rng)]
    if subject["male"] is not None:
        turnable.append(-1)
    if not turnable:
        return None
    position = int(turnable[int(rng.integers(len(turnable)))])
    turned, other, apart = list(chosen), dict(subject), ""
    if position < 0:
        other["male"] = not subject["male"]
    else:
        turned[position] = _opposite(chosen[position], labels, rng)
        apart = chosen[position][0]
    seed = int(rng.integers(2**31))
    return (
        describe(chosen, np.random.default_rng(seed), **subject, apart=apart),
        describe(turned, np.random.default_rng(seed), **other, apart=apart),
    )


def _opposite(claim, labels, rng) -> tuple[str, bool] | None:
    name, present = claim
    for group in (HAIR_COLOURS, HAIR_SHAPES):
        if name in group:
            others = [n for n in group if known(labels, n) is False]
            return (pick(others, rng), True) if others else None
    if not present or PHRASES[name].absent:
        return name, not present
    return None


def edit_text(
    attribute: str,
    present: bool,
    labels: Mapping[str, float] | None = None,
    rng: np.random.Generator | None = None,
) -> str:
    """The sentence that asks for an attribute, or for its opposite.

    Args:
      attribute: a CelebA name ("Smiling", "Black_Hair", "Male", ...).
      present: whether it is asked for or ruled out.
      labels: says whether to write man, woman or person.
      rng: varies the wording; None takes the first one.

    Raises:
      UserError: an attribute without words, or without words for its absence.
    """
    rng = rng or _First()
    male = known(labels or {}, "Male")
    if attribute == "Male":
        return describe([], rng, male=present)
    if attribute == "Young":
        return describe([], rng, male=male, young=present)
    sayable = (*PHRASES, *HAIR_COLOURS, *HAIR_SHAPES)
    if attribute not in sayable:
        raise UserError(
            f"no words for attribute '{attribute}'{nearest(attribute, sayable)}"
        )
    claim = (attribute, present)
    if not present and not (attribute in PHRASES and PHRASES[attribute].absent):
        other = {"Black_Hair": "Blond_Hair", "Wavy_Hair": "Straight_Hair"}
        other |= {"Straight_Hair": "Wavy_Hair"}
        if attribute in PHRASES:
            raise UserError(f"no words for the absence of '{attribute}'")
        claim = (other.get(attribute, "Black_Hair"), True)
    return describe([claim], rng, male=male)


def named(text: str) -> list[str]:
    """The attributes that a sentence asks for or rules out; sex and age are not said.

    One is named where all words of one of its phrases occur.
    """
    said = set(_content(text))
    wordings = {name: (*p.present, *p.absent) for name, p in PHRASES.items()}
    for name, shapes in (HAIR_COLOURS | HAIR_SHAPES).items():
        wordings[name] = tuple(f"{shape} hair" for shape in shapes)
    for name, tags in TAGS.items():
        wordings[name] += tuple(tag for tag in tags if tag)
    return [
        name
        for name, phrases in wordings.items()
        if any(said.issuperset(_content(phrase)) for phrase in phrases)
    ]


def _content(text: str) -> list[str]:
    """The words of a phrase that could not be in any other."""
    return [w for w in re.findall("[a-z]+", text.lower()) if w not in _FILLERS]


class _First:
    """A generator that always takes the first alternative."""

    def random(self) -> float:
        return 0.0
