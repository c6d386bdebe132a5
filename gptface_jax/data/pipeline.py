"""The input pipeline, in grain: shuffle, repeat, transform, shard, batch.

The position is one integer, the step. Batch k is the same whatever the number of
workers and wherever the iteration starts; the examples in a global batch do not
depend on the number of processes.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data.record import Record

Transform = Callable[[Record, np.random.Generator], dict[str, np.ndarray]]


class Pipeline:
    """Shuffled batches of one process, for ever.

    Args:
      source: random access to records; picklable if there are workers.
      transform: (record, rng) -> dict of arrays; picklable likewise. The rng
        depends on the seed and the place in the shuffled order only.
      batch_size: of this process.
      seed: of order and transforms.
      shard, num_shards: this process and how many there are.
      workers: processes that transform; 0 uses `threads` threads here.
      threads: threads of this process, without workers.

    Raises:
      UserError: a source without records.
    """

    def __init__(
        self,
        source: Sequence[Record],
        transform: Transform,
        batch_size: int,
        seed: int,
        *,
        shard: int = 0,
        num_shards: int = 1,
        workers: int = 0,
        threads: int = 2,
    ):
        if not len(source):
            raise UserError("the data source holds 0 records; give one with pictures")
        self.source, self.transform = source, transform
        self.batch_size, self.seed = batch_size, seed
        self.shard, self.num_shards = shard, num_shards
        self.workers, self.threads = workers, threads

    def batches(self, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Batches from number `start_step` on."""
        import grain
        from absl import flags

        # Workers of grain read an absl flag, which fails in an unparsed process.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        data = grain.MapDataset.source(self.source).seed(self.seed).shuffle()
        # The rng follows the index: mapped before the processes share the records.
        # The seed is given outright, since grain's own depends on the chain's length.
        map_seed = np.random.SeedSequence([self.seed, 4]).generate_state(1)[0]
        data = data.repeat().random_map(_Rng(self.transform), seed=int(map_seed))
        data = data[self.shard :: self.num_shards]
        data = data.batch(self.batch_size, drop_remainder=True)[start_step:]
        threads = 1 if self.workers else self.threads
        iterator = data.to_iter_dataset(
            grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
        )
        if self.workers:
            iterator = iterator.mp_prefetch(
                grain.MultiprocessingOptions(
                    num_workers=self.workers, per_worker_buffer_size=2
                )
            )
        return _until_closed(iter(iterator))


class _Rng:
    """Adapts a transform to grain's (element, rng) call; picklable."""

    def __init__(self, transform: Transform):
        self.transform = transform

    def __call__(self, record: Record, rng: np.random.Generator) -> Any:
        return self.transform(record, rng)


def _until_closed(iterator) -> Iterator[dict[str, np.ndarray]]:
    with contextlib.closing(iterator):
        yield from iterator


def held_out(
    source: Sequence[Record],
    transform: Transform,
    batch_size: int,
    seed: int = 0,
    limit: int | None = None,
) -> list[dict[str, np.ndarray]]:
    """The first `limit` records of a source as batches, the same at every call."""
    count = min(len(source), limit or len(source))
    examples = [
        transform(source[i], np.random.default_rng([seed, i])) for i in range(count)
    ]
    return [
        {k: np.stack([e[k] for e in examples[i : i + batch_size]]) for k in examples[0]}
        for i in range(0, count, batch_size)
    ]
