"""What was measured of each sample, as JSON Lines."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gptface_jax.core import files
from gptface_jax.data.record import Record


def write(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a row, see `files.json_text`; a whole file or none."""
    files.write_text(path, "".join(files.json_text(row) for row in rows))


def named(record: Record) -> dict[str, Any]:
    """What tells a picture and its person apart from others: "picture" and "person"."""
    pixels = record.image
    data = pixels if isinstance(pixels, bytes) else np.ascontiguousarray(pixels)
    digest = hashlib.sha256(data).hexdigest()[:16]
    return {"picture": digest, "person": record.identity}
