"""What was measured of each sample, as JSON Lines."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from gptface_jax.core import files


def write(path: str | os.PathLike, rows: Iterable[Mapping[str, Any]]) -> None:
    """Writes one JSON object a row, a whole file or none.

    Numpy's numbers and arrays become plain ones. What is not finite, as a figure of
    nothing, becomes null: JSON has no NaN.
    """
    lines = [json.dumps(_plain(row), ensure_ascii=False) + "\n" for row in rows]
    files.write_text(path, "".join(lines))


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if isinstance(value, (np.ndarray, np.generic)):
        return _plain(value.tolist())
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value
