"""What a function of batches makes of the rows of one photo, or of many at once.

What describes a photo is a generator, as what edits one is (`pipelines.edit`): it
yields `Rows`, is sent what the function says of them, and returns its result.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Generator, Hashable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

from gptface_jax.pipelines import batching

_TOGETHER = 8  # rows of one photo that are worked on at once

R = TypeVar("R")


@dataclasses.dataclass(frozen=True)
class Rows:
    """Rows of one photo, for a function of batches.

    Attributes:
      function: of as many batches as there are arrays -> arrays in any tree, each with
        a row for each of the batch.
      arrays: arrays [N,...] or lists of N.
      bucket: equal where the function, its options and the shapes are: such rows can
        be worked on together.
      most: N at most, whose batch is filled up to it and compiled once; 0 for batches
        of a few sizes, as many as there are rows.
    """

    function: Callable[..., Any]
    arrays: Sequence[np.ndarray | list]
    bucket: Hashable
    most: int = 0


Steps = Generator[Rows, Any, R]


def answer(requests: Sequence[Rows], size: int = 1) -> list[Any]:
    """What the function says of the rows of each; `size` photos at once.

    Args:
      requests: of one bucket.
      size: photos whose rows share a batch.
    """
    first = requests[0]
    if any(request.bucket != first.bucket for request in requests):
        raise ValueError("requests of different buckets cannot share a batch")
    columns = [
        np.concatenate(parts)
        if isinstance(parts[0], np.ndarray)
        else [row for part in parts for row in part]
        for parts in zip(*(request.arrays for request in requests))
    ]
    if first.most:
        found = batching.run(first.function, columns, size * first.most)
    else:
        together = max(size, _TOGETHER)
        sizes = batching.power_of_two
        found = batching.run(first.function, columns, together, sizes)
    ends = np.cumsum([len(request.arrays[0]) for request in requests])
    return [
        jax.tree.map(lambda x, start=start, end=end: x[start:end], found)
        for start, end in zip([0, *ends], ends)
    ]


def run_immediately(steps: Steps[R]) -> R:
    """The result of steps, whose requests are answered as soon as they are asked."""
    try:
        request = next(steps)
        while True:
            request = steps.send(answer([request])[0])
    except StopIteration as end:
        return end.value
