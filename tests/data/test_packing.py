"""Several sequences in one row: by hand, and as batches of any number of processes."""

import numpy as np
import pytest

from gptface_jax.core.errors import UserError
from gptface_jax.data import pipeline
from gptface_jax.data.packing import PackingOptions, pack
from gptface_jax.data.record import Record

OPTIONS = PackingOptions(length=8, sequences=2, rows=2)


def example(count: int, first: int = 1, length: int = 6) -> dict[str, np.ndarray]:
    """A sequence of so many tokens; its last two are the target."""
    place = np.arange(length)
    inside = place < count
    target = inside & (place >= count - 2)
    return {
        "tokens": np.where(inside, first + place, 0).astype(np.int32),
        "segment_ids": np.where(target, 2, inside).astype(np.int32),
        "loss_mask": target,
        "task": np.int32(3),
    }


def test_first_fit_decreasing_by_hand():
    """5 and 3 fill a row; 4 and 2 share the other; the second 4 finds no room."""
    lengths, firsts = (3, 5, 4, 2, 4), (10, 20, 30, 40, 50)
    rows = pack(
        [example(*each) for each in zip(lengths, firsts)],
        PackingOptions(length=8, sequences=2.5, rows=2),
    )
    np.testing.assert_array_equal(
        rows["tokens"],
        [[20, 21, 22, 23, 24, 10, 11, 12], [30, 31, 32, 33, 50, 51, 52, 53]],
    )
    np.testing.assert_array_equal(
        rows["sequence_ids"], [[0] * 5 + [1] * 3, [0] * 4 + [1] * 4]
    )
    np.testing.assert_array_equal(rows["segment_ids"][0], [1, 1, 1, 2, 2, 1, 2, 2])
    np.testing.assert_array_equal(rows["loss_mask"], rows["segment_ids"] == 2)
    assert set(rows) == {"tokens", "segment_ids", "sequence_ids", "loss_mask"}
    padded = pack([example(3), example(2)], PackingOptions(8, 1, 2))
    np.testing.assert_array_equal(
        padded["sequence_ids"][0], [0, 0, 0, 1, 1, -1, -1, -1]
    )
    assert not padded["tokens"][1].any() and (padded["sequence_ids"][1] == -1).all()


def test_soft_targets_move_with_their_sequences():
    def soft(count, first, position):
        return example(count, first) | {
            "soft_position": np.int32(position),
            "soft_ids": np.array([first, first + 1], np.int32),
            "soft_weights": np.array([0.25, 0.75], np.float32),
        }

    rows = pack([soft(4, 10, 2), soft(3, 20, -1), soft(2, 30, 1)],
                PackingOptions(9, 3, 1))  # fmt: skip
    np.testing.assert_array_equal(rows["soft_position"], [[2, -1, 8, -1, -1, -1]])
    np.testing.assert_array_equal(rows["soft_ids"][0, :3], [[10, 11], [0, 0], [30, 31]])
    assert rows["tokens"][0, 8] == 31
    assert rows["soft_weights"].sum() == 2


def test_rows_without_sequences_have_soft_targets_of_none():
    soft = example(4, 10) | {
        "soft_position": np.int32(2),
        "soft_ids": np.array([10, 11], np.int32),
        "soft_weights": np.array([0.25, 0.75], np.float32),
    }
    rows = pack([soft], PackingOptions(9, 1, 3))
    np.testing.assert_array_equal(rows["soft_position"], [[2, -1], [-1, -1], [-1, -1]])
    assert rows["soft_ids"].shape == (3, 2, 2) and rows["soft_weights"].sum() == 1


def test_a_sequence_longer_than_a_row_is_refused():
    with pytest.raises(UserError, match="length is 4, and a sequence has 5 tokens"):
        pack([example(5)], PackingOptions(4, 1, 1))
    with pytest.raises(ValueError, match="rows 0 and sequences 2"):
        PackingOptions(8, 2, 0)


class Numbers:
    def __len__(self):
        return 20

    def __getitem__(self, index):
        return Record(identity=index)


def numbered(record, rng):
    return example(2 + record.identity % 4, 100 * record.identity + 1)


def test_batches_are_the_same_for_any_number_of_processes_and_any_start():
    def feed(size, **options):
        return pipeline.Pipeline(
            Numbers(), numbered, size, 7, packing=OPTIONS, **options
        )

    def taken(feed, start=0, count=6):
        stream = feed.batches(start)
        batches = [next(stream) for _ in range(count)]
        stream.close()
        return batches

    whole = taken(feed(4))
    assert whole[0]["tokens"].shape == (4, 8)
    for expected, again in zip(whole[4:], taken(feed(4), 4, 2)):
        np.testing.assert_array_equal(expected["tokens"], again["tokens"])
    halves = [taken(feed(2, shard=i, num_shards=2)) for i in range(2)]
    for expected, *parts in zip(whole, *halves):
        for name, values in expected.items():
            np.testing.assert_array_equal(
                values, np.concatenate([part[name] for part in parts])
            )
    with pytest.raises(UserError, match="a batch of 3 .* data.packing.rows, 2"):
        feed(3)
