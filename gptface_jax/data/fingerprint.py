"""Which data a run was trained on, wherever they lie now.

A run may go on with data that were moved or are reached by another path, and must not
go on with others. To read all pictures at every start would take hours; what tells data
apart are the names of the files, their sizes, and the tables that say what they show:

* folder, CelebA: all names, the sizes of at most 1,024 of them evenly spread, and the
  tables as a whole;
* Parquet, ArrayRecord: names, sizes and the last 64 KiB of every file, where both keep
  their index (row groups with statistics, positions of the records), and the manifest
  but for the place that its pictures came from;
* TFDS: name, version and number of records.

An unfinished set is gone on with where a picture of a folder was mended, and not where
one was added, removed or renamed: `order_of` leaves out the sizes.

A picture that was changed and kept its size is not noticed. What is drawn follows from
the config, which is compared anyway.
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

_SIZES = 1024  # files whose size is asked for, which takes a while on a network disk
_TAIL = 1 << 16
# Keys of a spec that say where data lie and not what they are.
LOCATIONS = ("path", "data_dir")


def without_locations(spec: Any) -> Any:
    """A spec, or anything that holds some, without `LOCATIONS`."""
    if isinstance(spec, Mapping):
        kept = {k: v for k, v in spec.items() if k not in LOCATIONS}
        return {k: without_locations(v) for k, v in kept.items()}
    if isinstance(spec, (list, tuple)):
        return [without_locations(part) for part in spec]
    return spec


def of(source: Any) -> Any:
    """16 hex digits of a source, "" where its config says all; of a mixture a list."""
    return _each(source, "fingerprint")


def order_of(source: Any) -> Any:
    """`of` a source without the sizes of many small files: which they are, in order."""
    return _each(source, "order")


def _each(source: Any, method: str) -> Any:
    if hasattr(source, "sources"):
        return [_each(part, method) for part in source.sources]
    if hasattr(source, "source"):
        return _each(source.source, method)
    own = getattr(source, method, getattr(source, "fingerprint", None))
    return own() if own else ""


def many_files(
    root: pathlib.Path,
    names: Sequence[str],
    tables: Iterable[str | os.PathLike] = (),
    sizes: bool = True,
) -> str:
    """Fingerprint of many small files, or of whole tables.

    Args:
      root: what the names are seen from.
      names: of the files, in their order.
      tables: further files, as seen from the root.
      sizes: whether those of the small files count.
    """
    state = hashlib.sha256(json.dumps(list(names)).encode())
    step = max(1, -(-len(names) // _SIZES))
    for index in range(0, len(names) if sizes else 0, step):
        state.update(f"{_size(root / names[index])} ".encode())
    for table in tables:
        state.update((root / table).read_bytes())
    return state.hexdigest()[:16]


def large_files(files: Sequence[str | os.PathLike], about: Any = None) -> str:
    """Fingerprint of files that end in an index; `about`: JSON that also counts."""
    state = hashlib.sha256(json.dumps(about, sort_keys=True).encode())
    for path in map(pathlib.Path, files):
        size = _size(path)
        # The name of a single file is part of where it lies.
        state.update(f"{path.name if len(files) > 1 else ''} {size} ".encode())
        with open(path, "rb") as file:
            file.seek(max(0, size - _TAIL))
            state.update(file.read())
    return state.hexdigest()[:16]


def few_words(*words: Any) -> str:
    """Fingerprint of what a library says of its data."""
    return hashlib.sha256(json.dumps(words, default=str).encode()).hexdigest()[:16]


def _size(path: pathlib.Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1  # reading it will say so
