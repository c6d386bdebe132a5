"""A set to look at: one that `gptface prepare --config` made, or any source."""

from __future__ import annotations

import collections
import dataclasses
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import folders, shard_format, shards, sources
from gptface_jax.data.prepare import finish
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
      by_shard: whether `splits` holds each shard by itself, as "split/shard".
    """

    name: str
    splits: Mapping[str, Sequence[Record]]
    manifest: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    rejected: Sequence[Record] | None = None
    folder: pathlib.Path | None = None
    by_shard: bool = False

    def __len__(self) -> int:
        return sum(map(len, self.splits.values()))

    def sample(self, count: int | None, seed: int = 0) -> Iterator[tuple[str, Record]]:
        """(split, record) of so many records, in order, or of all."""
        for split, index in self.places(count, seed):
            yield split, self.splits[split][index]

    def places(self, count: int | None, seed: int = 0) -> Iterator[tuple[str, int]]:
        """(split, number in it) of so many records, in order, or of all.

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
                yield split, int(index)
            start = stop


def parts_of(path: str | os.PathLike) -> list[str]:
    """The splits of a prepared set, or of a folder all whose folders are shards'.

    Beside them no picture lies there, else it is a folder of pictures.
    """
    if splits := _manifest(path).get("splits"):
        return list(splits)
    root, found = pathlib.Path(path).expanduser(), []
    for child in root.iterdir() if root.is_dir() else ():
        if child.name.startswith("."):
            continue
        if child.suffix.lower() in folders.ENDINGS:
            return []
        if child.is_dir():
            if not (child / shard_format.MANIFEST).is_file():
                return []
            found.append(child.name)
    return sorted({*found} - {shard_format.REJECTED})


def open_set(
    spec: Mapping[str, Any], faults: collections.Counter[str] | None = None
) -> Set:
    """The set of a spec, see `sources.open_source`; its path may hold splits.

    Args:
      spec: of the set.
      faults: is told of shards that cannot be opened, which then are left out; without
        it the first of them is an error.

    Raises:
      UserError: it cannot be opened.
    """
    if not spec.get("path"):
        name = str(spec.get("name", spec["kind"]))
        return Set(name, {"all": sources.open_source(spec)})
    path = pathlib.Path(spec["path"]).expanduser()
    manifest, parts = _manifest(path), parts_of(path)
    folder = path if parts or (path / shard_format.MANIFEST).is_file() else None
    if folder and faults is not None and not spec.get("limit"):
        if parts and not manifest and (path / shard_format.MANIFEST).is_file():
            faults[f"{path.name}: no manifest that can be read"] += 1
        found = dict(_shards([path / part for part in parts] or [path], faults))
        return Set(path.name, found, manifest, folder=path, by_shard=True)
    if not parts:
        return Set(path.name, {"all": sources.open_source(spec)}, folder=folder)
    splits = {part: shards.Records(path / part) for part in parts}
    rejected = shards.Records(path / shard_format.REJECTED) if manifest else ()
    return Set(path.name, splits, manifest, rejected if len(rejected) else None, folder)


def _manifest(path: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a prepared set, {} of any other."""
    try:
        return finish.read(path)
    except UserError:
        return {}


def _shards(
    parts: Sequence[pathlib.Path], faults: collections.Counter[str]
) -> Iterator[tuple[str, shards.Records]]:
    """("split/shard", records) of all shards that can be opened."""
    for folder in parts:
        try:
            manifest = shard_format.read_manifest(folder)
        except UserError:
            faults[f"{folder.name}: no manifest that can be read"] += 1
            continue
        counts = shard_format.counts_of(manifest)
        for name, count in zip(manifest["shards"], counts):
            if not (folder / name).is_file():
                continue
            shown, records = f"{folder.name}/{name}", shards.Records(folder / name)
            try:
                found = len(records)
            except UserError:
                faults[f"shard {shown}: cannot be read"] += 1
                continue
            if found != count:
                faults[f"shard {shown}: {found} records, not {count}"] += 1
            yield shown, records
