"""Records in ArrayRecord shards: whole pictures, or the cache of image ids.

A folder holds `part-00000.arrayrecord`, ... and `manifest.json`. Every record is
one msgpack map of the fields of `Record`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgpack
import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data.record import Record

FORMAT = "gptface-tokens/1"
MANIFEST = "manifest.json"
# Stands in a folder from the first moment until the manifest takes its place.
UNFINISHED = MANIFEST + ".partial"
CODEBOOK = "codebook.npy"


def pack(record: Record) -> bytes:
    """Record -> bytes. A picture given as an array is stored as PNG."""
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if value is None or (isinstance(value, str) and not value):
            continue
        if field.name == "image" and isinstance(value, np.ndarray):
            value = _png(value)
        elif isinstance(value, np.ndarray):
            value = {"d": value.dtype.str, "s": value.shape, "b": value.tobytes()}
        elif field.name == "labels":
            value = {k: float(v) for k, v in value.items()}
        fields[field.name] = value
    return msgpack.packb(fields)


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def unpack(data: bytes) -> Record:
    """The inverse of `pack`."""
    fields = msgpack.unpackb(data)
    for name, value in fields.items():
        if isinstance(value, dict) and set(value) == {"d", "s", "b"}:
            array = np.frombuffer(value["b"], np.dtype(value["d"]))
            fields[name] = array.reshape(value["s"])
    return Record(**fields)


class Writer:
    """Writes records into shards; the manifest comes last, so that a folder
    without one is known to be unfinished.

    Args:
      folder: created if needed; must be empty, or hold a set left unfinished,
        which is begun anew.
      manifest: entries beside the record count and the shard names.
      shard_size: records in one file.

    Raises:
      UserError: a folder with anything else in it; in `write` and `finish`, a full
        disk.
    """

    def __init__(
        self,
        folder: str | os.PathLike,
        manifest: Mapping[str, Any],
        shard_size: int = 10_000,
    ):
        self.folder = pathlib.Path(folder)
        if (self.folder / MANIFEST).exists():
            raise UserError(
                f"'{folder}' already holds a finished set; choose another folder or "
                "delete it"
            )
        self.folder.mkdir(parents=True, exist_ok=True)
        if any(self.folder.iterdir()) and not (self.folder / UNFINISHED).exists():
            raise UserError(
                f"'{folder}' holds other files; choose a new or an empty folder"
            )
        (self.folder / UNFINISHED).write_text("{}\n")
        for leftover in self.folder.glob("part-*.arrayrecord"):
            leftover.unlink()
        self.manifest, self.shard_size = dict(manifest), shard_size
        self.shards: list[str] = []
        self.count, self._file = 0, None

    def write(self, record: Record) -> None:
        from array_record.python import array_record_module

        if self.count % self.shard_size == 0:
            self._close_shard()
            self.shards.append(f"part-{len(self.shards):05d}.arrayrecord")
            path = os.fspath(self.folder / self.shards[-1])
            self._file = array_record_module.ArrayRecordWriter(path, "group_size:1")
        with _reported(self.folder):
            self._file.write(pack(record))
        self.count += 1

    def _close_shard(self) -> None:
        if self._file is not None:
            with _reported(self.folder):
                self._file.close()
            self._file = None

    def finish(self) -> dict[str, Any]:
        """Closes the shards and writes the manifest, which it returns."""
        self._close_shard()
        full = {
            "format": FORMAT,
            **self.manifest,
            "num_records": self.count,
            "shards": self.shards,
        }
        partial = self.folder / UNFINISHED
        partial.write_text(json.dumps(full, indent=2) + "\n")
        partial.rename(self.folder / MANIFEST)
        return full


@contextlib.contextmanager
def _reported(folder: pathlib.Path) -> Iterator[None]:
    """ArrayRecord's error, which a full disk raises, as one for a person."""
    try:
        yield
    except RuntimeError as error:
        reason = str(error).split(";")[0]
        raise UserError(
            f"cannot write to '{folder}' ({reason}); free space on the disk or choose "
            "another folder"
        ) from None


class Records(Sequence):
    """ArrayRecord shards of pictures or of image ids.

    Args:
      path: a folder with `manifest.json`, a folder of *.arrayrecord files, or
        one such file.
    """

    def __init__(self, path: str | os.PathLike):
        root = pathlib.Path(path).expanduser()
        if not root.exists():
            raise UserError(f"shards '{path}' do not exist; check the path")
        self.manifest: dict[str, Any] = {}
        if (root / MANIFEST).is_file():
            self.manifest = read_manifest(root)
            files = [root / name for name in self.manifest["shards"]]
        else:
            files = [root] if root.is_file() else sorted(root.glob("*.array*record*"))
        if not files:
            raise UserError(f"'{path}' holds no ArrayRecord shard")
        missing = [f for f in files if not f.is_file()]
        if missing:
            raise UserError(f"shard '{missing[0]}' of the manifest is missing")
        self.files = [os.fspath(f) for f in files]
        self._reader = None

    def __getstate__(self):
        return {**self.__dict__, "_reader": None}

    def _open(self):
        if self._reader is None:
            from array_record.python import array_record_data_source

            self._reader = array_record_data_source.ArrayRecordDataSource(self.files)
        return self._reader

    def __len__(self) -> int:
        return len(self._open())

    def __getitem__(self, index: int) -> Record:
        if not -len(self) <= index < len(self):
            raise IndexError(index)
        return unpack(self._open()[index % len(self)])


def read_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
      UserError: there is none, or it is of another format.
    """
    path = pathlib.Path(folder) / MANIFEST
    if not path.is_file():
        raise UserError(
            f"'{folder}' has no {MANIFEST}; it is no finished set, run `gptface "
            "tokenize` (again)"
        )
    manifest = json.loads(path.read_text())
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"'{path}' has format {manifest.get('format')!r}; this version reads "
            f"{FORMAT!r}"
        )
    return manifest


class Tokens(Records):
    """The cache of image ids that `gptface tokenize` writes.

    Args:
      path: the folder.
      tokenizer_digest: of the VQGAN that will decode the ids.

    Raises:
      UserError: no such cache, or it was made by another tokenizer.
    """

    def __init__(self, path: str | os.PathLike, tokenizer_digest: str | None = None):
        manifest = read_manifest(path)
        made_by = manifest.get("tokenizer_digest")
        if tokenizer_digest and made_by != tokenizer_digest:
            raise UserError(
                f"the ids in '{path}' were made by tokenizer {made_by}, not by "
                f"{tokenizer_digest}; run `gptface tokenize` with this tokenizer"
            )
        super().__init__(path)

    @property
    def codebook(self) -> np.ndarray | None:
        """float32 [K,C] of the tokenizer, where the cache holds it."""
        path = pathlib.Path(self.files[0]).parent / CODEBOOK
        return np.load(path) if path.is_file() else None
