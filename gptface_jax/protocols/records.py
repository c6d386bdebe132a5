"""Records to evaluate on, and their pictures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.data import image, image_io, sources
from gptface_jax.data.record import Record


def open_records(spec: Mapping[str, Any], limit: int) -> list[Record]:
    """The first `limit` records of a source."""
    source = sources.open_source(spec, report=True)
    return [source[i] for i in range(min(limit, len(source)))]


def pictures_of(records: Sequence[Record], size: int) -> np.ndarray:
    """Pixels uint8 [B,S,S,3] of records."""
    return np.stack([image.fit(image_io.decode(r.image), size) for r in records])
