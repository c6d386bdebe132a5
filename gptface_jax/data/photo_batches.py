"""Photos of a source in order and of one size, read ahead by threads."""

from __future__ import annotations

import collections
import contextlib
import itertools
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import TypeVar

import numpy as np
import tqdm

from gptface_jax.core.errors import UserError
from gptface_jax.data import image, transforms
from gptface_jax.data.record import Record

In, Out = TypeVar("In"), TypeVar("Out")


def ahead(
    function: Callable[[In], Out], items: Iterable[In], threads: int, depth: int
) -> Iterator[Out]:
    """Results of function(item) in order, by threads, up to `depth` items ahead."""
    waiting: collections.deque[futures.Future] = collections.deque()
    with futures.ThreadPoolExecutor(threads) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(function, item))
                if len(waiting) > depth:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def photos_of(
    source: Sequence[Record],
    size: int,
    indices: Iterable[int],
    threads: int | None,
    depth: int,
) -> Iterator[tuple[Record, np.ndarray]]:
    """Record and pixels uint8 [S,S,3] in order; one that cannot be read is named."""

    def load(i: int) -> tuple[Record, np.ndarray]:
        record = source[i]
        try:
            return record, image.fit(transforms.decode_picture(record), size)
        except UserError as error:
            raise UserError(f"record {i}: {error}") from None

    if threads is None:
        threads = os.cpu_count() or 1
    if threads < 1:
        raise UserError(f"{threads} threads cannot read pictures; use 1 or more")
    return ahead(load, indices, threads, depth)


def photo_batches(
    source: Sequence[Record],
    size: int,
    batch_size: int,
    progress: bool,
    threads: int | None = None,
) -> Iterator[tuple[list[Record], np.ndarray]]:
    """Batches (records, uint8 [B,S,S,3]) of a whole source, read ahead by threads.

    Raises:
      UserError: a record that cannot be read; it is named.
    """
    photos = photos_of(source, size, range(len(source)), threads, 2 * batch_size)
    bar = tqdm.tqdm(total=len(source), unit="image", disable=not progress)
    with contextlib.closing(photos), bar:
        while batch := list(itertools.islice(photos, batch_size)):
            records, pictures = zip(*batch)
            yield list(records), np.stack(pictures)
            bar.update(len(records))
