"""The input pipeline, in grain: shuffle, repeat, transform, shard, batch.

The position is one integer, the step. Batch k is the same, row by row, whatever
the number of workers and of processes and wherever the iteration starts.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

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
        else:
            streams = [self._stream(self.source)]
        batch = _Batch(
            streams, self.batch_size, self.shard, self.num_shards, self.packing
        )
        # By the number of a batch: nothing before the first one is read.
        data = grain.MapDataset.range(start_step, sys.maxsize).map(batch)
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

    def _stream(self, source: Sequence[Record], number: int | None = None) -> _Stream:
        """A source, or part `number` of one, shuffled, repeated and transformed."""
        seeds = [self.seed, 4] if number is None else [self.seed, 5, number]
        rng_seed, order_seed = map(int, np.random.SeedSequence(seeds).generate_state(2))
        order_seed = self.seed if number is None else order_seed
        return _Stream(source, self.transform, number, order_seed, rng_seed)


class _Stream:
    """The examples of a source in an order without end; picklable.

    Args:
      source, transform: see `Pipeline`.
      number: of this part, where the source is one of several; the transform is given
        it with the record.
      order_seed, rng_seed: of the order, and of what the transform draws.
    """

    def __init__(
        self,
        source: Sequence[Record],
        transform: Transform,
        number: int | None,
        order_seed: int,
        rng_seed: int,
    ):
        import grain

        self.source, self.transform, self.number = source, transform, number
        self.order = (
            grain.MapDataset.range(len(source)).seed(order_seed).shuffle().repeat()
        )
        self.rng_seed = rng_seed

    def examples(self, places: Iterable[int]) -> Iterator[dict[str, np.ndarray]]:
        """The examples at these places of the order."""
        # One generator that is wound on: making one takes longer than its numbers.
        rng = np.random.Generator(np.random.Philox(self.rng_seed))
        start = rng.bit_generator.state
        for place in places:
            start["state"]["counter"][3] = place
            rng.bit_generator.state = start
            record = self.source[int(self.order[place])]
            item = record if self.number is None else (self.number, record)
            yield self.transform(item, rng)


class _Batch:
    """Function from the number of a batch to a process's rows of it; picklable.

    Args:
      streams: the rows are of each in turn.
      size: rows.
      shard, num_shards, packing: see `Pipeline`.
    """

    def __init__(
        self,
        streams: Sequence[_Stream],
        size: int,
        shard: int,
        num_shards: int,
        packing: PackingOptions | None,
    ):
        self.streams, self.size, self.packing = streams, size, packing
        self.shard, self.num_shards = shard, num_shards

    def __setstate__(self, state):
        self.__dict__.update(state)
        processes.end_with_parent()  # this is how it gets into a worker

    def __call__(self, number: int) -> dict[str, np.ndarray]:
        packing, ways = self.packing, len(self.streams)
        count = self.size
        if packing:
            count = count // packing.rows * packing.examples
        first = (int(number) * self.num_shards + self.shard) * count
        places = range(first, first + count)
        turns = [
            stream.examples(
                place // ways for place in places[(turn - first) % ways :: ways]
            )
            for turn, stream in enumerate(self.streams)
        ]
        rows = [next(turns[place % ways]) for place in places]
        if not packing:
            return {name: np.stack([row[name] for row in rows]) for name in rows[0]}
        groups = [
            pack(rows[start : start + packing.examples], packing)
            for start in range(0, count, packing.examples)
        ]
        return {name: np.concatenate([g[name] for g in groups]) for name in groups[0]}


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


class HeldOut(Sequence[dict[str, np.ndarray]]):
    """Records as batches, made when they are asked for, the same at every call.

    No more than one of them is held, however many there are.

    Args:
      source: random access to records.
      transform: (record, rng) -> dict of arrays.
      batches: indices of the records in each batch, see `held_out_rows`.
      more: further arrays by name, a row for each record of the source.
      seed: of the transforms.
      threads: that make examples.
    """

    def __init__(
        self,
        source: Sequence[Record],
        transform: Transform,
        batches: Sequence[Sequence[int]],
        *,
        more: Mapping[str, np.ndarray] | None = None,
        seed: int = 0,
        threads: int = 1,
    ):
        self.source, self.transform, self.rows = source, transform, batches
        self.more, self.seed, self.threads = more or {}, seed, threads

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, number: int) -> dict[str, np.ndarray]:
        rows = self.rows[number]
        with concurrent.futures.ThreadPoolExecutor(self.threads) as pool:
            examples = list(pool.map(self._example, rows))
        batch = {k: np.stack([e[k] for e in examples]) for k in examples[0]}
        return batch | {k: value[list(rows)] for k, value in self.more.items()}

    def _example(self, index: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng([self.seed, index])
        return self.transform(self.source[index], rng)
