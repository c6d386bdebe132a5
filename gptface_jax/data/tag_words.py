"""Which single words are true of a picture, and how true: grades 0, 1 and 2."""

from __future__ import annotations

import re
from collections.abc import Mapping

from gptface_jax.data import captions, phrases

# (attribute or expression, present) -> the words that say so without another word.
WORDS = {
    ("Male", True): "man gentleman guy",
    ("Male", False): "woman lady",
    ("Young", True): "young",
    ("Young", False): "older mature",
    ("Smiling", True): "smiling smile",
    ("Smiling", False): "serious",
    ("Eyeglasses", True): "glasses eyeglasses",
    ("Wearing_Hat", True): "hat headwear",
    ("Wearing_Hat", False): "bareheaded",
    ("No_Beard", False): "beard bearded",
    ("Mustache", True): "mustache moustache",
    ("Goatee", True): "goatee",
    ("Sideburns", True): "sideburns",
    ("5_o_Clock_Shadow", True): "stubble",
    ("Bald", True): "bald",
    ("Bangs", True): "bangs fringe",
    ("Blond_Hair", True): "blond blonde",
    ("Wavy_Hair", True): "wavy curly",
    ("Chubby", True): "chubby",
    ("Wearing_Lipstick", True): "lipstick",
    ("Heavy_Makeup", True): "makeup",
    ("Wearing_Necktie", True): "tie necktie",
    ("Wearing_Necktie", False): "tieless",
    ("Wearing_Earrings", True): "earrings",
    ("Wearing_Necklace", True): "necklace",
    **{(name, True): word for name, word in phrases.EXPRESSIONS.items()},
}
# They fit every picture.
STOP = frozenset(
    "a an and are bare he her his in is looking no not of on she someone the this to "
    "wearing with without".split()
)


def grades(labels: Mapping[str, float] | None, expression: str = "") -> dict[str, int]:
    """The words that are true of a picture.

    Args:
      labels: attribute -> score in 0..1.
      expression: the expression label, or "".

    Returns:
      word -> 2 where it says by itself what is surely so (a score above 0.9, or below
      0.1 of what is absent: the scores that captions rely on); 1 where that is likely
      (beyond 0.5), or where the word is a part of a tag that is surely true, "mouth"
      of "open mouth". Words that are not there have grade 0.
    """
    scores = {**(labels or {}), **({expression: 1.0} if expression else {})}
    said = re.findall("[a-z]+", captions.word_bag(labels, expression=expression))
    found = {word: 1 for word in said if word not in STOP}
    for (name, present), words in WORDS.items():
        if name not in scores:
            continue
        score = scores[name] if present else 1 - scores[name]
        if score > 0.5:
            grade = 2 if score > phrases.HIGH else 1
            found |= {w: max(grade, found.get(w, 0)) for w in words.split()}
    return found
