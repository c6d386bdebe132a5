"""Several short sequences in one row, so that less of a batch is padding.

    tokens        a a a a b b b c c _        one row of three sequences
    segment_ids   1 1 2 2 1 2 2 1 2 0
    sequence_ids  0 0 0 0 1 1 1 2 2 -1

The network keeps them apart (`nn.prefix_lm`): none sees another, positions count from
the start of each.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np

from gptface_jax.core.errors import UserError


@dataclasses.dataclass(frozen=True)
class PackingOptions:
    """How sequences are packed.

    Attributes:
      length: positions of a row; 0 packs nothing.
      sequences: how many a row is meant to hold on average; choose it so that
        `sequences_per_row` of the metrics stays near it, since what does not fit is
        left out.
      rows: filled together from rows * sequences sequences. The batch of each process
        must be a multiple of it; the more, the fuller they get.
    """

    length: int = 0
    sequences: float = 2.0
    rows: int = 8

    def __post_init__(self):
        if self.length and (self.rows < 1 or self.sequences < 1):
            raise ValueError(
                f"packing has rows {self.rows} and sequences {self.sequences}; both "
                "are 1 at least"
            )

    @property
    def examples(self) -> int:
        """Sequences that `rows` rows are filled from."""
        return round(self.rows * self.sequences)

    @property
    def most(self) -> int:
        """Most sequences of a row."""
        return 2 * -(-self.examples // self.rows)


def pack(
    examples: Sequence[Mapping[str, np.ndarray]], options: PackingOptions
) -> dict[str, np.ndarray]:
    """Rows that hold as many of the sequences as fit, by first-fit decreasing.

    Args:
      examples: of `data.sequences.assemble`, with soft targets (see
        `data.task_examples`) or without; other entries are left out.
      options: of the rows.

    Returns:
      "tokens", "segment_ids" int32 [R,L], "loss_mask" bool [R,L]; "sequence_ids" int32
      [R,L], number of the sequence in its row, -1 padding. With soft targets
      "soft_position" [R,P], "soft_ids" and "soft_weights" [R,P,W], P `options.most`.

    Raises:
      UserError: a sequence that is longer than a row.
    """
    lengths = [int(np.count_nonzero(e["segment_ids"])) for e in examples]
    if max(lengths) > options.length:
        raise UserError(
            f"data.packing.length is {options.length}, and a sequence has "
            f"{max(lengths)} tokens; make it longer"
        )
    rows: list[list[int]] = [[] for _ in range(options.rows)]
    room = np.full(options.rows, options.length)
    for number in sorted(range(len(examples)), key=lambda i: -lengths[i]):
        fits = [
            r for r, held in enumerate(rows)
            if room[r] >= lengths[number] and len(held) < options.most
        ]  # fmt: skip
        if fits:
            rows[fits[0]].append(number)
            room[fits[0]] -= lengths[number]
    width = examples[0]["soft_ids"].shape if "soft_ids" in examples[0] else None
    filled = [
        _row([(examples[i], lengths[i]) for i in row], options, width) for row in rows
    ]
    return {name: np.stack([row[name] for row in filled]) for name in filled[0]}


def _row(held, options: PackingOptions, soft) -> dict[str, np.ndarray]:
    """A row of (example, length)s; `soft` is the shape of soft targets, or None."""
    length = options.length
    row = {
        "tokens": np.zeros(length, np.int32),
        "segment_ids": np.zeros(length, np.int32),
        "loss_mask": np.zeros(length, bool),
        "sequence_ids": np.full(length, -1, np.int32),
    }
    if soft is not None:
        row["soft_position"] = np.full(options.most, -1, np.int32)
        row["soft_ids"] = np.zeros((options.most, *soft), np.int32)
        row["soft_weights"] = np.zeros((options.most, *soft), np.float32)
    start = 0
    for number, (example, count) in enumerate(held):
        here = slice(start, start + count)
        for name in ("tokens", "segment_ids", "loss_mask"):
            row[name][here] = example[name][:count]
        row["sequence_ids"][here] = number
        if soft is not None and example["soft_position"] >= 0:
            row["soft_position"][number] = start + example["soft_position"]
            row["soft_ids"][number] = example["soft_ids"]
            row["soft_weights"][number] = example["soft_weights"]
        start += count
    return row
