"""Rows of samples as JSON Lines."""

import json

import numpy as np

from gptface_jax.protocols import samples


def test_rows_are_read_again(tmp_path):
    rows = [
        {"id": np.int64(3), "rouge_l": np.float32(0.5), "said": "a café", "age": None},
        {"id": 4, "cider": float("nan"), "box": np.arange(2), "of": {1: (True, 2.0)}},
    ]
    path = tmp_path / "new" / "samples.jsonl"
    samples.write(path, rows)
    text = path.read_text("utf-8")
    assert "café" in text and "NaN" not in text and text.endswith("\n")
    assert [json.loads(line) for line in text.splitlines()] == [
        {"id": 3, "rouge_l": 0.5, "said": "a café", "age": None},
        {"id": 4, "cider": None, "box": [0, 1], "of": {"1": [True, 2.0]}},
    ]
    samples.write(path, [])
    assert path.read_text() == ""
