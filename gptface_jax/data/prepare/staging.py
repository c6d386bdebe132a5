"""The work on a set: its plan, what each unit gave, and what is still to be done.

A folder grows in three phases, each of pieces that stand by themselves:

1. a unit's samples become records in a staged shard, beside it `ROW`s that duplicates
   are found by and a report of what was rejected;
2. parts of tables name the duplicates among all rows;
3. a staged shard becomes the shards of its splits, without duplicates.

A piece is written under another name and renamed when it is complete, its report last:
a job that was killed goes on with the pieces that are missing.
"""

from __future__ import annotations

import collections
import dataclasses
import json
import os
import pathlib
import shutil
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from gptface_jax.core import files, locks
from gptface_jax.core.errors import UserError
from gptface_jax.data import fingerprint, shard_format
from gptface_jax.data.prepare import duplicates
from gptface_jax.data.prepare.readers import Unit
from gptface_jax.data.prepare.sample import OPTED_OUT, Rejected
from gptface_jax.data.prepare.settings import Config
from gptface_jax.data.prepare.stages import Kept
from gptface_jax.data.record import Record

PLAN = "plan.json"
_LARGEST = 256  # side of a rejected picture that is kept for the report


@dataclasses.dataclass(frozen=True)
class Folder:
    """Names of all files of a set; picklable."""

    root: pathlib.Path

    @property
    def staging(self) -> pathlib.Path:
        return self.root / "staging"

    def staged(self, number: int) -> pathlib.Path:
        return self.staging / f"unit-{number:06d}.arrayrecord"

    def rejected(self, number: int) -> pathlib.Path:
        return self.staging / f"unit-{number:06d}.rejected"

    def rows(self, number: int) -> pathlib.Path:
        return self.staging / f"unit-{number:06d}.npy"

    def report(self, number: int) -> pathlib.Path:
        return self.staging / f"unit-{number:06d}.json"

    def tries(self, number: int) -> pathlib.Path:
        """Holds how often the unit was begun and not ended."""
        return self.staging / f"unit-{number:06d}.tries"

    def at(self, number: int) -> pathlib.Path:
        """Holds which of the unit's samples is being looked at."""
        return self.staging / f"unit-{number:06d}.at"

    def found(self, work: duplicates.Work) -> pathlib.Path:
        return self.staging / f"copies-{work.name}.npy"

    def copies(self, kind: str) -> pathlib.Path:
        return self.staging / f"all-copies-{kind}.npy"

    def shard(self, split: str, number: int) -> pathlib.Path:
        return self.root / split / f"part-{number:06d}.arrayrecord"

    def final(self, number: int) -> pathlib.Path:
        return self.staging / f"final-{number:06d}.json"


def open_plan(
    folder: Folder, config: Config, units: list[Unit], prints: list[Any], about: Any
) -> dict[str, Any] | None:
    """Leaves the plan in a new folder, or finds the same one there.

    Returns the manifest of a set that is finished already, else nothing.

    Args:
      folder: of the set.
      config, units, prints: see `readers.units`.
      about: JSON of all else that decides the content.

    Raises:
      UserError: the folder holds anything else.
    """
    plan = json.loads(
        json.dumps(
            {
                "config": fingerprint.without_locations(config.as_json()),
                "sources": prints,
                "units": len(units),
                "about": about,
            }
        )
    )
    path = folder.root / PLAN
    if (folder.root / shard_format.MANIFEST).exists():
        if path.exists():  # ended while it was tidied up
            shutil.rmtree(folder.staging, ignore_errors=True)
            path.unlink()
        manifest = json.loads((folder.root / shard_format.MANIFEST).read_text())
        same = {
            "config": fingerprint.without_locations(manifest.get("config", {})),
            "sources": manifest.get("fingerprint"),
            "units": len(manifest.get("units", ())),
            "about": {k: manifest.get(k) for k in plan["about"]},
        }
        if same != plan:
            raise UserError(
                f"'{folder.root}' already holds a finished set of another config or "
                "other sources; choose another folder"
            )
        return manifest
    if path.exists():
        theirs = json.loads(path.read_text())
        odd = [k for k in plan if theirs.get(k) != plan[k]]
        if odd:
            raise UserError(
                f"'{folder.root}' holds an unfinished set of another config or other "
                f"sources ({odd[0]} differs); run it to its end, or choose another "
                "folder"
            )
        files.remove_partial(folder.staging)
    elif any(not p.name.startswith(locks.NAME) for p in folder.root.iterdir()):
        raise UserError(
            f"'{folder.root}' holds other files; choose a new or an empty folder"
        )
    else:
        files.write_text(path, json.dumps(plan, indent=2) + "\n")
    folder.staging.mkdir(exist_ok=True)
    return None


def write_unit(
    folder: Folder,
    number: int,
    outcomes: Iterable[Rejected | tuple[Kept, ...]],
    keep_rejected: int,
    expected: int | None = None,
) -> dict[str, Any]:
    """Writes what `Stages` made of a unit; returns its report.

    Args:
      folder, number: of the set, and of the unit.
      outcomes: what became of each sample.
      keep_rejected: pictures kept for the report, of each reason.
      expected: samples that the unit has, where that is known before they are read.

    Raises:
      UserError: there were more or fewer.
    """
    counts: collections.Counter[str] = collections.Counter()
    shown: collections.Counter[str] = collections.Counter()
    read, records, rows = 0, 0, []
    with (
        shard_format.shard_writer(folder.staged(number)) as staged,
        shard_format.shard_writer(folder.rejected(number)) as rejected,
    ):
        for outcome in outcomes:
            read += 1
            if isinstance(outcome, Rejected):
                counts[outcome.reason] += 1
                if shown[outcome.reason] < keep_rejected:
                    shown[outcome.reason] += 1
                    rejected.write(shard_format.pack(thumbnail(outcome)))
                continue
            for kept in outcome:
                digest = int(kept.digest[:16], 16)
                place = (number << 32) + records
                rows.append((kept.hash, digest, place, kept.lot))
                staged.write(shard_format.pack(kept.record))
                records += 1
    if expected not in (None, read):
        raise UserError(
            f"unit {number} has {expected} records by the plan, and {read} were read: "
            "the source was changed meanwhile; move the folder away and run again"
        )
    with files.replacing(folder.rows(number)) as partial, open(partial, "wb") as file:
        np.save(file, np.array(rows, duplicates.ROW))
    report = {
        "read": read,
        "pictures": read - counts.total(),
        "records": records,
        "rejected": dict(counts),
    }
    files.write_text(folder.report(number), json.dumps(report))
    return report


def records_of(path: pathlib.Path, some: int = 64) -> Iterator[Record]:
    """Records of a file of `shard_writer`, a few at a time in memory."""
    from array_record.python import array_record_module

    reader = array_record_module.ArrayRecordReader(os.fspath(path))
    try:
        for start in range(0, reader.num_records(), some):
            stop = min(start + some, reader.num_records())
            yield from map(shard_format.unpack, reader.read(start, stop))
    finally:
        reader.close()


def thumbnail(rejected: Rejected) -> Record:
    """A rejected picture as the report shows it: small, with its reason."""
    from PIL import Image

    record = rejected.record or Record()
    if rejected.reason == OPTED_OUT:
        record = Record()  # nothing of it is kept, not even where it was
    picture = record.image if isinstance(record.image, np.ndarray) else None
    if picture is not None:
        small = Image.fromarray(picture)
        small.thumbnail((_LARGEST, _LARGEST))
        picture = np.asarray(small)
    return Record(
        image=picture,
        text=record.text[:500],
        facts={"reason": rejected.reason},
        source=record.source or (rejected.key if rejected.record is None else ""),
    )


def missing(paths: Mapping[Any, pathlib.Path]) -> list[Any]:
    """Keys whose file is not there."""
    return [key for key, path in paths.items() if not path.is_file()]
