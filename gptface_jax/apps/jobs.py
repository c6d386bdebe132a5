"""Jobs of many edits: lines of a file, or the pictures of a folder."""

from __future__ import annotations

import collections
import dataclasses
import functools
import hashlib
import inspect
import json
import os
import pathlib
import unicodedata
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from gptface_jax.apps.api import SEAMS, Model
from gptface_jax.core import arguments
from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import folders

# Arguments that name files, which a job gives relative to the file of jobs.
FILES = ("image", "mask", "damage", "first", "second", "seam")
_PLACES = ("mask", "box", "region")
_REPLACED = (*_PLACES, "area")  # by the place that a line names
_LONGEST = 200  # bytes of an id; its files have endings as well


@dataclasses.dataclass(frozen=True)
class Job:
    """One line of a file of jobs.

    Attributes:
      name: its id, by which its files are called and its random numbers drawn.
      values: the arguments of the verb's method, and options of the decoder.
      error: why it cannot be run, or "".
      source: the files that it names, as they were given: argument -> name.
    """

    name: str
    values: Mapping[str, Any]
    error: str = ""
    source: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def digest(self) -> str:
        """Hash of the id, the arguments, and the state of the files that they name when
        it is first asked for; not of the model."""
        named = [self.name, dict(self.values)]
        files = {key: _state(self.values[key]) for key in FILES if key in self.values}
        text = json.dumps([*named, files], sort_keys=True, default=str)
        return hashlib.sha256(text.encode()).hexdigest()[:16]

    @property
    def seed(self) -> int:
        """The random seed: that of the arguments mixed with the id."""
        return zlib.crc32(f"{self.values.get('seed', 0)} {self.name}".encode())


def _state(name: Any) -> list[int] | None:
    """Size and time of the last change of a file, None where there is none."""
    try:
        found = os.stat(name)
    except (OSError, TypeError, ValueError):
        return None
    return [found.st_size, found.st_mtime_ns]


def read_jobs(
    source: str | os.PathLike,
    verb: str,
    defaults: Mapping[str, Any] | None = None,
    base: str | os.PathLike | None = None,
    kind: type = Model,
) -> list[Job]:
    """Jobs of a JSON-lines file, or one for each picture of a folder.

    A line is an object of arguments of the model's method, options of its decoder and
    an "id" (default: the number of the line). Files are relative to the file of jobs. A
    line that makes no sense is a Job with an error.

    Args:
      source: FILE.jsonl or a folder; its pictures' ids are their names. What is passed
        over there `data.folders.listing` says.
      verb: of `registry.verbs()`.
      defaults: arguments of jobs that do not give them.
      base: what their files are relative to; default the folder of the jobs' file.
      kind: class of the model that they are for.

    Raises:
      UserError: nothing to read, two jobs of one id, or a verb that the model lacks.
    """
    method = getattr(kind, verb, None)
    if method is None:
        raise UserError(f"{kind.__name__} has no verb '{verb}' for jobs")
    path, defaults = pathlib.Path(source), dict(defaults or {})
    if path.is_dir():
        first = "first" if verb == "stitch" else "image"
        pictures = folders.listing(path, deep=False).pictures
        names = _names(pictures)
        lines = [json.dumps({"id": n, first: p}) for n, p in zip(names, pictures)]
        folder = path
    else:
        lines = _lines(path)
        folder = pathlib.Path(path.parent if base is None else base)
    jobs = [
        _parse(line, number, method, kind.OPTIONS, defaults, folder)
        for number, line in enumerate(lines, 1)
        if line.strip()
    ]
    if not jobs:
        raise UserError(
            f"'{source}' holds no jobs; give a file of JSON lines, such as "
            '{"image": "a.jpg"}, or a folder of pictures'
        )
    seen = set()
    for job in jobs:
        if job.name in seen:
            raise UserError(f"two jobs of '{source}' have the id '{job.name}'")
        seen.add(job.name)
    return jobs


def _lines(path: pathlib.Path) -> list[str]:
    try:
        # Not at every line end of Unicode's: a JSON text may hold some.
        return path.read_text("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot read jobs from '{path}': {reason}; give a file of JSON lines or a "
            "folder of pictures"
        ) from None


def _names(pictures: Sequence[str]) -> list[str]:
    """Ids of a folder's pictures: their names, where one is taken with the ending."""
    paths = [pathlib.PurePath(folders.normal(name)) for name in pictures]
    stems = collections.Counter(path.stem for path in paths)
    found: dict[str, None] = {}
    for number, path in enumerate(paths, 1):
        name = path.stem if stems[path.stem] == 1 else path.name
        name = "".join(c if _fits(c) else "-" for c in name).lstrip("._-")
        name = _cut(name, _LONGEST - 10) or "picture"
        while name in found:
            name += f"-{number}"
        found[name] = None
    return list(found)


def _fits(character: str) -> bool:
    """Whether an id may hold it: a letter or digit of any script, or ". _ -"."""
    # Marks are parts of letters: vowels in Hindi, accents that have no composed form.
    mark = unicodedata.category(character).startswith("M")
    return character.isalnum() or mark or character in "._-"


def _cut(name: str, most: int) -> str:
    """At most so many bytes of it, and whole letters."""
    return name.encode()[:most].decode("utf-8", "ignore")


def _id(given: Any) -> str:
    """An id as it is compared and written."""
    name = folders.normal(str(given))
    fits = name[:1].isalnum() and all(map(_fits, name))
    if not fits or len(name.encode()) > _LONGEST:
        raise UserError(
            f"id {given!r} names no file; use letters, digits, '.', '_' and '-', the "
            f"first a letter or digit, {_LONGEST} bytes at most"
        )
    return name


def _parse(
    line: str, number: int, method, options: type, defaults, base: pathlib.Path
) -> Job:
    name, source = f"{number:06d}", {}
    try:
        values = json.loads(line)
        if not isinstance(values, dict):
            raise UserError(f"line {number} is no JSON object")
        # What a table leaves empty is not given.
        values = {k: v for k, v in values.items() if v is not None and v == v}
        name = _id(values.pop("id", name))
        for key in set(FILES) & set(values):
            straight = key == "seam" and values[key] in SEAMS
            if isinstance(values[key], str) and not straight:
                source[key] = values[key]
                values[key] = str(folders.resolve(base, values[key]))
        if any(name in values for name in _PLACES):
            defaults = {k: v for k, v in defaults.items() if k not in _REPLACED}
        known, values = _arguments(method, options), {**defaults, **values}
        for key in values:
            if key not in known:
                said = f"'{key}' is no option of {method.__name__}"
                raise UserError(said + nearest(key, known))
        values = arguments.checked(method, values, options)
        missing = [k for k, needed in known.items() if needed and k not in values]
        if missing:
            raise UserError(f"'{missing[0]}' is missing")
    except ValueError as error:
        said = error if isinstance(error, UserError) else f"no JSON: {error}"
        return Job(name, {"line": line}, str(said), source)
    return Job(name, values, source=source)


def _arguments(method, options: type) -> dict[str, bool]:
    """Whether each argument of the method has to be given."""
    parameters = list(inspect.signature(method).parameters.values())[1:]
    own = {p.name: p.default is p.empty for p in parameters if p.kind != p.VAR_KEYWORD}
    others = (f.name for f in dataclasses.fields(options))
    return dict.fromkeys(others, False) | own
