"""The input pipeline, in grain: shuffle, repeat, transform, shard, batch.

The position is one integer, the step. Batch k is the same, row by row, whatever
the number of workers and of processes and wherever the iteration starts.
"""

from __future__ import annotations

import contextlib
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from gptface_jax.core import processes
from gptface_jax.core.errors import UserError
from gptface_jax.data.composed import Interleaved
from gptface_jax.data.packing import PackingOptions, pack
from gptface_jax.data.record import Record

Transform = Callable[[Record, np.random.Generator], dict[str, np.ndarray]]


class Pipeline:
    """Shuffled batches of one process, for ever.

    Args:
      source: random access to records; picklable if there are workers. Of an
        `Interleaved` one each part is shuffled by itself, and a batch holds as many
        rows of each.
      transform: (record, rng) -> dict of arrays; picklable likewise. The rng
        depends on the seed and the place in the shuffled order only.
      batch_size: of this process.
      seed: of order and transforms.
      shard, num_shards: this process and how many there are.
      workers: processes that transform; 0 uses `threads` threads here.
      threads: threads of this process, without workers.
      packing: puts several examples in one row, see `data.packing`; None for one.

    Raises:
      UserError: a source without records, or a batch that its parts or the rows that
        are packed together do not divide.
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
        packing: PackingOptions | None = None,
    ):
        if not len(source):
            raise UserError("the data source holds 0 records; give one with pictures")
        parts = source.sources if isinstance(source, Interleaved) else [source]
        if packing and batch_size % packing.rows:
            raise UserError(
                f"a batch of {batch_size} in each process is no multiple of "
                f"data.packing.rows, {packing.rows}; change one of them"
            )
        if not packing and batch_size % len(parts):
            raise UserError(
                f"a batch of {batch_size} in each process cannot hold as many rows of "
                f"each of {len(parts)} parts; make it a multiple of {len(parts)}"
            )
        self.source, self.transform = source, transform
        self.batch_size, self.seed = batch_size, seed
        self.shard, self.num_shards = shard, num_shards
        self.workers, self.threads = workers, threads
        self.packing = packing

    def batches(self, start_step: int = 0) -> Iterator[dict[str, np.ndarray]]:
        """Batches from number `start_step` on."""
        import grain
        from absl import flags

        # Workers of grain read an absl flag, which fails in an unparsed process.
        if not flags.FLAGS.is_parsed():
            flags.FLAGS.mark_as_parsed()
        if isinstance(self.source, Interleaved):
            parts = enumerate(self.source.sources)
            streams = [self._stream(part, number) for number, part in parts]
            data = grain.MapDataset.range(sys.maxsize).map(_InTurn(streams))
        else:
            data = self._stream(self.source)
        size = self.batch_size
        if self.packing:
            groups = sys.maxsize // self.packing.examples
            data = grain.MapDataset.range(groups).map(_Packed(data, self.packing))
            size //= self.packing.rows
        if self.num_shards > 1:
            rows = _Rows(data, size, self.shard, self.num_shards)
            data = grain.MapDataset.range(sys.maxsize // self.num_shards).map(rows)
        # Sliced as random access, before it is iterated: nothing before it is read.
        data = data.batch(size, drop_remainder=True)
        data = (data.map(_joined) if self.packing else data)[start_step:]
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

    def _stream(self, source: Sequence[Record], number: int | None = None):
        """A source, or part `number` of one, shuffled, repeated and transformed."""
        import grain

        seeds = [self.seed, 4] if number is None else [self.seed, 5, number]
        # The rng follows the index: mapped before the processes share the batches.
        # The seed is given outright, since grain's own depends on the chain's length.
        map_seed, order_seed = np.random.SeedSequence(seeds).generate_state(2)
        order_seed = self.seed if number is None else int(order_seed)
        # Numbers are shuffled, and the source is asked by the transform: what grain
        # notes of every record that it reads itself costs as much as reading codes.
        data = grain.MapDataset.range(len(source)).seed(order_seed).shuffle().repeat()
        read = _Read(source, self.transform, number)
        return data.random_map(read, seed=int(map_seed))


class _Read:
    """Function from (index, rng) to the transform of that record; picklable."""

    def __init__(
        self, source: Sequence[Record], transform: Transform, number: int | None = None
    ):
        self.source, self.transform, self.number = source, transform, number

    def __setstate__(self, state):
        self.__dict__.update(state)
        processes.end_with_parent()  # this is how it gets into a worker

    def __call__(self, index: int, rng: np.random.Generator) -> Any:
        record = self.source[int(index)]
        item = record if self.number is None else (self.number, record)
        return self.transform(item, rng)


class _InTurn:
    """Index -> the next item of one of N streams, of stream index mod N."""

    def __init__(self, streams):
        self.streams = streams

    def __call__(self, index: int) -> Any:
        turn, number = divmod(int(index), len(self.streams))
        return self.streams[number][turn]


class _Packed:
    """Function from n to the n-th group of packed rows."""

    def __init__(self, data, packing: PackingOptions):
        self.data, self.packing = data, packing

    def __call__(self, number: int) -> Any:
        first = int(number) * self.packing.examples
        examples = [self.data[first + i] for i in range(self.packing.examples)]
        return pack(examples, self.packing)


def _joined(batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Rows [G*R,...] of groups of rows [G,R,...]."""
    return {name: x.reshape(-1, *x.shape[2:]) for name, x in batch.items()}


class _Rows:
    """Function from n to the n-th record in a process's rows of all batches."""

    def __init__(self, data, batch_size: int, shard: int, num_shards: int):
        self.data, self.batch_size = data, batch_size
        self.shard, self.num_shards = shard, num_shards

    def __call__(self, number: int) -> Any:
        batch, row = divmod(int(number), self.batch_size)
        return self.data[(batch * self.num_shards + self.shard) * self.batch_size + row]


def _until_closed(iterator) -> Iterator[dict[str, np.ndarray]]:
    with contextlib.closing(iterator):
        yield from iterator


def held_out_rows(
    count: int, batch_size: int, shard: int = 0, num_shards: int = 1, ways: int = 1
) -> list[range]:
    """Numbers of the held-out records in a process's rows of each batch.

    Args:
      count: records in all.
      batch_size: of all processes together.
      shard, num_shards: this process and how many there are. Several of them leave
        out the last records where they do not share them equally.
      ways: parts into which the devices of several processes cut a batch; they leave
        out the last records where that is not possible.
    """
    # All processes must have equally many rows, and their devices too: jit wants one
    # global shape.
    parts = math.lcm(num_shards, ways) if num_shards > 1 else 1
    batches = []
    for start in range(0, count, batch_size):
        size = min(batch_size, count - start) // parts * parts // num_shards
        first = start + shard * size
        batches.append(range(first, first + size))
    return [rows for rows in batches if rows]


def held_out(
    source: Sequence[Record],
    transform: Transform,
    batches: Sequence[Sequence[int]],
    seed: int = 0,
) -> list[dict[str, np.ndarray]]:
    """Records as batches, the same at every call.

    Args:
      source: random access to records.
      transform: (record, rng) -> dict of arrays.
      batches: indices of the records in each batch, see `held_out_rows`.
      seed: of the transforms.
    """

    def example(index: int) -> dict[str, np.ndarray]:
        return transform(source[index], np.random.default_rng([seed, index]))

    columns = [[example(i) for i in rows] for rows in batches]
    return [{k: np.stack([e[k] for e in rows]) for k in rows[0]} for rows in columns]
