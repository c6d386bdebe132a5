"""Outputs as they were recorded, so that work within the house changes none of them.

`RECORD=1 pytest tests/test_configs.py tests/apps/test_recorded_outputs.py` records them
anew, where a change of the outputs is meant.
"""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "recorded"
RECORDING = bool(os.environ.get("RECORD"))


def expected(file: str, name: str, value: Any) -> Any:
    """What a JSON file of `FOLDER` holds by a name; recording, `value` goes there."""
    path = FOLDER / file
    known = json.loads(path.read_text()) if path.exists() else {}
    if RECORDING:
        known[name] = value
        path.write_text(json.dumps(known, indent=1, sort_keys=True) + "\n")
    return known[name]


def expected_array(name: str, value: np.ndarray) -> np.ndarray:
    """The array recorded under a name; recording, `value` becomes it."""
    path = FOLDER / f"{name}.npy"
    if RECORDING:
        np.save(path, value)
    return np.load(path)
