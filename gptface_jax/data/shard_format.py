"""What stands in the files of `data.shards`: records as bytes, and the manifest.

Every record is one msgpack map of the fields of `Record`.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import msgpack
import numpy as np

from gptface_jax.core import files
from gptface_jax.core.errors import Missing, UserError
from gptface_jax.data import schemes
from gptface_jax.data.record import Record

FORMAT = "gptface-tokens/1"
MANIFEST = "manifest.json"
# The coming manifest: in the folder from the first moment until it is finished.
UNFINISHED = MANIFEST + ".partial"
CODEBOOK = "codebook.npy"
# Of the pictures, in a manifest, and without their sizes: see `data.fingerprint`.
FINGERPRINT, ORDER = "fingerprint", "order"
REJECTED = "rejected"  # the split of pictures that are none of the set
PLACES = ("photos", "source")  # entries of manifests that hold the spec of the pictures


def pack(record: Record) -> bytes:
    """A record as bytes. A picture given as an array is stored as PNG."""
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        unset = {} if field.name == "facts" else field.default
        if value is None or (isinstance(value, (str, tuple, dict)) and value == unset):
            continue
        if field.name == "image" and isinstance(value, np.ndarray):
            value = _png(value)
        elif isinstance(value, np.ndarray):
            value = _packed(value)
        elif field.name == "face3d":
            value = {
                k: _packed(v) if isinstance(v, np.ndarray) else v
                for k, v in value.items()
            }
        elif field.name == "labels":
            value = {k: float(v) for k, v in value.items()}
        fields[field.name] = value
    # A file's name may be no UTF-8, which Python spells in surrogates.
    return msgpack.packb(fields, unicode_errors="surrogatepass")


def _packed(array: np.ndarray) -> dict[str, Any]:
    return {"d": array.dtype.str, "s": array.shape, "b": array.tobytes()}


def _unpacked(value: dict[str, Any]) -> np.ndarray:
    return np.frombuffer(value["b"], np.dtype(value["d"])).reshape(value["s"])


def _png(image: np.ndarray) -> bytes:
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=3)
    return buffer.getvalue()


def unpack(data: bytes) -> Record:
    """The record of bytes that `pack` made."""
    fields = msgpack.unpackb(data, unicode_errors="surrogatepass")
    for name, value in fields.items():
        if name == "face3d":
            fields[name] = {
                k: _unpacked(v) if isinstance(v, dict) else v for k, v in value.items()
            }
        elif isinstance(value, dict) and name not in ("labels", "facts"):
            fields[name] = _unpacked(value)
        elif name == "texts":
            fields[name] = tuple(value)
    if "landmarks" in fields:  # older shards do not say which ones
        scheme = schemes.of_points(len(fields["landmarks"]))
        fields.setdefault("landmark_scheme", scheme)
    return Record(**fields)


class shard_writer:
    """Context in which records are written to an ArrayRecord file, complete or not.

    Attributes:
      path: of the file.
      count: records so far.
    """

    def __init__(self, path: pathlib.Path):
        self._replacing = files.replacing(path)
        self.path, self.count = path, 0

    def __enter__(self) -> shard_writer:
        from array_record.python import array_record_module

        partial = os.fspath(self._replacing.__enter__())
        with self._reported():
            self._file = array_record_module.ArrayRecordWriter(partial, "group_size:1")
        return self

    def write(self, data: bytes) -> None:
        """Writes the bytes of a record.

        Raises:
          UserError: the disk is full.
        """
        with self._reported():
            self._file.write(data)
        self.count += 1

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        """ArrayRecord's error, which a full disk raises, as one for a person."""
        try:
            yield
        except RuntimeError as error:
            raise UserError(
                f"cannot write '{self.path}' ({str(error).split(';')[0]}); free space "
                "on the disk, and run the same command again"
            ) from None

    def __exit__(self, *exception: Any) -> None:
        try:
            with self._reported():
                self._file.close()
        except UserError as failed:
            self._replacing.__exit__(UserError, failed, None)
            raise
        self._replacing.__exit__(*exception)

    def sha256(self) -> str:
        """The digest of the file, which must be complete."""
        return files.sha256(self.path)


def counts_of(manifest: Mapping[str, Any]) -> list[int]:
    """How many records each shard of a manifest holds."""
    if "counts" in manifest:
        return manifest["counts"]
    size, total = manifest["shard_size"], manifest["num_records"]
    starts = range(0, len(manifest["shards"]) * size, size)
    return [min(size, total - start) for start in starts]


def read_manifest(folder: str | os.PathLike) -> dict[str, Any]:
    """The manifest of a folder.

    Raises:
      UserError: there is none, or it is of another format.
    """
    path = pathlib.Path(folder) / MANIFEST
    if not path.is_file():
        raise Missing(
            f"'{folder}' has no {MANIFEST}; it is no finished set, run `gptface "
            "tokenize` (again)"
        )
    try:
        manifest = dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError):
        manifest = {}
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"'{path}' has format {manifest.get('format')!r}; this version reads "
            f"{FORMAT!r}"
        )
    return manifest
