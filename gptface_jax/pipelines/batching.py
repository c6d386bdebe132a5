"""Batches of a few sizes, so that programs are compiled once: filled, run and cut.

What fills a batch up is its last entry, repeated; its results are thrown away.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np

Items = TypeVar("Items", np.ndarray, list)


def filled(items: Items, size: int) -> Items:
    """Items [B,...] or a list of B with the last one repeated up to `size`."""
    short = max(0, size - len(items))
    if isinstance(items, np.ndarray):
        return np.concatenate([items, np.repeat(items[-1:], short, axis=0)])
    return [*items, *items[-1:] * short]


def power_of_two(count: int) -> int:
    """The smallest power of two from `count` on."""
    return 1 << (count - 1).bit_length()


def on_devices(count: int, devices: int) -> int:
    """The smallest batch from `count` on that is a power of two on each device."""
    return power_of_two(-(-count // devices)) * devices


def run(
    function: Callable[..., Any],
    arrays: Sequence[np.ndarray | Sequence[Any]],
    most: int,
    size: Callable[[int], int] | None = None,
) -> Any:
    """Results of a function of batches, for all of B entries.

    Args:
      function: of as many batches as there are arrays -> arrays, in any tree, whose
        first axis is that of the batch.
      arrays: arrays [B,...] or sequences of B, B at least 1.
      most: entries of a batch.
      size: entries that a part has -> those that its batch gets; default `most`.

    Returns:
      The tree of arrays [B,...], in numpy.
    """
    arrays = [x if isinstance(x, np.ndarray) else list(x) for x in arrays]
    count, results = len(arrays[0]), []
    for start in range(0, count, most):
        parts = [x[start : start + most] for x in arrays]
        length = len(parts[0])
        wanted = most if size is None else size(length)
        found = function(*(filled(part, wanted) for part in parts))
        results.append(jax.tree.map(lambda x, n=length: np.asarray(x)[:n], found))
    return jax.tree.map(lambda *x: np.concatenate(x), *results)
