"""Pictures that are there twice, found over a whole set in flat memory.

Two copies share the digest of their bytes, or their perceptual hashes differ in a few
of 64 bits. A near pair cannot be looked up, so the bits are cut into blocks: hashes
that differ in d bits at most agree in all but d of them. With d + a blocks two such
hashes agree in a blocks at least, and are neighbours once rows are sorted by these (G.
Manku et al., Detecting near-duplicates for web crawling, WWW 2007, section 3). All
pairs are found. Every choice of a blocks is a table; a table is cut into parts by the
value of its blocks; a part is work for one core, and holds in memory what falls into it
and nothing else.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np

# Hash, digest and number of a picture, and the lot that decides its split. The number
# says which of two copies is the first: unit * 2^32 + place in the unit.
ROW = np.dtype([(name, "<u8") for name in ("hash", "digest", "number", "lot")])
BITS = 64
# Rows of a part, 32 bytes each; a table is cut into as many parts as that takes.
PART = 2_000_000
_EDGE = 32
_KEPT = 8  # lowest frequencies of both axes


@functools.cache
def _cosines() -> np.ndarray:
    """The first rows of the type-II DCT of 32 values; float32 [8,32]."""
    k, x = np.arange(_KEPT)[:, None], np.arange(_EDGE)[None]
    return np.cos(np.pi * k * (2 * x + 1) / (2 * _EDGE)).astype(np.float32)


def perceptual_hash(grey: np.ndarray) -> int:
    """The 64 bits of a picture that survive scaling, compression and a change of light.

    A bit a coefficient of the 8 x 8 lowest frequencies of the cosine transform: whether
    it is above their median (C. Zauner, Implementation and benchmarking of perceptual
    image hash functions, 2010).

    Args:
      grey: float [32,32].
    """
    cosines = _cosines()
    frequencies = (cosines @ grey @ cosines.T).ravel()
    bits = frequencies > np.median(frequencies)
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def digest(data: bytes) -> str:
    """32 hex digits of SHA-256."""
    return hashlib.sha256(data).hexdigest()[:32]


@dataclasses.dataclass(frozen=True)
class Work:
    """A part of a table.

    Attributes:
      mask: bits of the hash that must agree; 0 stands for the digest.
      part, parts: rows whose value falls into this part of so many.
      bits: in which hashes may differ at most.
    """

    mask: int
    part: int
    parts: int
    bits: int

    @property
    def name(self) -> str:
        return f"{self.mask:016x}-{self.part:04d}-of-{self.parts:04d}"


def plan(count: int, bits: int, exact: bool = True, part: int = PART) -> list[Work]:
    """Blocks to compare in order to find all pairs among `count` pictures.

    Args:
      count: pictures.
      bits: in which near duplicates may differ; -1 looks for none.
      exact: look for equal digests.
      part: rows that may be in memory at a time.
    """
    parts = max(1, math.ceil(count / part))
    masks = [0] if exact else []
    if bits >= 0:
        masks += _masks(bits, count)
    return [Work(m, p, parts, max(bits, 0)) for m in masks for p in range(parts)]


def _masks(bits: int, count: int) -> Iterator[int]:
    """The bits of each table; as many as leave about eight rows to a value."""
    agree = 1
    while agree < 4 and 2 ** (BITS * agree / (bits + agree)) * 8 < count:
        agree += 1
    edges = np.linspace(0, BITS, bits + agree + 1).round().astype(int)
    blocks = [sum(1 << b for b in range(s, e)) for s, e in itertools.pairwise(edges)]
    for chosen in itertools.combinations(blocks, agree):
        yield sum(chosen)


def find(work: Work, rows: Iterable[np.ndarray]) -> np.ndarray:
    """Numbers of the pictures that have an earlier copy in this part; uint64, sorted.

    Args:
      work: see `plan`.
      rows: arrays of `ROW`, one a unit, in any order.
    """
    values, kept = [], []
    for unit in rows:
        value = unit["digest"] if not work.mask else unit["hash"] & np.uint64(work.mask)
        mixed = (value * np.uint64(0x9E3779B97F4A7C15)) >> np.uint64(32)
        mine = mixed % np.uint64(work.parts) == work.part
        values.append(value[mine])
        kept.append(unit[mine])
    if not kept:
        return np.zeros(0, np.uint64)
    value, row = np.concatenate(values), np.concatenate(kept)
    order = np.lexsort((row["number"], value))
    value, row = value[order], row[order]
    starts = np.flatnonzero(np.r_[True, value[1:] != value[:-1]])
    ends = np.r_[starts[1:], len(value)]
    many = ends - starts > 1
    compare: Callable = _near if work.mask else _same
    groups = zip(starts[many], ends[many])
    found = [compare(row[start:end], work.bits) for start, end in groups]
    return np.unique(np.concatenate([np.zeros(0, np.uint64), *found]))


def _same(rows: np.ndarray, bits: int) -> np.ndarray:
    return rows["number"][1:]


def _near(rows: np.ndarray, bits: int) -> np.ndarray:
    """Numbers of the rows of a group that are near an earlier one."""
    # Of equal hashes the first one speaks for all.
    hashes, first = np.unique(rows["hash"], return_index=True)
    copies = np.ones(len(rows), bool)
    copies[first] = False
    found = [rows["number"][copies]]
    hashes, numbers = hashes, rows["number"][first]
    for start in range(0, len(hashes), 1024):
        some = slice(start, start + 1024)
        apart = np.bitwise_count(hashes[some, None] ^ hashes[None])
        earlier = numbers[None] < numbers[some, None]
        found.append(numbers[some][((apart <= bits) & earlier).any(1)])
    return np.concatenate(found)


def merged(found: Sequence[np.ndarray], unit: int) -> np.ndarray:
    """Places in a unit that `find` names in any of the results; int, sorted."""
    low, high = np.uint64(unit << 32), np.uint64((unit + 1) << 32)
    mine = [part[np.searchsorted(part, low) : np.searchsorted(part, high)]
            for part in found]  # fmt: skip
    numbers = np.unique(np.concatenate([np.zeros(0, np.uint64), *mine]))
    return (numbers - low).astype(np.int64)
