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
        face = render(factors, self.size)
        truth = labels(factors)
        rng = np.random.default_rng([self.seed, number, 1])
        text = caption(
            truth,
            rng,
            expression=factors.expression,
            style=self.style,
            rho=self.rho,
        )
        return Record(
            image=face.image,
            text=text,
            labels=truth,
            expression=factors.expression,
            landmarks=face.landmarks,
            parsing=face.parsing,
            identity=factors.identity,
            source="synthetic",
        )
