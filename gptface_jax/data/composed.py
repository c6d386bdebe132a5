"""Sources made of other sources: mixed, renamed, or some records of one."""

from __future__ import annotations

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data.record import Record


class Mixture(Sequence):
    """Several sources in chosen proportions, as one.

    Args:
      sources: the parts.
      weights: share of each; by default their lengths.
      length: records in one pass; by default the sum of the lengths. A part is
        repeated, or read in part, to fill its share.

    Attributes:
      weights: as given.
    """

    def __init__(
        self,
        sources: Sequence[Sequence[Record]],
        weights: Sequence[float] | None = None,
        length: int | None = None,
    ):
        self.sources = list(sources)
        if not self.sources:
            raise UserError(
                "a mixture needs sources, a list of specs; give one or more"
            )
        self.weights = weights
        sizes = [len(s) for s in self.sources]
        shares = np.array(weights or sizes, float)
        if len(shares) != len(sizes) or (shares <= 0).any():
            raise UserError(f"mixture weights {list(weights or [])}: one > 0 a source")
        total = length or sum(sizes)
        self.bounds = np.round(np.cumsum(shares) / shares.sum() * total).astype(int)

    def __len__(self) -> int:
        return int(self.bounds[-1])

    def __getitem__(self, index: int) -> Record:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = int(np.searchsorted(self.bounds, index, side="right"))
        start = 0 if part == 0 else int(self.bounds[part - 1])
        source = self.sources[part]
        return source[(index - start) % len(source)]


def parts(source: Sequence[Record], start: int = 0) -> list[range]:
    """Numbers of the records of each part of a mixture, of mixtures in it as well.

    Args:
      source: a mixture, or another source, which is one part.
      start: number of its first record.
    """
    if not isinstance(source, Mixture):
        return [range(start, start + len(source))]
    found = []
    for part, first, stop in zip(source.sources, [0, *source.bounds], source.bounds):
        whole = int(stop - first) == len(part)  # else repeated, or read in part
        inside = parts(part) if whole else [range(int(stop - first))]
        found += [
            range(start + int(first) + r.start, start + int(first) + r.stop)
            for r in inside
        ]
    return found


class Chosen(Sequence):
    """The records of a source with these numbers, in their order."""

    def __init__(self, source: Sequence[Record], indices: Sequence[int]):
        self.source, self.indices = source, np.asarray(indices, np.int64)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Record:
        return self.source[int(self.indices[index])]


class Fold(Chosen):
    """What cross-validation trains on, or holds out, with people kept apart.

    The people of a source are dealt out to the folds, each with all pictures: those
    with most first, to the fold that has fewest pictures. A record without an identity
    is a person of its own.

    Args:
      source: the records; each is read once.
      folds: parts, of which each is held out once.
      fold: the one that is, from 0.
      held_out: the records of that part; else of all others.
      people_of: records whose people are dealt out instead, so that `source` is trained
        on without those that their fold holds out. Of nobody else is a record held out.
    """

    def __init__(
        self,
        source: Sequence[Record],
        folds: int = 5,
        fold: int = 0,
        held_out: bool = False,
        people_of: Sequence[Record] | None = None,
    ):
        if folds < 2 or not 0 <= fold < folds:
            raise UserError(f"fold {fold} of {folds}: give 2 folds or more, from 0")
        own = people = _by_person(source)
        if people_of is not None:
            people = _by_person(people_of)
            _check_shared(own, people)
        if len(people) < folds:
            raise UserError(f"{folds} folds of {len(people)} people; use fewer folds")
        sizes, held = [0] * folds, set()
        for person in sorted(people, key=lambda p: len(people[p]), reverse=True):
            smallest = sizes.index(min(sizes))
            sizes[smallest] += len(people[person])
            if smallest == fold:
                held.add(person)
        chosen = [n for p, numbers in own.items() if (p in held) == held_out
                  for n in numbers]  # fmt: skip
        super().__init__(source, sorted(chosen))


def _by_person(source: Sequence[Record]) -> dict[Any, list[int]]:
    """Numbers of each person's records; one without an identity is its own person."""
    people = collections.defaultdict(list)
    for i in range(len(source)):
        person = source[i].identity
        people[("record", i) if person is None else str(person)].append(i)
    return people


def _check_shared(
    own: Mapping[Any, list[int]], people: Mapping[Any, list[int]]
) -> None:
    """Refuses to cut a source by the people of another where that would do nothing."""
    if nobody := [person[1] for person in own if isinstance(person, tuple)]:
        raise UserError(
            f"record {nobody[0]} of the source of a fold has no identity, and may show "
            "anyone whom people_of holds out; give identities, or leave the source out"
        )
    if not own.keys() & people.keys():
        raise UserError(
            f"none of the {len(own)} people of the source of a fold is among the "
            f"{len(people)} of people_of; name people alike in both, or leave "
            "people_of out"
        )


class Pairs(Sequence):
    """Records 2i and 2i + 1 of a source as item i.

    Args:
      source: with records in pairs, such as `synthetic.SyntheticEdits` or its cache.
    """

    def __init__(self, source: Sequence[Record]):
        self.source = source

    def __len__(self) -> int:
        return len(self.source) // 2

    def __getitem__(self, index: int) -> tuple[Record, Record]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.source[2 * index], self.source[2 * index + 1]


class Interleaved(Sequence):
    """Several sources in turn: item i is (n, a record of source n), n = i mod N.

    Each goes round by itself; one pass ends with the longest. A `Pipeline` shuffles
    every source within itself, so that of each batch as many rows belong to each: row
    i to source i mod N.

    Args:
      sources: the N parts.
    """

    def __init__(self, sources: Sequence[Sequence[Record]]):
        self.sources = list(sources)
        if not self.sources or not all(map(len, self.sources)):
            raise UserError(
                f"sources of {[len(s) for s in self.sources]} records cannot take "
                "turns; give one or more, each with records"
            )

    def __len__(self) -> int:
        return len(self.sources) * max(map(len, self.sources))

    def __getitem__(self, index: int) -> tuple[int, Record]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        turn, number = divmod(int(index), len(self.sources))
        source = self.sources[number]
        return number, source[turn % len(source)]


class Named(Sequence):
    """The records of a source under another name.

    What `data.label_text` writes of a record follows the data set that it is named
    after: the same drawn faces may be "studio" and "street".

    Args:
      source: the records.
      name: of the data set.
      start, stop: which of them; all by default.
    """

    def __init__(
        self,
        source: Sequence[Record],
        name: str,
        start: int = 0,
        stop: int | None = None,
    ):
        self.source, self.name = source, name
        self.range = range(len(source))[start:stop]
        if not self.range:
            raise UserError(
                f"records {start} to {stop} of '{name}' are none; its source has "
                f"{len(source)}"
            )

    def __len__(self) -> int:
        return len(self.range)

    def __getitem__(self, index: int) -> Record:
        record = self.source[self.range[index]]
        return dataclasses.replace(record, source=self.name)


class Subset(Sequence):
    """Records `start` to `stop` of a source."""

    def __init__(self, source: Sequence[Record], start: int, stop: int):
        self.source, self.range = source, range(len(source))[start:stop]

    def __len__(self) -> int:
        return len(self.range)

    def __getitem__(self, index: int) -> Record:
        return self.source[self.range[index]]
