"""What was measured of each sample, as JSON Lines."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from gptface_jax.core import files


def write(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a row, see `files.json_text`; a whole file or none."""
    files.write_text(path, "".join(files.json_text(row) for row in rows))
