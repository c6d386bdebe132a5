"""Records in ArrayRecord shards: whole pictures, or the cache of image ids.

A folder holds `part-00000.arrayrecord`, ... and `manifest.json`; see `shard_format`
for what stands in them.
"""

from __future__ import annotations

import collections
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core import files, locks
from gptface_jax.core.errors import Missing, UserError
from gptface_jax.data import fingerprint
from gptface_jax.data.record import Record
from gptface_jax.data.shard_format import (
    CODEBOOK,
    FINGERPRINT,
    FORMAT,
    MANIFEST,
    ORDER,
    PLACES,
    UNFINISHED,
    counts_of,
    pack,
    read_manifest,
    shard_writer,
    unpack,
)

__all__ = [
    "CODEBOOK", "FINGERPRINT", "FORMAT", "MANIFEST", "PLACES", "Records", "Tokens",
    "UNFINISHED", "Writer", "pack", "prints_of", "read_manifest", "unpack",
]  # fmt: skip


def prints_of(source: Sequence[Record]) -> dict[str, Any]:
    """Entries of a manifest that tell which pictures a set is made of."""
    return {FINGERPRINT: fingerprint.of(source), ORDER: fingerprint.order_of(source)}


class Writer:
    """Writes a set of known length, shard by shard, in any order.

    Shard i holds records i * shard_size up to (i + 1) * shard_size. It is written
    under another name and renamed when complete, so that a set that was broken off
    goes on where it stopped. Processes of one run may share a folder and the shards;
    its caller keeps others out, by a lock in the folder (`core.locks`). The
    manifest comes last: a folder without one is known to be unfinished.

    Args:
      folder: created if needed; must be empty, or hold a part of the same set.
      manifest: entries of JSON types beside those of the Writer. Whatever decides
        the content belongs here: a set with other entries is not gone on with.
      num_records: in all.
      shard_size: records in one file.
      drops: records may be dropped on the way: then the manifest's "counts" say how
        many each shard holds and "dropped" why others are missing.

    Attributes:
      manifest: all of it.
      missing: numbers of the shards that were not there at the start.

    Raises:
      UserError: a folder with anything else in it, or a shard of no records; in
        `write` a full disk, in `finish` a shard that is missing.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        manifest: Mapping[str, Any],
        num_records: int,
        shard_size: int = 8192,
        drops: bool = False,
    ):
        if shard_size < 1:
            raise UserError(f"shards of {shard_size} records; use 1 or more")
        count = -(-num_records // shard_size)
        self.folder = pathlib.Path(folder).expanduser()
        entries = {
            "format": FORMAT,
            **manifest,
            "num_records": num_records,
            "shard_size": shard_size,
            "shards": [f"part-{i:05d}.arrayrecord" for i in range(count)],
        }
        self.manifest = json.loads(json.dumps(entries))  # as it will be read again
        self.drops = drops
        self._prepare()
        self.missing = [i for i in range(count) if not self._holds(i)]

    def _prepare(self) -> None:
        """Leaves the coming manifest in the folder, or finds it there."""
        if (self.folder / MANIFEST).exists():
            raise UserError(
                f"'{self.folder}' already holds a finished set; choose another folder"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        plan = self.folder / UNFINISHED
        if plan.exists():
            self._compare(plan)
            files.remove_partial(self.folder)
        elif any(not p.name.startswith(locks.NAME) for p in self.folder.iterdir()):
            raise UserError(
                f"'{self.folder}' holds other files; choose a new or an empty folder"
            )
        else:
            files.write_text(plan, json.dumps(self.manifest, indent=2) + "\n")

    def _compare(self, plan: pathlib.Path) -> None:
        try:
            theirs = dict(json.loads(plan.read_text()))
        except (ValueError, TypeError):
            theirs = {}
        ours, known = self.manifest, theirs.get(FINGERPRINT)
        # The same pictures may lie elsewhere; where they lay, one may have been mended.
        # A finished manifest, put back as a plan to replace a shard, holds digests.
        skipped = {FINGERPRINT, "sha256"}
        if known and known == ours.get(FINGERPRINT):
            bare = fingerprint.without_locations
            skipped |= {ORDER}  # which sets of older versions lack
            skipped |= {k for k in PLACES if bare(theirs.get(k)) == bare(ours.get(k))}
        keys = [k for k in {**ours, **theirs} if k not in skipped]
        odd = [k for k in keys if ours.get(k) != theirs.get(k)]
        if odd == [ORDER]:
            raise UserError(
                f"'{self.folder}' is an unfinished set of other pictures: since it was "
                "begun, some were added, removed or renamed, or their table changed; "
                "bring them back, or choose another folder"
            )
        if odd:
            raise UserError(
                f"'{self.folder}' holds an unfinished set with {odd[0]} "
                f"{theirs.get(odd[0])}, not {ours.get(odd[0])}; run it to its end with "
                "the same tokenizer, photos and options, or choose another folder"
            )
        if theirs != ours:
            files.write_text(plan, json.dumps(ours, indent=2) + "\n")

    def records(self, index: int) -> range:
        """Numbers of the records that shard `index` holds."""
        size, total = self.manifest["shard_size"], self.manifest["num_records"]
        return range(index * size, min((index + 1) * size, total))

    def _path(self, index: int) -> pathlib.Path:
        return self.folder / self.manifest["shards"][index]

    def _holds(self, index: int) -> bool:
        from array_record.python import array_record_module

        path = self._path(index)
        if not path.exists():
            return False
        try:
            reader = array_record_module.ArrayRecordReader(os.fspath(path))
            found = reader.num_records()
            reader.close()
        except (RuntimeError, ValueError):
            found = -1
        if self.drops and not self._report(index).is_file():
            return False  # killed between the two: nobody knows what was dropped
        if found != self._kept(index)["kept"]:
            raise UserError(
                f"'{path}' is no complete shard of this set; move it away and run again"
            )
        return True

    def _kept(self, index: int) -> dict[str, Any]:
        """How many records of shard `index` were kept, how many dropped by reason, and
        its digest where this version wrote it."""
        report = self._report(index)
        if report.is_file():
            return json.loads(report.read_text())
        return {"kept": len(self.records(index)), "dropped": {}}

    def _report(self, index: int) -> pathlib.Path:
        return self._path(index).with_suffix(".json")

    def write(self, index: int, records: Iterable[Record | str]) -> None:
        """Writes shard `index`: for every record that belongs there, it or, where the
        set `drops` some, the reason why it is missing."""
        dropped: collections.Counter[str] = collections.Counter()
        with shard_writer(self._path(index)) as file:
            for record in records:
                if isinstance(record, str):
                    dropped[record] += 1
                else:
                    file.write(pack(record))
            given = file.count + dropped.total()
            assert given == len(self.records(index)), (given, self.records(index))
            assert self.drops or not dropped, dropped
        found = {"kept": file.count, "dropped": dropped, "sha256": file.sha256()}
        files.write_text(self._report(index), json.dumps(found))

    def finish(self) -> dict[str, Any]:
        """Puts the manifest in its place and returns it."""
        for index in range(len(self.manifest["shards"])):
            if not self._path(index).exists():
                raise UserError(
                    f"'{self._path(index)}' is still missing; run the same command "
                    "again"
                )
        reports = [self._kept(i) for i in range(len(self.manifest["shards"]))]
        if self.drops:
            self._count(reports)
        self.manifest["sha256"] = [
            report.get("sha256") or files.sha256(self._path(i))
            for i, report in enumerate(reports)
        ]
        text = json.dumps(self.manifest, indent=2) + "\n"
        files.write_text(self.folder / MANIFEST, text)
        for path in (self.folder / UNFINISHED, *self.folder.glob("part-*.json")):
            path.unlink()
        return self.manifest

    def _count(self, reports: Sequence[Mapping[str, Any]]) -> None:
        """Puts what was kept and dropped into the coming manifest."""
        counts = [report["kept"] for report in reports]
        dropped = sum(
            (collections.Counter(report["dropped"]) for report in reports),
            start=collections.Counter(),
        )
        if not any(counts):
            raise UserError(
                f"no picture is left for '{self.folder}': dropped {dict(dropped)}"
            )
        self.manifest |= {
            "num_records": sum(counts), "counts": counts, "dropped": dict(dropped)
        }  # fmt: skip


class Records(Sequence):
    """ArrayRecord shards of pictures or of image ids.

    Args:
      path: a folder with `manifest.json`, a folder of *.arrayrecord files, or
        one such file.
    """

    def __init__(self, path: str | os.PathLike):
        root = pathlib.Path(path).expanduser()
        if not root.exists():
            raise Missing(f"shards '{path}' do not exist; check the path")
        self.manifest: dict[str, Any] = {}
        if (root / MANIFEST).is_file():
            self.manifest = read_manifest(root)
            found = [root / name for name in self.manifest["shards"]]
        elif (root / UNFINISHED).is_file():
            raise UserError(
                f"'{path}' is an unfinished set; run the command that makes it again"
            )
        else:
            found = [root] if root.is_file() else sorted(root.glob("*.array*record*"))
        if not found:
            raise UserError(f"'{path}' holds no ArrayRecord shard")
        missing = [f for f in found if not f.is_file()]
        if missing:
            raise UserError(f"shard '{missing[0]}' of the manifest is missing")
        self.files = [os.fspath(f) for f in found]
        self._reader, self._count = None, 0

    def __getstate__(self):
        return {**self.__dict__, "_reader": None, "_count": 0}

    def fingerprint(self) -> str:
        about = fingerprint.without_locations(self.manifest)
        return fingerprint.large_files(self.files, about)

    def _open(self):
        if self._reader is None:
            from array_record.python import array_record_data_source

            try:
                reader = array_record_data_source.ArrayRecordDataSource(self.files)
                found = len(reader)
            except (RuntimeError, ValueError):
                found = -1
            if found != self.manifest.get("num_records", max(found, 0)):
                raise self._damaged()
            self._reader, self._count = reader, found
        return self._reader

    def _damaged(self) -> UserError:
        """Names the first shard of which not all can be read."""
        from array_record.python import array_record_module

        wrong = self.files[0]
        wanted = counts_of(self.manifest) if self.manifest else ()
        for number, file in enumerate(self.files):
            try:
                reader = array_record_module.ArrayRecordReader(file)
                count = len(reader.read_all())
                reader.close()
            except (RuntimeError, ValueError):
                count = -1
            if count < 0 or (wanted and count != wanted[number]):
                wrong = file
                break
        return UserError(
            f"shard '{wrong}' is damaged or cut off; move it away and run the command "
            "that made it again"
        )

    def __len__(self) -> int:
        self._open()
        return self._count

    def __getitem__(self, index: int) -> Record:
        reader, count = self._open(), self._count
        if not -count <= index < count:
            raise IndexError(index)
        try:
            return unpack(reader[index % count])
        except (RuntimeError, ValueError) as error:
            raise self._damaged() from error


class Tokens(Records):
    """The cache of image ids that `gptface tokenize` writes.

    Args:
      path: the folder.
      tokenizer_digest: of the VQGAN that will decode the ids.

    Raises:
      UserError: no such cache, a set of pictures, or one of another tokenizer.
    """

    def __init__(self, path: str | os.PathLike, tokenizer_digest: str | None = None):
        manifest = read_manifest(path)
        made_by = manifest.get("tokenizer_digest")
        if not made_by:
            raise UserError(
                f"'{path}' holds pictures, not image ids; run `gptface tokenize "
                f"--images {path}` first, or read it as kind 'arrayrecord'"
            )
        if tokenizer_digest and made_by != tokenizer_digest:
            raise UserError(
                f"the ids in '{path}' were made by tokenizer {made_by}, not by "
                f"{tokenizer_digest}; run `gptface tokenize` with this tokenizer"
            )
        super().__init__(path)

    @property
    def codebook(self) -> np.ndarray | None:
        """The tokenizer's codebook float32 [K,C], where the cache holds it."""
        path = pathlib.Path(self.files[0]).parent / CODEBOOK
        return np.load(path) if path.is_file() else None
