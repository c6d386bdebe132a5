"""What a sentence claims of a picture, found by exact wordings, and what is true."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping

from gptface_jax.data import phrases, tag_words

_NEGATION = r"\b(?:no|not|without|never|neither|nor) "
# What stands before a word that is ruled out, "not wearing a ", and between it and
# another one that is, "without a hat or ", but not "no beard, a hat or ".
_NOT = re.compile(rf"{_NEGATION}(?:(?:wearing|having|with|an?|the|any) )*$")
_OR = re.compile(
    rf"{_NEGATION}(?:(?:wearing|having|with) )?"
    r"(?:(?!(?:wearing|having|with|and|but) )[\w'-]+ ){1,6}"
    r"or (?:(?:wearing|having|an?|the|any) )*$"
)
_HAIR = re.compile(r"((?:[a-z]+[ ,]+){1,3})hair\b")
_OF_HAIR = phrases.HAIR_COLOURS | phrases.HAIR_SHAPES
_ADJECTIVES = "|".join(word for words in _OF_HAIR.values() for word in words)
# In "without long blond hair"; before it is asked what is ruled out.
_ITS_WORDS = re.compile(rf"\b(?:(?:{_ADJECTIVES}|long|short)[ ,]+)+hair$")
_ARTICLE = re.compile(r"^(?:an?|the|some) ")
# Beside the wordings of captions.
_SUBJECTS = {
    ("Male", True): ("man", "gentleman", "guy", "male", "he", "his"),
    ("Male", False): ("woman", "lady", "female", "she", "her"),
    ("Young", True): ("young",),
    ("Young", False): ("older", "mature", "middle-aged"),
}

Claim = tuple[str, bool]


@functools.cache
def _wordings() -> tuple[tuple[re.Pattern, Claim], ...]:
    """(pattern, claim), those of more letters first: "without glasses", "glasses"."""
    found: dict[str, Claim] = {}
    for name, entry in phrases.PHRASES.items():
        found |= {p: (name, False) for p in entry.absent}
        found |= {_ARTICLE.sub("", p): (name, True) for p in entry.present}
    for name, (present, absent) in phrases.TAGS.items():
        if name in phrases.PHRASES:
            found |= {absent: (name, False)} if absent else {}
            found |= {present: (name, True)}
    for claim, words in tag_words.WORDS.items():
        found |= {w: claim for w in words.split() if claim[0] in phrases.PHRASES}
    for claim, words in _SUBJECTS.items():
        found |= {word: claim for word in words}
    found |= {word: (name, True) for name, word in phrases.EXPRESSIONS.items()}
    longest = sorted(found, key=lambda text: (-len(text), text))
    return tuple((re.compile(rf"\b{re.escape(t)}\b"), found[t]) for t in longest)


def claimed(text: str) -> list[Claim]:
    """The (attribute, present) pairs that a sentence says, each once, sorted.

    Attributes are called as in CelebA, expressions as in records ("happiness"). Known
    are the wordings of `data.phrases` and their tags; "no", "not" or "without" before
    one turns it, and what follows after "or". The adjectives of hair are found before
    the word itself. Ages in decades are not looked for.
    """
    text = " ".join(text.lower().split())
    left, found = text, set()
    for match in _HAIR.finditer(left):
        adjectives = set(re.findall("[a-z]+", match[1]))
        words = _ITS_WORDS.search(left[: match.end()])
        turned = words is not None and _is_ruled_out(text, words.start())
        for name, shapes in _OF_HAIR.items():
            if adjectives & set(shapes):
                found.add((name, not turned))
    for pattern, (name, present) in _wordings():
        for match in pattern.finditer(left):
            # In the text as it was: what stands before may have been read.
            turned = _is_ruled_out(text, match.start())
            found.add((name, present != turned))
        # What was read is not read again, and what follows stays where it is.
        left = pattern.sub(lambda match: "_" * len(match[0]), left)
    return sorted(found)


def _is_ruled_out(text: str, start: int) -> bool:
    """Whether the words that begin at `start` stand after a negation, not their own."""
    before = text[:start]
    if _NOT.search(before):
        return True
    return bool(_OR.search(before)) and not re.match(_NEGATION, text[start:])


def truths(labels: Mapping[str, float] | None, expression: str = "") -> dict[str, bool]:
    """Certain labels of a picture, attribute or expression -> present.

    Args:
      labels: scores, certain above 0.9 and below 0.1.
      expression: the label, which rules the others out; "" where it is not known.
    """
    known = {name: phrases.known(labels or {}, name) for name in labels or {}}
    found = {n: state for n, state in known.items() if state is not None and n != "Age"}
    if expression:
        found |= {name: name == expression for name in phrases.EXPRESSIONS}
    return found
