"""Users' own data sets as plain mappings: from a config, or a YAML or JSON file.

A config says `data.label_sets = {...}` or the path of such a file. A mapping holds, by
the name that stands before the first key, the keys of a data set:

    my photos:                  # written "my photos gender: female; mood: calm"
      sources: [photos]         # first parts of Record.source: a folder's name
      keys:
        gender: {label: Male, values: [female, male]}
        smiling: Smiling        # a boolean, false or true
        age: {kind: integer, label: Age}
        age group: {kind: range, label: Age, width: 5}
        mood: {kind: word, values: [calm, merry]}   # label: mood, see Folder's facts
        lip color: {kind: colour, space: lab}

Ranges begin at multiples of their width; other ranges are words. Of an integer
`apart: true` writes the digits one by one, "2 5". (YAML reads an unquoted no or yes as
false or true; quote them to have them written.)
A label is a name in a record's labels or facts, "expression", or one of
`label_text.DERIVED`; it is the key's own name by default. A data set of a name that
`label_sets.TABLE` has takes its place.
"""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import label_sets
from gptface_jax.data.label_text import DataSet, Key
from gptface_jax.data.label_values import KINDS, Boolean, Integer, Kind, Range, Word

# What a key may say besides its kind and label, by kind.
_OPTIONS = {
    "boolean": ("values",),
    "integer": ("apart",),
    "word": ("values",),
    "range": ("width",),
    "colour": ("space",),
}


def open_table(
    given: Mapping[str, Any] | str | os.PathLike | None,
) -> dict[str, DataSet]:
    """`label_sets.TABLE` with data sets of one's own before it.

    Args:
      given: a mapping as in the module's docstring, or a file of one; None or "" for
        none.

    Raises:
      UserError: no such file, or something in it that is not understood.
    """
    if not given:
        return dict(label_sets.TABLE)
    if not isinstance(given, Mapping):
        given = _file(pathlib.Path(given).expanduser())
    return from_mapping(given) | {
        name: d for name, d in label_sets.TABLE.items() if name not in given
    }


def _file(path: pathlib.Path) -> Mapping[str, Any]:
    import yaml

    try:
        text = path.read_text("utf-8-sig")
        # JSON is read as such: YAML refuses its tabs.
        found = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise UserError(f"label sets '{path}': {error.strerror}") from None
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise UserError(f"label sets '{path}' are not readable: {reason}") from None
    if not isinstance(found, Mapping):
        raise UserError(f"label sets '{path}' hold no mapping of names to data sets")
    return found


def from_mapping(given: Mapping[str, Any]) -> dict[str, DataSet]:
    """Data sets of a mapping, by name.

    Raises:
      UserError: a key that is not understood, with the nearest that is.
    """
    return {name: _data_set(name, entry) for name, entry in given.items()}


def to_mapping(data_sets: Mapping[str, DataSet]) -> dict[str, Any]:
    """The inverse of `from_mapping`, of JSON types."""
    return {
        name: {
            "sources": list(data_set.sources),
            "keys": {key.name: _plain_key(key) for key in data_set.keys},
        }
        for name, data_set in data_sets.items()
    }


def _plain_key(key: Key) -> dict[str, Any]:
    kind = key.kind
    plain: dict[str, Any] = {"kind": kind.kind, "label": key.label}
    for option in _OPTIONS[kind.kind]:
        values = option == "values"
        plain[option] = list(kind.candidates) if values else getattr(kind, option)
    return plain


def _data_set(name: str, entry: Any) -> DataSet:
    where = f"data set '{name}'"
    _check(entry, ("keys", "sources"), where)
    keys = entry.get("keys") or {}
    if not isinstance(keys, Mapping):
        raise UserError(f"the keys of {where} are {keys!r}; give a mapping")
    sources = entry.get("sources") or ()
    if isinstance(sources, str):
        sources = (sources,)
    return DataSet(
        str(name),
        tuple(_key(str(key), said, where) for key, said in keys.items()),
        tuple(sources),
    )


def _key(name: str, said: Any, where: str) -> Key:
    if isinstance(said, str):
        return Key(name, said)
    where = f"key '{name}' of {where}"
    if not isinstance(said, Mapping):
        raise UserError(f"{where} is {said!r}; give a label's name or a mapping")
    kind = said.get("kind", "boolean")
    if kind not in KINDS:
        raise UserError(
            f"{where} has the kind '{kind}'{nearest(str(kind), KINDS)}; use "
            + ", ".join(KINDS)
        )
    _check(said, ("kind", "label", *_OPTIONS[kind]), where)
    return Key(name, str(said.get("label", name)), _kind(kind, said, where))


def _kind(kind: str, said: Mapping[str, Any], where: str) -> Kind:
    values = said.get("values")
    if values is not None and (isinstance(values, str) or len(values) < 2):
        raise UserError(f"{where} has the values {values!r}; list two or more")
    # False and True come of YAML's unquoted no and yes.
    words = tuple(
        str(v).lower() if isinstance(v, bool) else str(v) for v in values or ()
    )
    if kind == "word":
        if not words:
            raise UserError(f"{where} is a word and has no values; list all it may be")
        return Word(words)
    if kind == "boolean":
        if len(words) not in (0, 2):
            raise UserError(
                f"{where} is a boolean with {len(words)} values; give that of false "
                "and that of true, or kind: word"
            )
        return Boolean(*words)
    if kind == "integer":
        return Integer(apart=bool(said.get("apart", False)))
    if kind == "range":
        width = said.get("width", 10)
        if not isinstance(width, int) or width < 1:
            raise UserError(f"{where} has the width {width!r}; give a number from 1 on")
        return Range(width)
    return KINDS[kind](str(said.get("space", "rgb")))


def _check(entry: Any, known: tuple[str, ...], where: str) -> None:
    if not isinstance(entry, Mapping):
        raise UserError(
            f"{where} is {entry!r}; give a mapping with " + ", ".join(known)
        )
    for name in entry:
        if name not in known:
            raise UserError(
                f"{where} says '{name}'{nearest(str(name), known)}; it may say "
                + ", ".join(known)
            )
