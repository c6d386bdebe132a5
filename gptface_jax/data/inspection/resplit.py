"""A source split anew into train, validation and test."""

from __future__ import annotations

import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from gptface_jax.core import files, locks
from gptface_jax.core.errors import UserError
from gptface_jax.data import shard_format
from gptface_jax.data.prepare import duplicates, finish, stages
from gptface_jax.data.prepare.settings import SplitOptions
from gptface_jax.data.record import Record

KEYS = ("picture", "identity")


def key_of(record: Record, by: str) -> str:
    """Key that decides the split of a record.

    Args:
      record: any.
      by: "picture", its bytes, so that copies stay together; or "identity", so that the
        pictures of one person do.

    Raises:
      UserError: the record does not have it.
    """
    if by == "identity":
        if record.identity is None:
            raise UserError(
                f"a record of '{record.source}' has no identity; split by picture"
            )
        return str(record.identity)
    data = record.image if record.image is not None else record.image_ids
    if data is None:
        raise UserError(f"a record of '{record.source}' holds no picture")
    return duplicates.digest(data if isinstance(data, bytes) else data.tobytes())


def splits_of(
    records: Iterable[Record], options: SplitOptions, by: str, together: int = 1
) -> Iterator[tuple[str, Record]]:
    """Each record with its split, by its key or that of the first one it belongs to.

    Args:
      records, options, by: see `resplit`.
      together: so many records, one after the other, belong to the first of them.
    """
    of_source: dict[int, str] = {}  # of pictures, which may have several faces
    split = ""
    for number, record in enumerate(records):
        named = hash(record.source) if "/" in record.source else None
        if by == "identity" or not number % together:
            known = of_source.get(named) if by == "picture" else None
            lot = stages.lot_of(key_of(record, by), options.salt)
            split = known or finish.split_of(lot, options)
        if named is not None:
            of_source.setdefault(named, split)
        yield split, record


def resplit(
    records: Iterable[Record],
    out: str | os.PathLike,
    options: SplitOptions,
    by: str = "picture",
    shard_size: int = 8192,
    entries: dict[str, Any] | None = None,
    beside: Sequence[pathlib.Path] = (),
    together: int = 1,
    progress: Callable[[int], Any] = lambda n: None,
) -> dict[str, int]:
    """Writes records into a folder a split; returns how many each has.

    Args:
      records: read once.
      out: a new or an empty folder.
      options: shares and salt.
      by: see `key_of`. By "picture" all records of a file, which their source tells,
        go where the first of them does, such as its faces and its mirror image.
      shard_size: records in a file.
      entries: further ones of the manifests.
      beside: files that are copied into the folder of every split.
      together: so many records, one after the other, are of one picture.
      progress: called with a number of records.

    Raises:
      UserError: the folder holds anything, or see `key_of`.
    """
    root = pathlib.Path(out).expanduser()
    with locks.held(root / locks.NAME, "splits", "choose another --out"):
        if any(not p.name.startswith(locks.NAME) for p in root.iterdir()):
            raise UserError(f"'{out}' holds files; choose a new or an empty folder")
        writers: dict[str, _Writer] = {}
        try:
            for split, record in splits_of(records, options, by, together):
                if split not in writers:
                    writers[split] = _Writer(root / split, shard_size)
                writers[split].write(shard_format.pack(record))
                progress(1)
        except BaseException:
            for writer in writers.values():
                writer.close()
            raise
        for writer in writers.values():
            for path in beside:
                shutil.copyfile(path, writer.folder / path.name)
            writer.finish({**(entries or {}), "split_by": by})
        return {split: sum(writer.counts) for split, writer in writers.items()}


class _Writer:
    """Writes shards of at most so many records, one after the other."""

    def __init__(self, folder: pathlib.Path, size: int):
        self.folder, self.size = folder, size
        self.counts: list[int] = []
        self.digests: list[str] = []
        self._open: shard_format.shard_writer | None = None

    def write(self, data: bytes) -> None:
        if self._open is None:
            name = f"part-{len(self.counts):05d}.arrayrecord"
            self._open = shard_format.shard_writer(self.folder / name)
            self._open.__enter__()
        self._open.write(data)
        if self._open.count == self.size:
            self.close()

    def close(self) -> None:
        if self._open is not None:
            self._open.__exit__(None, None, None)
            self.counts.append(self._open.count)
            self.digests.append(self._open.sha256())
            self._open = None

    def finish(self, entries: dict[str, Any]) -> None:
        self.close()
        manifest = {
            "format": shard_format.FORMAT,
            **entries,
            "num_records": sum(self.counts),
            "shard_size": self.size,
            "shards": [f"part-{i:05d}.arrayrecord" for i in range(len(self.counts))],
            "counts": self.counts,
            "sha256": self.digests,
        }
        path = self.folder / shard_format.MANIFEST
        files.write_text(path, json.dumps(manifest, indent=2) + "\n")
