"""Shards against their manifest."""

from __future__ import annotations

import array
import collections
import hashlib
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core import files
from gptface_jax.core.errors import UserError
from gptface_jax.data import shard_format, transforms
from gptface_jax.data.inspection import sets
from gptface_jax.data.inspection.sets import Set
from gptface_jax.data.record import Record


def check(
    found: Set,
    sample: int | None,
    progress: Callable[[int], Any] = lambda n: None,
    faults: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """All faults of a data set.

    Args:
      found: the set.
      sample: records that are read, evenly drawn; None reads all. Digests of shards are
        compared with all.
      progress: called with a number of records read.
      faults: of shards that could not be opened, see `sets.open_set`.

    Returns:
      {"shards": how many there are, "digests": how many were compared, "records":
      looked at, "faults": fault -> how often}.
    """
    faults = collections.Counter(faults or {})
    shards = digests = 0
    if found.folder:
        shards, digests = _shards(found.folder, faults, sample is None)
    counts = found.manifest.get("counts")
    if counts:
        whole = counts["read"] + counts["further_faces"]
        if whole != counts["rejected"] + counts["records"]:
            faults["manifest: read is not records + rejected"] += 1
        if counts["records"] != len(found):
            faults["manifest: another number of records than the shards hold"] += 1
    crop = found.manifest.get("crop", {})
    required = found.manifest.get("config", {}).get("texts", {}).get("required", False)
    digests_of: dict[str, array.array] = {}  # split -> 8 bytes a picture
    damaged: set[str] = set()
    records = 0
    for place, index in found.places(sample):
        progress(1)
        if place in damaged:
            continue
        records += 1
        try:
            record = found.splits[place][index]
        except UserError:
            if found.by_shard:  # of which each fault would be looked for all through
                damaged.add(place)
                faults[f"shard {place}: cannot be read from record {index} on"] += 1
            else:
                faults["record: cannot be read"] += 1
            continue
        faults.update(_faults(record, crop.get("size"), required))
        if isinstance(record.image, bytes):
            seen = digests_of.setdefault(place.partition("/")[0], array.array("Q"))
            seen.frombytes(hashlib.sha256(record.image).digest()[:8])
    if both := _in_two(list(digests_of.values())):
        faults["one picture in two splits"] += both
    return {
        "shards": shards,
        "digests": digests,
        "records": records,
        "faults": dict(faults),
    }


def _in_two(splits: Sequence[array.array]) -> int:
    """How many numbers there are of splits before their own."""
    arrays = [np.frombuffer(split, np.uint64) for split in splits]
    return sum(
        int(np.isin(own, np.concatenate(arrays[:place])).sum())
        for place, own in enumerate(arrays)
        if place
    )


def _shards(
    folder: pathlib.Path, faults: collections.Counter[str], every: bool
) -> tuple[int, int]:
    """How many shards there are, and of how many the digest was compared."""
    parts = sorted({*sets.parts_of(folder), shard_format.REJECTED})
    folders = [folder / part for part in parts if (folder / part).is_dir()]
    count = compared = 0
    for part in folders or [folder]:
        try:
            manifest = shard_format.read_manifest(part)
        except UserError:
            continue  # a fault that `sets.open_set` tells
        names = manifest["shards"]
        there = {path.name for path in part.glob("*.array*record*")}
        for foreign in sorted(there - {*names}):
            faults[f"shard {part.name}/{foreign}: not in the manifest"] += 1
        digests = manifest.get("sha256") or [None] * len(names)
        for name, digest in zip(names, digests):
            count += 1
            shard = part / name
            if not shard.is_file():
                faults[f"shard {part.name}/{name}: missing"] += 1
            elif digest and every:
                compared += 1
                if files.sha256(shard) != digest:
                    faults[f"shard {part.name}/{name}: another digest"] += 1
    return count, compared


def _faults(record: Record, size: int | None, required: bool) -> list[str]:
    found = []
    if record.image is None and record.image_ids is None:
        found.append("record: neither picture nor image ids")
    if required and not record.text:
        found.append("record: no text")
    if record.image is not None:
        try:
            pixels = transforms.decode_picture(record)
        except UserError:
            return [*found, "record: the picture cannot be decoded"]
        if size and pixels.shape[:2] != (size, size):
            found.append("record: a picture of another size than the manifest says")
    return found
