"""Shards against their manifest."""

from __future__ import annotations

import collections
import hashlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

from gptface_jax.core.errors import UserError
from gptface_jax.data import shard_format, transforms
from gptface_jax.data.inspection.sets import Set
from gptface_jax.data.record import Record


def check(
    found: Set, sample: int | None, progress: Callable[[int], Any] = lambda n: None
) -> dict[str, Any]:
    """Faults of a data set.

    Args:
      found: the set.
      sample: records that are read, evenly drawn; None reads all. Digests of shards are
        compared with all.
      progress: called with a number of records read.

    Returns:
      {"shards", "records": looked at; "faults": fault -> how often}.
    """
    faults: collections.Counter[str] = collections.Counter()
    shards = _shards(found.folder, faults, sample is None) if found.folder else 0
    counts = found.manifest.get("counts")
    if counts:
        whole = counts["read"] + counts["further_faces"]
        if whole != counts["rejected"] + counts["records"]:
            faults["manifest: read is not records + rejected"] += 1
        if counts["records"] != len(found):
            faults["manifest: another number of records than the shards hold"] += 1
    crop = found.manifest.get("crop", {})
    required = found.manifest.get("config", {}).get("texts", {}).get("required", False)
    seen: dict[bytes, str] = {}
    records = 0
    for split, record in found.sample(sample):
        records += 1
        progress(1)
        faults.update(_faults(record, crop.get("size"), required))
        if isinstance(record.image, bytes):
            digest = hashlib.sha256(record.image).digest()[:8]
            if seen.setdefault(digest, split) != split:
                faults["one picture in two splits"] += 1
    return {"shards": shards, "records": records, "faults": dict(faults)}


def _shards(folder: pathlib.Path, faults: collections.Counter, every: bool) -> int:
    """Compares digests where the manifests have some; returns how many shards."""
    manifests = [folder / shard_format.MANIFEST]
    parts = sorted(folder.glob(f"*/{shard_format.MANIFEST}"))
    count = 0
    for path in parts or manifests:
        manifest: Mapping[str, Any] = shard_format.read_manifest(path.parent)
        digests = manifest.get("sha256") or [None] * len(manifest["shards"])
        for name, digest in zip(manifest["shards"], digests):
            count += 1
            shard = path.parent / name
            if not shard.is_file():
                faults[f"shard {path.parent.name}/{name}: missing"] += 1
            elif digest and every:
                with open(shard, "rb") as file:
                    same = hashlib.file_digest(file, "sha256").hexdigest() == digest
                if not same:
                    faults[f"shard {path.parent.name}/{name}: another digest"] += 1
    return count


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
