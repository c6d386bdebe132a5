"""Strengths of attributes, one slider each: their sentences and regions (SPEC E.15)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import captions, phrases, regions

LIMIT = 4.0

# An attribute with a sentence for it and one against it.
ATTRIBUTES = (
    *(name for name, wording in phrases.PHRASES.items() if wording.absent),
    *phrases.HAIR_COLOURS,
    *phrases.HAIR_SHAPES,
    "Male",
    "Young",
)


@dataclasses.dataclass(frozen=True)
class Direction:
    """How far to go from one sentence towards another.

    Attributes:
      sentence, opposite: what an attribute looks like, and its absence.
      weight: w of w (z_sentence - z_opposite); below 0 away from the sentence.
    """

    sentence: str
    opposite: str
    weight: float


def directions(strength: Mapping[str, float] | None) -> tuple[Direction, ...]:
    """A Direction for each attribute whose strength is not 0, in their own order.

    Args:
      strength: CelebA name -> -4 to 4; None for none.

    Raises:
      UserError: an attribute without sentences, or a strength beyond the limits.
    """
    strength = strength or {}
    for name, weight in strength.items():
        if name not in ATTRIBUTES:
            raise UserError(
                f"no strength of '{name}'{nearest(name, ATTRIBUTES)}; known are "
                + ", ".join(ATTRIBUTES)
            )
        # NaN is beyond them as well.
        if not (math.isfinite(weight) and -LIMIT <= weight <= LIMIT):
            raise UserError(
                f"the strength of '{name}' is {weight}; use {-LIMIT:g} to {LIMIT:g}"
            )
    # In an order of their own: sums of floats depend on it.
    return tuple(
        Direction(*sentences(name), float(strength[name]))
        for name in ATTRIBUTES
        if strength.get(name)
    )


def sentences(name: str) -> tuple[str, str]:
    """The sentence that asks for an attribute, and the one that rules it out."""
    return captions.edit_text(name, True), captions.edit_text(name, False)


def asked_for(text: str, strength: Mapping[str, float] | None) -> str:
    """The request of an edit in words: "a woman, Smiling +2, Wearing Hat -1"."""
    turned = (f"{n.replace('_', ' ')} {w:+g}" for n, w in (strength or {}).items())
    return ", ".join(part for part in (text, *turned) if part)


def region(names: Iterable[str]) -> str:
    """The union of the regions in which attributes show, as `Model.edit` takes it.

    Raises:
      UserError: an attribute of which none is known.
    """
    found: dict[str, None] = {}
    for name in names:
        if name not in regions.OF_ATTRIBUTE:
            raise UserError(
                f"no region is known where '{name}' shows; give a region, box or mask"
            )
        found[regions.OF_ATTRIBUTE[name]] = None
    return "+".join(found)


def from_text(
    text: str, what: str = "strength", example: str = "Smiling=1,Eyeglasses=-1"
) -> dict[str, float]:
    """ "Smiling=1,Eyeglasses=-1" -> {"Smiling": 1.0, "Eyeglasses": -1.0}.

    Args:
      text: of a user.
      what, example: in messages.

    Raises:
      UserError: a part that is no NAME=NUMBER, or a name twice.
    """
    found: dict[str, float] = {}
    for part in text.split(","):
        name, _, number = (piece.strip() for piece in part.partition("="))
        try:
            weight = float(number)
        except ValueError:
            raise UserError(
                f"{what} '{part.strip()}' is no NAME=NUMBER; write e.g. {example}"
            ) from None
        if name in found:
            raise UserError(f"{what} names '{name}' twice")
        found[name] = weight
    return found
