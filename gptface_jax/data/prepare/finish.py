"""The last phases: duplicates out, splits, image ids, and the manifests."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core import files
from gptface_jax.core.errors import Missing, UserError
from gptface_jax.data import shard_format
from gptface_jax.data.prepare import duplicates, sample, staging
from gptface_jax.data.prepare.settings import Config, SplitOptions
from gptface_jax.data.prepare.staging import Folder
from gptface_jax.data.record import Record

FORMAT = "gptface-prepared/1"
SPLITS = ("train", "validation", "test")
# Records -> the same with image ids.
Encode = Callable[[Sequence[Record]], Sequence[Record]]
_MOST_REJECTED = 96  # pictures of each reason that the report shows
_TOGETHER = 4_000_000  # numbers of copies that are sorted at a time, 8 bytes each
_KINDS = {"exact": sample.EXACT, "near": sample.NEAR}


def split_of(lot: int, options: SplitOptions) -> str:
    """The split of a picture by its lot, see `stages.lot_of`."""
    share = int(lot) / 2**64
    if share < options.validation:
        return "validation"
    return "test" if share < options.validation + options.test else "train"


def find_copies(folder: Folder, work: duplicates.Work, units: int) -> int:
    """Writes the numbers of the duplicates in a part of a table; returns how many."""
    rows = (np.load(folder.rows(number)) for number in range(units))
    found = duplicates.find(work, rows)
    with files.replacing(folder.found(work)) as partial, open(partial, "wb") as file:
        np.save(file, found)
    return len(found)


def merge_copies(folder: Folder, works: Sequence[duplicates.Work], units: int) -> None:
    """Sorts what all parts of tables name into one file for the exact and the near.

    A large set has more parts than a process may hold open files.
    """
    for kind in _KINDS:
        path = folder.copies(kind)
        parts = [folder.found(w) for w in works if bool(w.mask) == (kind == "near")]
        if path.is_file():
            continue
        total = sum(len(np.load(part, mmap_mode="r")) for part in parts)
        steps = max(1, -(-total // _TOGETHER))
        edges = np.linspace(0, units, steps + 1).round().astype(np.uint64) << 32
        with files.replacing(path) as partial:
            whole = np.lib.format.open_memmap(partial, "w+", np.uint64, (total,))
            start = 0
            for low, high in itertools.pairwise(edges):
                mine = [_between(part, low, high) for part in parts]
                merged = np.sort(np.concatenate([whole[:0], *mine]))
                whole[start : start + len(merged)] = merged
                start += len(merged)
            whole.flush()


def _between(path: pathlib.Path, low: np.uint64, high: np.uint64) -> np.ndarray:
    """The numbers of a sorted file from `low` up to `high`."""
    numbers = np.load(path, mmap_mode="r")
    start, stop = np.searchsorted(numbers, [low, high])
    return np.array(numbers[start:stop])


def plan_copies(folder: Folder, config: Config, units: int) -> list[duplicates.Work]:
    """The parts of tables that find all duplicates of a set whose units are staged."""
    reports = (_report(folder.report(number)) for number in range(units))
    count = sum(report["records"] for report in reports)
    limits = config.filters
    return duplicates.plan(count, limits.near_duplicates, limits.exact_duplicates)


def write_final(
    folder: Folder, config: Config, number: int, encode: Encode | None
) -> None:
    """Writes the shards of unit `number` and its last report."""
    reasons: dict[int, str] = {}
    for kind in ("near", "exact"):  # what is both is the latter
        found = np.load(folder.copies(kind), mmap_mode="r")
        places = duplicates.merged([found], number)
        reasons |= dict.fromkeys(places.tolist(), _KINDS[kind])
    counts: collections.Counter[str] = collections.Counter()
    rejected = folder.rejected(number).with_suffix(".copies")
    records = staging.records_of(folder.staged(number))
    lots = np.load(folder.rows(number))["lot"]
    with contextlib.ExitStack() as stack:
        writers: dict[str, shard_format.shard_writer] = {}
        copies = stack.enter_context(shard_format.shard_writer(rejected))

        def kept() -> Iterator[tuple[str, Record]]:
            for place, record in enumerate(records):
                if place in reasons:
                    reason = reasons[place]
                    counts[reason] += 1
                    if counts[reason] <= config.keep_rejected:
                        copy = dataclasses.replace(record, facts={"reason": reason})
                        copies.write(shard_format.pack(copy))
                    continue
                yield split_of(lots[place], config.split), record

        for split, record in _encoded(kept(), encode, config.image_ids.batch_size):
            if split not in writers:
                path = folder.shard(split, number)
                writers[split] = stack.enter_context(shard_format.shard_writer(path))
            writers[split].write(shard_format.pack(record))
    report = {
        "rejected": dict(counts),
        "splits": {
            split: {"records": writer.count, "sha256": writer.sha256()}
            for split, writer in writers.items()
        },
    }
    files.write_text(folder.final(number), json.dumps(report))


def _encoded(
    items: Iterator[tuple[str, Record]], encode: Encode | None, size: int
) -> Iterator[tuple[str, Record]]:
    if encode is None:
        yield from items
        return
    while batch := list(itertools.islice(items, size)):
        splits, records = zip(*batch)
        yield from zip(splits, encode(records))


def _report(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text())


def finish(
    folder: Folder,
    config: Config,
    units: Sequence[str],
    prints: Sequence[Any],
    about: Mapping[str, Any],
    beside: Mapping[str, np.ndarray],
) -> dict[str, Any]:
    """Writes the manifests, that of the whole set last; returns it.

    Args:
      folder, config: of the set, all of whose pieces are there.
      units: name of each.
      prints: fingerprint of each source.
      about: further entries of the manifests.
      beside: arrays that lie beside the shards of every split, by the file's name.

    Raises:
      UserError: a record is neither in the set nor among the rejected, or none is left.
    """
    first = [_report(folder.report(number)) for number in range(len(units))]
    last = [_report(folder.final(number)) for number in range(len(units))]
    counts, rejected, out = _accounts(folder, first, last)
    manifest = {
        "format": FORMAT,
        **about,
        "config": config.as_json(),
        "fingerprint": list(prints),
        "counts": counts,
        "rejected": dict(sorted(rejected.items())),
        "splits": {split: count for split, count in out.items() if count},
        "units": [
            {
                "name": name,
                "read": a["read"],
                "records": _out(b),
                "rejected": _sum(a, b),
            }
            for name, a, b in zip(units, first, last)
        ],
    }
    for part in (*SPLITS, shard_format.REJECTED):  # what killed workers left
        files.remove_partial(folder.root / part)
    for split in manifest["splits"]:
        for name, array in beside.items():
            path = folder.root / split / name
            with files.replacing(path) as partial, open(partial, "wb") as file:
                np.save(file, array)
        _write_split(folder, split, last, about)
    _write_rejected(folder, len(units))
    files.write_text(
        folder.root / shard_format.MANIFEST, json.dumps(manifest, indent=2) + "\n"
    )
    # In this order: `staging.open_plan` ends what was broken off here.
    shutil.rmtree(folder.staging)
    (folder.root / staging.PLAN).unlink()
    return manifest


def _accounts(
    folder: Folder, first: Sequence[Mapping], last: Sequence[Mapping]
) -> tuple[dict[str, int], collections.Counter[str], dict[str, int]]:
    """Counts of samples read, rejected by reason, and written by split.

    Raises:
      UserError: they do not add up, or nothing is left.
    """
    rejected: collections.Counter[str] = collections.Counter()
    for report in (*first, *last):
        rejected.update(report["rejected"])
    out = {
        split: sum(report["splits"].get(split, {}).get("records", 0) for report in last)
        for split in SPLITS
    }
    counts = {
        "read": sum(report["read"] for report in first),
        "further_faces": sum(
            report["records"] - report["pictures"] for report in first
        ),
        "rejected": rejected.total(),
        "records": sum(out.values()),
    }
    whole = counts["read"] + counts["further_faces"]
    if whole != counts["rejected"] + counts["records"]:
        raise UserError(
            f"'{folder.root}': {counts} do not add up; a unit was changed meanwhile, "
            "move the folder away and run again"
        )
    if not counts["records"]:
        raise UserError(
            f"no picture is left for '{folder.root}': rejected {dict(rejected)}"
        )
    return counts, rejected, out


def _out(report: Mapping[str, Any]) -> int:
    return sum(split["records"] for split in report["splits"].values())


def _sum(*reports: Mapping[str, Any]) -> dict[str, int]:
    total: collections.Counter[str] = collections.Counter()
    for report in reports:
        total.update(report["rejected"])
    return dict(total)


def _write_split(
    folder: Folder,
    split: str,
    reports: Sequence[Mapping[str, Any]],
    about: Mapping[str, Any],
) -> None:
    """The manifest of a split, whose folder then is a source of kind "arrayrecord"."""
    shards = {
        number: report["splits"][split]
        for number, report in enumerate(reports)
        if split in report["splits"]
    }
    counts = [shard["records"] for shard in shards.values()]
    manifest = {
        "format": shard_format.FORMAT,
        **about,
        "split": split,
        "num_records": sum(counts),
        "shard_size": max(counts),
        "shards": [folder.shard(split, number).name for number in shards],
        "counts": counts,
        "sha256": [shard["sha256"] for shard in shards.values()],
    }
    text = json.dumps(manifest, indent=2) + "\n"
    files.write_text(folder.root / split / shard_format.MANIFEST, text)


def _write_rejected(folder: Folder, units: int) -> None:
    """A shard of rejected pictures, some of every reason."""
    shown: collections.Counter[str] = collections.Counter()
    path = folder.root / shard_format.REJECTED / "part-000000.arrayrecord"
    with shard_format.shard_writer(path) as writer:
        for number in range(units):
            first = folder.rejected(number)
            for source in (first, first.with_suffix(".copies")):
                for record in staging.records_of(source):
                    reason = record.facts["reason"]
                    shown[reason] += 1
                    if shown[reason] <= _MOST_REJECTED:
                        writer.write(shard_format.pack(record))
    manifest = {
        "format": shard_format.FORMAT,
        "split": shard_format.REJECTED,
        "num_records": writer.count,
        "shard_size": max(1, writer.count),
        "shards": [path.name],
        "counts": [writer.count],
        "sha256": [writer.sha256()],
    }
    files.write_text(
        path.with_name(shard_format.MANIFEST), json.dumps(manifest, indent=2) + "\n"
    )


def read(folder: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a finished set.

    Raises:
      UserError: there is none.
    """
    path = pathlib.Path(folder).expanduser() / shard_format.MANIFEST
    try:
        manifest = json.loads(path.read_text())
    except (OSError, ValueError):
        manifest = {}
    if manifest.get("format") != FORMAT:
        raise Missing(
            f"'{folder}' is no finished set of `gptface prepare --config`; check the "
            "path, or run that again"
        )
    return manifest
