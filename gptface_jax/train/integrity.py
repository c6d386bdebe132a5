"""Checksums of a folder's files, written beside them and compared later."""

from __future__ import annotations

import json
import pathlib
import zlib
from collections.abc import Collection

from gptface_jax.core import files

FILE = "checksums.json"
_CHUNK = 1 << 22
# Orbax's own, which changes when a checkpoint gets its final name.
_LEFT_OUT = (FILE, "_CHECKPOINT_METADATA")


def write(folder: pathlib.Path) -> None:
    """Writes `checksums.json`: size and CRC-32 of every file in the folder.

    Raises:
      OSError: a file cannot be read, or the new one written.
    """
    sums = {
        name: [path.stat().st_size, _crc(path)] for name, path in _files(folder).items()
    }
    files.write_text(folder / FILE, json.dumps(sums))


def problem(folder: pathlib.Path, among: Collection[str] | None = None) -> str | None:
    """Message on what is wrong with the files; None if nothing is.

    A folder without checksums passes.

    Args:
      folder: with the checksums.
      among: names of the only folders in it that are looked at; default all.
    """
    path = folder / FILE
    if not path.is_file():
        return None
    try:
        sums = json.loads(path.read_text())
    except (OSError, ValueError):
        return f"{FILE} cannot be read"
    present = _files(folder)
    for name, (expected, crc) in sums.items():
        if among is not None and name.partition("/")[0] not in among:
            continue
        if name not in present:
            return f"{name} is missing"
        found = present[name].stat().st_size
        if found != expected:
            return f"{name} has {found} of {expected} bytes"
        try:
            if _crc(present[name]) != crc:
                return f"{name} has another checksum"
        except OSError as error:
            return f"{name} cannot be read: {error.strerror}"
    return None


def _files(folder: pathlib.Path) -> dict[str, pathlib.Path]:
    found = (p for p in folder.rglob("*") if p.is_file())
    named = {p.relative_to(folder).as_posix(): p for p in sorted(found)}
    return {
        n: p
        for n, p in named.items()
        if n not in _LEFT_OUT and not n.endswith(files.PARTIAL)
    }


def _crc(path: pathlib.Path) -> str:
    value = 0
    with open(path, "rb") as file:
        while chunk := file.read(_CHUNK):
            value = zlib.crc32(chunk, value)
    return f"{value:08x}"
