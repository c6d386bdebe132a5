"""What is to be rated in a folder: edits, single pictures, and words of photographs.

    DIR/photos/     the photographs, or they lie in DIR itself
    DIR/SYSTEM/     what a system made of them, a folder each

A system's folder holds pictures, the sidecars beside them, and the results.jsonl that
`gptface edit --jobs DIR/photos --out DIR/SYSTEM` or `gptface tag --jobs ...` writes.
Other programs write lines {"id": "0", "source": {"image": "0.jpg"}} with "file" and
"text" of a picture, or "found": [{"word": "hat"}, ...], best first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import os
import pathlib
import random
from collections.abc import Mapping, Sequence
from typing import Any

from gptface_jax.apps.batch import Results
from gptface_jax.core.errors import UserError
from gptface_jax.data import folders, ratings
from gptface_jax.pipelines import provenance, strength

PHOTOS = "photos"
_MOST = 30  # words of a system that count (SPEC A.12.3)


@dataclasses.dataclass(frozen=True)
class Question:
    """One thing that every rater is asked.

    Attributes:
      row: what a line of ratings says of it: kind, and what it is about.
      pictures: what is shown, of an edit the photograph first, where it is there.
      text: the sentence, or the word.
    """

    row: Mapping[str, Any]
    pictures: tuple[pathlib.Path, ...]
    text: str

    @property
    def asked(self) -> tuple[str, ...]:
        """The answers that it wants."""
        kind = self.row["kind"]
        names = tuple(ratings.SCALES[kind])
        return names if kind == "tag" or self.text else names[:1]

    @property
    def token(self) -> str:
        """Names it without telling whose picture it is."""
        return digest("\0".join(ratings.question_key(self.row)))


def digest(text: str) -> str:
    """A name that tells nothing."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def questions(folder: str | os.PathLike) -> list[Question]:
    """All questions of a folder, laid out as in the module's docstring.

    Raises:
      UserError: nothing to rate, or a photograph that is missing.
    """
    root = pathlib.Path(folder)
    if not root.is_dir():
        raise UserError(f"'{root}' is no folder; give one with a folder a system")
    left_out = (PHOTOS, ratings.FOLDER)
    systems = [
        path
        for path in sorted(root.iterdir())
        if path.is_dir() and path.name not in left_out and path.name[0] != "."
    ]
    found: list[Question] = []
    words: dict[str, dict[str, dict[str, int]]] = {}
    for system in systems:
        rows = [r for r in Results(system).rows.values() if "error" not in r]
        found += _edits(root, system, rows)
        for row in rows:
            if "found" in row and "file" not in row:
                photo = words.setdefault(_source(row), {})
                for rank, word in enumerate(_words(row), 1):
                    photo.setdefault(word, {})[system.name] = rank
    found += _tags(root, words)
    if not found:
        raise UserError(
            f"'{root}' holds nothing to rate; make a folder a system in it, such as by "
            f"gptface edit --jobs {root / PHOTOS} --out {root / 'ours'}"
        )
    return found


def as_now(
    rows: Sequence[Mapping[str, Any]], folder: str | os.PathLike
) -> list[Mapping[str, Any]]:
    """Ratings with what the folder holds now of their questions.

    A system that came later, or was run again, has other ranks than those that stood
    there when a word was rated.
    """
    now = {ratings.question_key(q.row): q.row for q in questions(folder)}
    return [{**row, **now.get(ratings.question_key(row), {})} for row in rows]


def _edits(root, system: pathlib.Path, rows) -> list[Question]:
    """A question for each picture of a system."""
    of_file = {row["file"]: row for row in rows if isinstance(row.get("file"), str)}
    found = []
    for name in folders.listing(system, deep=False).pictures:
        path = system / name
        if path.stem.endswith(".strip"):
            continue
        row, sidecar = of_file.get(name, {}), provenance.read_sidecar(path) or {}
        text = str(row.get("text") or sidecar.get("text") or "")
        photo = _source(row)
        before = _within(root, photo)
        found.append(
            Question(
                {
                    "kind": "edit",
                    "system": system.name,
                    "item": str(row.get("id", path.stem)),
                    "photo": photo,
                },
                (*([before] if before else []), path),
                strength.asked_for(text, sidecar.get("strength")),
            )
        )
    return found


def _tags(root, words) -> list[Question]:
    """A question for each word that any system found of a photograph."""
    found = []
    for name, ranks in words.items():
        photo = _within(root, name)
        if photo is None:
            raise UserError(
                f"the photograph '{name}' is not in '{root / PHOTOS}' nor in '{root}'; "
                "put it there, for its words are to be rated"
            )
        for word, of_systems in ranks.items():
            row = {"kind": "tag", "item": name, "word": word, "ranks": of_systems}
            found.append(Question({**row, "words": len(ranks)}, (photo,), word))
    return found


def _source(row: Mapping[str, Any]) -> str:
    source = row.get("source")
    return str(source.get("image", "")) if isinstance(source, Mapping) else ""


def _words(row: Mapping[str, Any]) -> list[str]:
    """The distinct words of a system, best first."""
    found = (str(f["word"]) for f in row["found"] if isinstance(f, Mapping))
    return list(dict.fromkeys(found))[:_MOST]


def _within(root: pathlib.Path, name: str) -> pathlib.Path | None:
    """A photograph of the folder; nothing outside it is shown."""
    for base in (root / PHOTOS, root):
        path = (base / name).resolve()
        if name and path.is_file() and path.is_relative_to(root.resolve()):
            return path
    return None


def in_order(asked: Sequence[Question], rater: str) -> list[Question]:
    """The questions as one rater gets them: by chance, words of a photograph together.

    So that no system comes first with everybody, and raters tire of different ones.
    """
    groups: dict[tuple[str, ...], list[Question]] = {}
    for question in sorted(asked, key=lambda q: ratings.question_key(q.row)):
        kind, *place = ratings.question_key(question.row)
        groups.setdefault((kind, *place[: 1 if kind == "tag" else 2]), []).append(
            question
        )
    drawn = random.Random(rater)
    order = list(groups.values())
    drawn.shuffle(order)
    for group in order:
        drawn.shuffle(group)
    return [question for group in order for question in group]
