"""How one label is written as a word, and how the word is read (SPEC B.7.2, B.9.1).

Every kind has `write(value) -> str`, `read(text) -> value | None`, where None says that
the text is no such answer, and `candidates`, all it may write, () where that is open.
"""

from __future__ import annotations

import dataclasses
import math
import re
from typing import Any, ClassVar, Protocol

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import colour_names


class Kind(Protocol):
    """Base class of the label kinds."""

    @property
    def candidates(self) -> tuple[str, ...]: ...

    def write(self, value: Any) -> str:
        """Raises: UserError: a value of another kind."""

    def read(self, text: str) -> Any:
        """The value, or None."""


@dataclasses.dataclass(frozen=True)
class Boolean:
    """True or false, in two words that may be others ("male", "female")."""

    kind: ClassVar[str] = "boolean"
    false: str = "false"
    true: str = "true"

    @property
    def candidates(self) -> tuple[str, ...]:
        return (self.false, self.true)

    def write(self, value: bool | int) -> str:
        if value not in (0, 1):
            raise UserError(
                f"{value!r} is neither true nor false; give True, False, 1, 0, "
                f"'{self.true}' or '{self.false}'"
            )
        return self.candidates[bool(value)]

    def read(self, text: str) -> bool | None:
        """The value by the first word: "true enough" is true."""
        for value in (True, False):
            word = self.candidates[value]
            if text == word or text.startswith(f"{word} "):
                return value
        return None


@dataclasses.dataclass(frozen=True)
class Integer:
    """A number of at least 0.

    Attributes:
      apart: its digits are written one by one, "2 5", so that a vocabulary with a
        piece for every number still shows the order of tens.
    """

    kind: ClassVar[str] = "integer"
    candidates: ClassVar[tuple[str, ...]] = ()
    apart: bool = False

    def write(self, value: float | str) -> str:
        try:
            number = float(value)
        except (TypeError, ValueError):
            number = math.nan
        if not 0 <= number < math.inf:
            raise UserError(f"{value!r} is no number of at least 0")
        digits = str(round(number))
        return " ".join(digits) if self.apart else digits

    def read(self, text: str) -> int | None:
        pattern = "[0-9]( [0-9])*" if self.apart else "[0-9]+"
        if not re.fullmatch(pattern, text):
            return None
        return int(text.replace(" ", ""))


@dataclasses.dataclass(frozen=True)
class Word:
    """One of several words or ranges, read when it is exactly that."""

    kind: ClassVar[str] = "word"
    candidates: tuple[str, ...]

    def write(self, value: str | float) -> str:
        whole = isinstance(value, float) and value.is_integer()
        text = plain(str(int(value) if whole else value))
        if text not in self.candidates:
            raise UserError(
                f"{value!r}{nearest(text, self.candidates)} is none of "
                + ", ".join(self.candidates)
            )
        return text

    def read(self, text: str) -> str | None:
        return text if text in self.candidates else None


@dataclasses.dataclass(frozen=True)
class Range:
    """A number as the range it lies in, "20-29": the text is the label.

    Attributes:
      width: of the ranges, which begin at its multiples.
    """

    kind: ClassVar[str] = "range"
    candidates: ClassVar[tuple[str, ...]] = ()
    width: int = 10

    def write(self, value: float | str) -> str:
        text = plain(str(value))
        start, _, _ = text.partition("-") if self.read(text) else (text, "", "")
        try:
            number = float(start)
        except ValueError:
            number = math.nan
        if not 0 <= number < math.inf:
            raise UserError(
                f"{value!r} is no range such as '20-29' and no number of at least 0"
            )
        first = int(number) // self.width * self.width
        found = f"{first}-{first + self.width - 1}"
        if self.read(text) not in (None, found):
            raise UserError(
                f"{value!r} is none of the ranges of width {self.width}, which begin "
                "at its multiples; list your ranges as the values of a key of kind: "
                "word"
            )
        return found

    def read(self, text: str) -> str | None:
        found = re.fullmatch("([0-9]+)-([0-9]+)", text)
        return text if found and int(found[1]) <= int(found[2]) else None


@dataclasses.dataclass(frozen=True)
class Colour:
    """A colour by its name; written from a name or from "188,143,142".

    Attributes:
      space: where the nearest name is looked for, see `colour_names.nearest_name`.
    """

    kind: ClassVar[str] = "colour"
    candidates: ClassVar[tuple[str, ...]] = colour_names.NAMES
    space: str = "rgb"

    def write(self, value: str | tuple[int, int, int]) -> str:
        name = plain(value) if isinstance(value, str) else ""
        return (
            name
            if name in colour_names.NAMES
            else colour_names.nearest_name(value, self.space)
        )

    def read(self, text: str) -> str | None:
        return text if text in colour_names.NAMES else None


KINDS = {cls.kind: cls for cls in (Boolean, Integer, Word, Range, Colour)}


def plain(text: str) -> str:
    """A text as a value or key is written: lower case, single blanks, none at hyphens.

    Undoes what WordPiece does to it: "10 - 20" is "10-20".
    """
    text = re.sub(r"\s*-\s*", "-", text.lower().replace("_", " "))
    return " ".join(text.split())
