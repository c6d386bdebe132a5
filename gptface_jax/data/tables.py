"""Tables beside pictures: files to rows, cells to labels and texts."""

from __future__ import annotations

import csv
import io
import json
import math
import pathlib
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import schemes

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
TEXT_COLUMNS = ("text", "caption", "captions", "sentence")
_OTHER_COLUMNS = (
    "Age", "expression", "identity", "person", "landmarks", "parsing", "parsing_scheme",
)  # fmt: skip
UNDERSTOOD = (
    "file_name, text (or caption, captions, sentence, or any by text_column=NAME), "
    "CelebA's names such as Smiling, Age, expression, identity or person, landmarks, "
    "parsing"
)
# What pandas writes or reads as nothing.
_NOTHING = ("nan", "NaN", "null", "NULL", "None", "NA", "N/A", "n/a", "<NA>")


def read_rows(
    path: pathlib.Path, faults: list[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line number and row of all rows of a JSON-lines, CSV or Parquet file.

    Args:
      path: of the file.
      faults: gets a line for each row that cannot be read, in place of an error; after
        a quote that is left open nothing is read.

    Raises:
      UserError: a file or line that cannot be read without guessing: not UTF-8, no
        JSON object, a quote left open, more or fewer cells than columns.
    """
    if path.suffix == ".parquet":
        yield from enumerate(_parquet_rows(path), 1)
        return
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"'{path}' is not UTF-8 text; save it as UTF-8") from None
    read = _csv_rows if path.suffix == ".csv" else _json_rows
    for line, row in read(path, text):
        if isinstance(row, UserError):
            if faults is None:
                raise row
            faults.append(str(row))
        else:
            yield line, row


def _parquet_rows(path: pathlib.Path) -> list[dict[str, Any]]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.read_table(path).to_pylist()
    except (pa.ArrowInvalid, OSError) as error:
        raise UserError(f"'{path}' is no readable Parquet: {error}") from None


# Line number and row, or what is wrong with it.
_Lines = Iterator[tuple[int, dict[str, Any] | UserError]]


def _csv_rows(path: pathlib.Path, text: str) -> _Lines:
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    header: list[str] = []
    while True:
        line = reader.line_num + 1  # where the row begins; it may have several
        try:
            cells = next(reader, None)
        except csv.Error as error:
            fault = UserError(
                f"'{path}' line {line}: {error}; is a quote left open? Put a text with "
                'commas or quotes between two quotes, and write a quote in it as ""'
            )
            yield line, fault
            return
        if cells is None:
            return
        if not cells:
            continue
        if not header:
            header = [name.strip() for name in cells]
            continue
        if len(cells) != len(header):
            fault = UserError(
                f"'{path}' line {line} has {len(cells)} cells and the first line "
                f"{len(header)}; put a text with commas between two quotes"
            )
            yield line, fault
            continue
        nothing = (None if cell in _NOTHING else cell for cell in cells)
        yield line, dict(zip(header, nothing))


def _json_rows(path: pathlib.Path, text: str) -> _Lines:
    # Not at every line end of Unicode's: a JSON text may hold some.
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            row = UserError(
                f"'{path}' line {number} is not JSON ({error.msg} at column "
                f"{error.colno}); give one object a line"
            )
        except (ValueError, RecursionError) as error:  # endless numbers, brackets
            row = UserError(f"'{path}' line {number} cannot be read ({error})")
        if not isinstance(row, dict | UserError):
            row = UserError(
                f"'{path}' line {number} is no JSON object; give one object a line"
            )
        yield number, row


def ignored(columns: Iterable[str], *used: str | None) -> list[str]:
    """Columns of a table that nothing is taken from, in order.

    Args:
      columns: all.
      used: further names that are read.
    """
    known = {*TEXT_COLUMNS, *_OTHER_COLUMNS, *CELEBA_ATTRIBUTES, *used}
    return sorted(name for name in columns if name and name not in known)


def given(value: Any) -> Any:
    """A cell's value, None for an empty one and for NaN."""
    empty = value is None or (isinstance(value, float) and math.isnan(value))
    return None if empty or (isinstance(value, str) and not value.strip()) else value


def labels_from(row: Mapping[str, Any]) -> dict[str, float] | None:
    """Scores in 0..1 of a row's cells that are named as in CelebA, and "Age" in years.

    Taken are booleans, the words true and false, -1 (counts as 0) and scores from
    0 to 1; an empty cell and NaN mean unknown.

    Raises:
      UserError: any other value.
    """
    names = [name for name in (*CELEBA_ATTRIBUTES, "Age") if name in row]
    labels = {name: _score(name, row[name]) for name in names}
    return {name: s for name, s in labels.items() if s is not None} or None


def facts_from(row: Mapping[str, Any], columns: Iterable[str]) -> dict[str, str]:
    """Cells as text by column; empty ones are left out."""
    cells = {name: given(row.get(name)) for name in columns}
    return {name: str(cell) for name, cell in cells.items() if cell is not None}


def fields_from(row: Mapping[str, Any], facts: Iterable[str] = ()) -> dict[str, Any]:
    """Fields of a `Record` that a row tells beside picture and texts.

    Raises:
      UserError: a value that is none of its column.
    """
    person = given(row.get("person"))
    person = given(row.get("identity")) if person is None else person
    if isinstance(person, float) and person.is_integer():
        person = int(person)  # a column of numbers with gaps holds floats
    if not (isinstance(person, int | None) and abs(person or 0) < 2**63):
        person = str(person)  # what a shard can hold
    return {
        "labels": labels_from(row),
        "facts": facts_from(row, facts),
        "expression": str(given(row.get("expression")) or ""),
        "identity": person,
        **_points(row.get("landmarks")),
        **_scheme(row),
    }


def _scheme(row: Mapping[str, Any]) -> dict[str, str]:
    """The label scheme of a row's map."""
    scheme = given(row.get("parsing_scheme"))
    if scheme is None or given(row.get("parsing")) is None:
        return {}
    if scheme not in schemes.PARSING:
        raise UserError(
            f"column 'parsing_scheme' holds {scheme!r}; known are "
            + ", ".join(schemes.PARSING)
        )
    return {"parsing_scheme": scheme}


def _points(flat: Any) -> dict[str, Any]:
    """Landmarks of x0, y0, x1, y1, ..., their scheme by their number."""
    if given(flat) is None:
        return {}
    try:
        if isinstance(flat, str):  # of a CSV
            flat = json.loads(flat) if "[" in flat else flat.replace(",", " ").split()
        if not np.size(flat):
            return {}
        with np.errstate(over="ignore"):
            points = np.asarray(flat, np.float32).reshape(-1, 2)
        if np.isinf(points).any():
            raise ValueError("one is infinite")
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(
            f"column 'landmarks' holds no x0, y0, x1, y1, ... ({error}); give pairs of "
            "numbers, or nothing"
        ) from None
    return {"landmarks": points, "landmark_scheme": schemes.of_points(len(points))}


def _score(name: str, value: Any) -> float | None:
    words = {"": math.nan, "true": 1.0, "false": 0.0}
    number = math.nan if value is None else value
    if isinstance(value, str):
        number = words.get(value.strip().lower(), value)
    try:
        number = float(number)
    except (TypeError, ValueError, OverflowError):
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


def texts_from(row: Mapping[str, Any], column: str | None = None) -> tuple[str, ...]:
    """All texts of a row: of the first column that has one.

    None, NaN and what is empty are no text; a list holds several, and so does
    {"text": a list}, as data sets of several captions have it.

    Args:
      row: its cells.
      column: where the text is; by default text, caption, captions or sentence.

    Raises:
      UserError: a value that is no text.
    """
    for name in (column,) if column else TEXT_COLUMNS:
        try:
            if texts := tuple(_texts(row.get(name))):
                return texts
        except TypeError as error:
            raise UserError(
                f"column '{name}' holds {error}; give a text, a list of texts, or "
                "nothing"
            ) from None
    return ()


def _texts(value: Any) -> Iterator[str]:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "replace")
    if isinstance(value, (np.ndarray, np.generic)):
        yield from _texts(value.tolist())
    elif isinstance(value, (list, tuple)):
        for part in value:
            yield from _texts(part)
    elif isinstance(value, Mapping) and "text" in value:
        yield from _texts(value["text"])
    elif isinstance(value, (Mapping, bool)):
        raise TypeError(repr(value))
    elif given(value) is not None:
        yield str(value).strip()
