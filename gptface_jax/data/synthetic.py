"""Drawn faces with exact labels, landmarks and parsing: data without downloads.

A face is a `Factors`; `render` turns it into pixels. Equal factors give equal
pixels, so two factors that differ in one field give an exact edit pair.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data.faces.attributes import (
    ATTRIBUTES,
    hidden,
    labels,
    set_attribute,
)
from gptface_jax.data.faces.draw import Face, edit_mask, render
from gptface_jax.data.faces.factors import (
    EXPRESSIONS,
    Factors,
    counterfactual,
    sample_factors,
)
from gptface_jax.data.record import Record

__all__ = [
    "ATTRIBUTES",
    "EXPRESSIONS",
    "Face",
    "Factors",
    "SyntheticEdits",
    "SyntheticFaces",
    "counterfactual",
    "edit_mask",
    "hidden",
    "labels",
    "render",
    "sample_factors",
    "set_attribute",
]


class SyntheticFaces(Sequence):
    """`count` drawn faces as records, made when asked for.

    Record i shows picture number `offset + i` of the endless collection of
    `seed`: other offsets give other people (keep them multiples of 4). It can be
    pickled, indexed in any order and from many processes at once.
    """

    def __init__(
        self,
        size: int = 64,
        count: int = 10000,
        seed: int = 0,
        rho: float = 1.0,
        style: str = "strong",
        offset: int = 0,
    ) -> None:
        """Takes the settings.

        Args:
          size: side of the pictures in pixels, 32..512.
          count: number of records.
          seed: seed of the collection.
          rho, style: see `data.captions.caption`.
          offset: number of the first picture.

        Raises:
          UserError: a negative count or offset.
        """
        if count < 0 or offset < 0:
            raise UserError(
                f"count {count} and offset {offset} of the drawn faces must not be "
                "negative"
            )
        self.size, self.count, self.seed = size, count, seed
        self.rho, self.style, self.offset = rho, style, offset

    def __len__(self) -> int:
        return self.count

    def factors(self, index: int) -> Factors:
        """The factors of record `index`; negative ones count from the end."""
        number = range(self.count)[index]
        return sample_factors(self.seed, self.offset + number)

    def __getitem__(self, index: int) -> Record:
        """Record `index`: image uint8 [S,S,3] with everything that is known of it."""
        from gptface_jax.data.captions import caption

        factors = self.factors(index)
        number = self.offset + range(self.count)[index]
        rng = np.random.default_rng([self.seed, number, 1])
        text = caption(
            labels(factors),
            rng,
            expression=factors.expression,
            style=self.style,
            rho=self.rho,
        )
        return _record(factors, self.size, text, "synthetic")


class SyntheticEdits(Sequence):
    """Pairs of drawn faces that differ in one attribute, for learning to edit.

    Records 2i and 2i + 1 are face i of `SyntheticFaces` and the same with one visible
    attribute changed. The text of each is the sentence that asks for it, given the
    other one; that of the first is "" where its state has no words.
    """

    def __init__(
        self, size: int = 64, count: int = 10000, seed: int = 0, offset: int = 0
    ) -> None:
        """Takes the settings.

        Args:
          size, seed, offset: see `SyntheticFaces`.
          count: number of records, two a pair.

        Raises:
          UserError: half a pair.
        """
        if count % 2:
            raise UserError(
                f"count {count} of drawn pairs of faces is odd; give an even number"
            )
        self.size, self.count, self.seed, self.offset = size, count, seed, offset
        self._faces = SyntheticFaces(size, count // 2, seed, offset=offset)

    def __len__(self) -> int:
        return self.count

    def change(self, pair: int) -> tuple[Factors, Factors, str, bool]:
        """(before, after, attribute, whether it is there after) of a pair."""
        before = self._faces.factors(pair)
        rng = np.random.default_rng([self.seed, self.offset + pair, 2])
        truth, unseen = labels(before), hidden(before)
        open_to = [
            (name, not truth[name])
            for name in ATTRIBUTES
            if name not in unseen and _sentence(name, not truth[name])
        ]
        name, present = open_to[int(rng.integers(len(open_to)))]
        return before, set_attribute(before, name, present), name, present

    def __getitem__(self, index: int) -> Record:
        """Record `index`, with everything that is known of it."""
        pair, second = divmod(range(self.count)[index], 2)
        before, after, name, present = self.change(pair)
        rng = np.random.default_rng([self.seed, self.offset + pair, 3 + second])
        if second:
            text = _sentence(name, present, labels(before), rng)
            return _record(after, self.size, text, EDITS)
        text = _sentence(name, not present, labels(after), rng)
        return _record(before, self.size, text, EDITS)


# Source of the records of `SyntheticEdits`.
EDITS = "synthetic_edits"


def _sentence(name: str, present: bool, known=None, rng=None) -> str:
    """Asks for an attribute or its absence; "" where no words do, or mean another."""
    from gptface_jax.data import captions, phrases

    alike = name in (*phrases.HAIR_COLOURS, *phrases.HAIR_SHAPES)
    if alike and not present:  # of black hair the contrary is one of many colours
        return ""
    said = phrases.PHRASES.get(name)
    if said and not present and not said.absent:
        return ""
    return captions.edit_text(name, present, known, rng)


def _record(factors: Factors, size: int, text: str, source: str) -> Record:
    face = render(factors, size)
    return Record(
        image=face.image,
        text=text,
        labels=labels(factors),
        expression=factors.expression,
        landmarks=face.landmarks,
        parsing=face.parsing,
        identity=factors.identity,
        source=source,
    )
