"""Tables beside pictures: files to rows, cells to labels and texts."""

from __future__ import annotations

import csv
import io
import json
import math
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError

# The 40 attributes of CelebA; columns of these names become labels.
CELEBA_ATTRIBUTES = tuple(
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips "
    "Big_Nose Black_Hair Blond_Hair Blurry Brown_Hair Bushy_Eyebrows Chubby "
    "Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin "
    "Pointy_Nose Receding_Hairline Rosy_Cheeks Sideburns Smiling Straight_Hair "
    "Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
    "Wearing_Necktie Young".split()
)
_TEXT_COLUMNS = ("text", "caption", "captions", "sentence")


def read_rows(path: pathlib.Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of a JSON-lines or CSV file.

    Raises:
      UserError: not UTF-8, or a line that is no JSON object.
    """
    try:
        text = path.read_text("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"'{path}' is not UTF-8 text; save it as UTF-8") from None
    if path.suffix == ".csv":
        reader = csv.DictReader(io.StringIO(text, newline=""))
        yield from ((reader.line_num, row) for row in reader)
        return
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise UserError(
                f"'{path}' row {number} is not JSON ({error.msg} at column "
                f"{error.colno}); give one object a line"
            ) from None
        if not isinstance(row, dict):
            raise UserError(
                f"'{path}' row {number} is no JSON object; give one object a line"
            )
        yield number, row


def labels_from(row: Mapping[str, Any]) -> dict[str, float] | None:
    """CelebA-named cells of a row -> scores in 0..1, and "Age" in years.

    Taken are booleans, the words true and false, -1 (counts as 0) and scores from
    0 to 1; an empty cell and NaN mean unknown.

    Raises:
      UserError: any other value.
    """
    labels = {name: _score(name, row.get(name)) for name in (*CELEBA_ATTRIBUTES, "Age")}
    return {name: s for name, s in labels.items() if s is not None} or None


def _score(name: str, value: Any) -> float | None:
    words = {"": math.nan, "true": 1.0, "false": 0.0}
    number = math.nan if value is None else value
    if isinstance(value, str):
        number = words.get(value.strip().lower(), value)
    try:
        number = float(number)
    except (TypeError, ValueError):
        number = math.inf
    if math.isnan(number):
        return None
    if name == "Age" and 0 <= number < math.inf:
        return number
    if name != "Age" and (number == -1 or 0 <= number <= 1):
        return max(0.0, number)
    wanted = "years" if name == "Age" else "true, false, -1 or a score from 0 to 1"
    raise UserError(
        f"column '{name}' holds {value!r}; give {wanted}, or nothing where unknown"
    )


def text_from(row: Mapping[str, Any], column: str | None = None) -> str:
    """The text of a row, of several the first; "" where there is none.

    Args:
      row: its cells.
      column: where the text is; by default text, caption, captions or sentence.
    """
    for name in (column,) if column else _TEXT_COLUMNS:
        if text := _first_text(row.get(name)):
            return text
    return ""


def _first_text(value: Any) -> str:
    """Of a text, a sequence of texts, or {"text": either}."""
    if isinstance(value, Mapping):
        return _first_text(value.get("text"))
    if isinstance(value, np.ndarray):
        return _first_text(value.tolist())
    if isinstance(value, (list, tuple)):
        return _first_text(value[0]) if value else ""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return "" if value is None else str(value)
