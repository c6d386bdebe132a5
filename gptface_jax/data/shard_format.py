"""What stands in the files of `data.shards`: records as bytes, and the manifest.

Every record is one msgpack map of the fields of `Record`.
"""

from __future__ import annotations

import dataclasses
import io
import json
import os
import pathlib
from typing import Any

import msgpack
import numpy as np

from gptface_jax.core.errors import Missing, UserError
from gptface_jax.data import schemes
from gptface_jax.data.record import Record

FORMAT = "gptface-tokens/1"
MANIFEST = "manifest.json"
# The coming manifest: in the folder from the first moment until it is finished.
UNFINISHED = MANIFEST + ".partial"
CODEBOOK = "codebook.npy"
FINGERPRINT = "fingerprint"  # of the pictures, in a manifest: `data.fingerprint`
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
    manifest = json.loads(path.read_text())
    if manifest.get("format") != FORMAT:
        raise UserError(
            f"'{path}' has format {manifest.get('format')!r}; this version reads "
            f"{FORMAT!r}"
        )
    return manifest
