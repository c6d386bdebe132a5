"""A set to look at: one that `gptface prepare --config` made, or any source."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import shard_format, sources
from gptface_jax.data.prepare import finish, staging
from gptface_jax.data.record import Record


@dataclasses.dataclass(frozen=True)
class Set:
    """Records by split.

    Attributes:
      name: for people.
      splits: name -> records.
      manifest: of a prepared set, else {}.
      rejected: pictures that were rejected, a few of every reason; or None.
      folder: of a set of shards, else None.
    """

    name: str
    splits: Mapping[str, Sequence[Record]]
    manifest: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rejected: Sequence[Record] | None = None
    folder: pathlib.Path | None = None

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))

    def sample(self, count: int | None, seed: int = 0) -> Iterator[tuple[str, Record]]:
        """(split, record) of so many records, in order, or of all.

        What is read is chosen beforehand, so that memory does not grow with the set.
        """
        total, numbers = len(self), None
        if count is not None and count < total:
            rng = np.random.default_rng(seed)
            numbers = np.sort(rng.choice(total, count, replace=False, shuffle=False))
        start = 0
        for split, records in self.splits.items():
            stop = start + len(records)
            inside = (
                range(len(records))
                if numbers is None
                else numbers[(start <= numbers) & (numbers < stop)] - start
            )
            for index in inside:
                yield split, records[int(index)]
            start = stop


def is_prepared(path: str | os.PathLike) -> bool:
    """Whether a folder is a set of `gptface prepare --config`."""
    try:
        finish.read(path)
    except UserError:
        return False
    return True


def open_set(spec: Mapping[str, Any]) -> Set:
    """The set of a spec, see `sources.open_source`; its path may be a prepared set.

    Raises:
      UserError: it cannot be opened.
    """
    path = pathlib.Path(spec.get("path") or "").expanduser()
    if not (spec.get("path") and is_prepared(path)):
        manifest_there = (path / shard_format.MANIFEST).is_file()
        folder = path if spec.get("path") and manifest_there else None
        name = path.name if spec.get("path") else str(spec.get("name", spec["kind"]))
        return Set(name, {"all": sources.open_source(spec)}, folder=folder)
    manifest = finish.read(path)

    def split(name: str) -> Sequence[Record]:
        return sources.open_source({"kind": "arrayrecord", "path": path / name})

    rejected = split(staging.REJECTED)
    return Set(
        path.name,
        {name: split(name) for name in manifest["splits"]},
        manifest,
        rejected if len(rejected) else None,
        path,
    )
