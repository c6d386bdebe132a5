"""The training reader over a whole set: evenly shuffled, read once, in flat memory."""

import collections
import tracemalloc
from collections.abc import Sequence

import numpy as np
import pytest

from gptface_jax.data import pipeline, shards, sources
from gptface_jax.data.record import Record

SHARDS, IN_EACH = 10, 100


class Number:
    def __call__(self, record, rng):
        return {"number": np.int32(int(record.text))}


class Counted(Sequence):
    """Records that are their number; counts how often each is read."""

    def __init__(self, count, source=None):
        self.count, self.source, self.read = count, source, collections.Counter()

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.read[index % 1000] += 1
        if self.source is not None:
            return self.source[index % len(self.source)]
        return Record(text=str(index))


def epoch_of(source, seed, count):
    feed = pipeline.Pipeline(source, Number(), 10, seed, threads=1)
    batches = iter(feed.batches())
    found = np.concatenate([next(batches)["number"] for _ in range(count // 10)])
    batches.close()
    return found


@pytest.fixture(scope="module")
def stored(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shuffled") / "set"
    writer = shards.Writer(folder, {}, SHARDS * IN_EACH, IN_EACH)
    for index in writer.missing:
        writer.write(index, (Record(text=str(i)) for i in writer.records(index)))
    writer.finish()
    return {"kind": "arrayrecord", "path": str(folder)}


def test_an_epoch_is_one_even_shuffle_of_all_shards(stored):
    """No buffer: a record may come at any place, whichever shard it lies in."""
    source = Counted(SHARDS * IN_EACH, sources.open_source(stored))
    orders = np.stack([epoch_of(source, seed, len(source)) for seed in range(8)])
    assert all(np.array_equal(np.sort(order), np.arange(1000)) for order in orders)
    # What each tenth of an epoch holds of each shard is 10, like drawn by chance:
    # chi-squared of 81 degrees of freedom, between its 0.1 % and 99.9 %.
    for order in orders:
        table = np.zeros((10, SHARDS))
        tenth = np.repeat(np.arange(10), 100)
        np.add.at(table, (tenth, order // IN_EACH), 1)
        assert 46 < ((table - 10) ** 2 / 10).sum() < 126
    # Neither does the place of a record follow its number, nor neighbours stay so.
    places = np.argsort(orders, axis=1)
    for place in places:
        assert abs(np.corrcoef(place, np.arange(1000))[0, 1]) < 0.11
        assert (np.abs(np.diff(place)) == 1).sum() < 10


def test_an_epoch_reads_every_record_once(stored):
    source = Counted(SHARDS * IN_EACH, sources.open_source(stored))
    epoch_of(source, 0, len(source))
    # Read ahead by two, beyond the end of the epoch.
    assert set(source.read) == set(range(1000)) and max(source.read.values()) <= 2
    assert sum(source.read.values()) <= 1000 + 60


def test_memory_does_not_grow_with_the_set():
    """A thousand records under ten thousand numbers, and under ten million."""
    peaks = []
    for count in (10_000, 10_000_000):
        source = Counted(count)
        tracemalloc.start()
        epoch_of(source, 0, 2000)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert peaks[1] < peaks[0] + 200_000
