"""Lines that have nothing to do with a picture, as found beside pictures on the web."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# Names are invented, of these syllables.
_SYLLABLES = (
    "al be cor da en fa gri ho il ja ka lo mar ne o pe qua ri sa to ul ve".split()
)
_NEWS = (
    "markets close higher after a quiet week",
    "minister opens the new bridge on monday",
    "team wins the final after extra time",
    "storm warning for the northern coast",
    "council votes on the budget tonight",
    "festival draws record crowds this summer",
    "talks continue ahead of the summit",
    "court hears the case next month",
)
_SHOP = (
    "free shipping on all orders over 50",
    "new arrivals in store now",
    "summer sale up to 40 % off",
    "click to enlarge the picture",
    "available in three colours and all sizes",
    "best price guaranteed",
    "add to cart",
)
_MISC = (
    "img 20140612 114502",
    "profile picture",
    "page 3 of 12",
    "stock image, all rights reserved",
    "photo by the press office",
    "archive 1998",
    "read more",
)


def pick(options: Sequence[str], rng: np.random.Generator) -> str:
    """One of the options, each equally likely.

    It takes one number from `rng` however many options there are: the negative of
    `captions.hard_negative` then draws the same words in all that it does not turn.
    """
    return options[int(rng.random() * len(options))]


def name_like(rng: np.random.Generator) -> str:
    """An invented name of two words."""
    words = []
    for _ in range(2):
        count = int(rng.integers(2, 4))
        words.append("".join(pick(_SYLLABLES, rng) for _ in range(count)))
    return " ".join(words)


def web_line(rng: np.random.Generator) -> str:
    """A headline, a shop line or a scrap."""
    return pick((_NEWS, _SHOP, _MISC)[int(rng.integers(3))], rng)


def unrelated(rng: np.random.Generator) -> str:
    """A headline, a shop line, a name or a scrap, as found beside web pictures."""
    kind = int(rng.integers(4))
    if kind == 3:
        return name_like(rng)
    line = pick((_NEWS, _SHOP, _MISC)[kind], rng)
    return f"{name_like(rng)}: {line}" if rng.random() < 0.3 else line
