"""What people say of pictures: JSON lines, a file a rater.

A line is an answer, and of several to the same question the last one counts:

{"rater": "ann", "kind": "edit", "system": "ours", "item": "bob", "quality": 4,
 "agreement": 5, "time": ...}
    natural or not, and as the text says or not, 1 to 5; without a text no agreement;
    and "photo", the photograph that was edited
{"rater": "ann", "kind": "tag", "item": "bob.jpg", "word": "hat", "grade": 2,
 "ranks": {"ours": 1, "other": 7}, "words": 12, "time": ...}
    a word of a photograph: 0 wrong, 1 partly right, 2 right; the ranks from 1 on of the
    systems that found it, and how many words all of them found together
"""

from __future__ import annotations

import datetime
import json
import os
import pathlib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from gptface_jax.core.errors import UserError

FOLDER = "ratings"
# Answer -> lowest, highest, of each kind.
SCALES: dict[str, dict[str, tuple[int, int]]] = {
    "edit": {"quality": (1, 5), "agreement": (1, 5)},
    "tag": {"grade": (0, 2)},
}
_PLACE = {"edit": ("system", "item"), "tag": ("item", "word")}
_NAME = re.compile(r"[\w][\w. -]{0,39}")


def checked_name(rater: Any) -> str:
    """The name under which a rater's answers are kept; capitals make no difference.

    Raises:
      UserError: no name, or one that names no file.
    """
    name = " ".join(str(rater or "").split()).casefold()
    if not _NAME.fullmatch(name):
        raise UserError(
            f"name {str(rater)[:50]!r} cannot be used; give letters and digits, 40 at "
            "most, such as initials"
        )
    return name


def checked_answers(
    kind: str, given: Any, asked: Iterable[str] | None = None
) -> dict[str, int]:
    """The answers to one question.

    Args:
      kind: of `SCALES`.
      given: answer -> value.
      asked: which of the kind's answers there have to be; default all.

    Raises:
      UserError: one is missing, unknown or beyond its scale.
    """
    wanted = tuple(SCALES[kind] if asked is None else asked)
    if not isinstance(given, Mapping) or set(given) != set(wanted):
        raise UserError(f"answers are {given!r}; give {' and '.join(wanted)}")
    for name, value in given.items():
        low, high = SCALES[kind][name]
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not (whole and low <= value <= high):
            raise UserError(f"{name} is {value!r}; give {low} to {high}")
    return {name: given[name] for name in wanted}


def question_key(row: Mapping[str, Any]) -> tuple[str, ...]:
    """The kind of a line and its question, which identify what was rated."""
    return row["kind"], *(row[key] for key in _PLACE[row["kind"]])


def path_of(folder: str | os.PathLike, rater: str) -> pathlib.Path:
    """The file of a rater in a folder of what is rated."""
    return pathlib.Path(folder, FOLDER, f"{checked_name(rater)}.jsonl")


def append(folder: str | os.PathLike, row: Mapping[str, Any]) -> None:
    """Writes a line of a rater, which is on the disk when this returns.

    A line that a crash tore stays apart from it.
    """
    path = path_of(folder, row["rater"])
    path.parent.mkdir(parents=True, exist_ok=True)
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    line = json.dumps({**row, "time": now}) + "\n"
    with open(path, "a+b") as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            line = line if file.read(1) == b"\n" else "\n" + line
        file.write(line.encode())
        file.flush()
        os.fsync(file.fileno())


def read(paths: Iterable[str | os.PathLike]) -> list[dict[str, Any]]:
    """The lines that count, of files or of folders that were rated.

    Raises:
      UserError: no file, or a line that is no answer; torn ones are passed over.
    """
    found: dict[tuple, dict[str, Any]] = {}
    for given in map(pathlib.Path, paths):
        files = sorted((given / FOLDER).glob("*.jsonl")) if given.is_dir() else [given]
        if not files:
            raise UserError(f"'{given / FOLDER}' holds no ratings yet")
        for path in files:
            for row in _lines(path):
                found[(row["rater"], *question_key(row))] = row
    return list(found.values())


def _lines(path: pathlib.Path) -> Iterable[dict[str, Any]]:
    try:
        lines = path.read_text("utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(f"cannot read ratings from '{path}': {reason}") from None
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except ValueError:
            continue  # empty, or torn
        try:
            asked = [name for name in SCALES[row["kind"]] if name in row]
            checked_answers(row["kind"], {k: row[k] for k in asked}, asked)
            question_key(row)
            if not asked or not row["rater"]:
                raise KeyError("answer")
            if row["kind"] == "tag":
                row["ranks"], row["words"]
        except (KeyError, TypeError, UserError) as error:
            said = error if isinstance(error, UserError) else f"it lacks {error}"
            raise UserError(f"line {number} of '{path}' is no rating: {said}") from None
        yield row
