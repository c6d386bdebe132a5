"""Experiment files -> ConfigDict -> frozen dataclasses, with strict keys."""

from __future__ import annotations

import ast
import dataclasses
import importlib.util
import os
import sys
import types
import typing
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gptface_jax.core import config_names
from gptface_jax.core.errors import UserError, nearest

T = typing.TypeVar("T")


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """The frozen dataclass `cls` of a mapping; unknown keys are errors.

    Nested dataclasses are built from nested mappings and lists become tuples.

    Raises:
      UserError: a key that `cls` does not have, with the nearest name, or a
        value of another type than the field's default.
    """
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]
    built = {}
    for name, value in dict(values).items():
        path = f"{where}{name}"
        if name not in names:
            known = ", ".join(names)
            raise UserError(
                f"unknown config key '{path}'{nearest(name, names)}; known: {known}"
            )
        built[name] = _convert(hints[name], value, path)
    return cls(**built)


def _convert(hint: Any, value: Any, path: str) -> Any:
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_mapping(hint, value, f"{path}.")
    if isinstance(value, list):
        value = tuple(value)
    if typing.get_origin(hint) is tuple and isinstance(value, tuple):
        return tuple(tuple(v) if isinstance(v, list) else v for v in value)
    expected = _plain_types(hint)
    if float in expected and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    wrong_bool = isinstance(value, bool) and bool not in expected
    if expected and (wrong_bool or not isinstance(value, expected)):
        names = " or ".join(t.__name__ for t in expected)
        raise UserError(f"config key '{path}' is {value!r}; expected {names}")
    return value


def _plain_types(hint: Any) -> tuple[type, ...]:
    parts = typing.get_args(hint) if isinstance(hint, types.UnionType) else (hint,)
    plain = (int, float, str, bool, type(None))
    return tuple(parts) if all(p in plain for p in parts) else ()


def from_options(cls: type[T], values: Mapping[str, Any], prefix: str) -> T:
    """A frozen dataclass of a person's options, the others at their defaults.

    Raises:
      UserError: an unknown option, or a value that makes no sense.
    """
    try:
        return from_mapping(cls, values, prefix)
    except UserError:
        raise
    except ValueError as error:
        raise UserError(str(error)) from None


def to_mapping(config: Any) -> dict[str, Any]:
    """A frozen dataclass as a plain nested dict of JSON types."""
    return dataclasses.asdict(config)


def part_of(config: Any, cls: type[T], **others: Any) -> T:
    """The config of a part of a larger model: a dataclass with the entries of both.

    Args:
      config: of the whole.
      cls: of the part.
      others: entries that the whole lacks, or has otherwise.
    """
    names = {f.name for f in dataclasses.fields(cls)}
    same = [f.name for f in dataclasses.fields(config) if f.name in names]
    return cls(**{**{name: getattr(config, name) for name in same}, **others})


def changes(config: Any) -> dict[str, Any]:
    """Nested dict of a frozen dataclass's entries that are not the default.

    It stays the same when a later version adds an entry.
    """
    found = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            if inner := changes(value):
                found[field.name] = inner
        elif value != field.default:
            found[field.name] = _of_plain_types(value)
    return found


def _of_plain_types(value: Any) -> Any:
    """The value, dataclasses in a tuple as mappings."""
    if not isinstance(value, tuple):
        return value
    return tuple(to_mapping(v) if dataclasses.is_dataclass(v) else v for v in value)


def load_config(spec: str) -> Any:
    """The config that `get_config(arg)` of "path/to/file.py[:arg]" returns.

    Args:
      spec: a Python file that defines `get_config(arg)`, or the name of one that comes
        with the project, see `config_names.find`; what follows the last colon is the
        argument ("tiny" shrinks every config).

    Returns:
      An `ml_collections.ConfigDict`, keys locked.

    Raises:
      UserError: no such file, no `get_config`, or an argument it refuses.
    """
    module, arg = _load_module(spec)
    if not hasattr(module, "get_config"):
        raise UserError(f"config file '{module.__file__}' defines no get_config(arg)")
    try:
        return module.get_config(arg).lock()
    except ValueError as error:
        raise UserError(f"config '{spec}': {error}") from None


def config_dict(values: Mapping[str, Any]) -> Any:
    """An `ml_collections.ConfigDict` of a config that was read, such as a run's."""
    from ml_collections import ConfigDict  # not there where models are only used

    return ConfigDict(values)


def load_sweep(spec: str) -> dict[str, dict[str, Any]]:
    """The `get_sweep()` of a config file: name -> {"a.b": value}, changes to it.

    Args:
      spec: as of `load_config`; the argument is not used.

    Raises:
      UserError: no such file, no `get_sweep`, or something else than such a mapping.
    """
    module, _ = _load_module(spec)
    if not hasattr(module, "get_sweep"):
        raise UserError(f"config file '{module.__file__}' defines no get_sweep()")
    sweep = module.get_sweep()
    for name, changes in sweep.items():
        if not isinstance(changes, Mapping) or not name or set(name) & set("/\\ "):
            raise UserError(
                f"get_sweep() of '{module.__file__}': point {name!r} is no folder's "
                "name with a mapping of changes"
            )
    return sweep


def _load_module(spec: str) -> tuple[Any, str]:
    """The module of "path/to/file.py[:arg]" or of a name, run, and arg."""
    path, arg = config_names.find(spec)
    module_spec = importlib.util.spec_from_file_location(
        f"gptface_config_{path.stem}", path
    )
    module = importlib.util.module_from_spec(module_spec)
    # Configs share code as `from configs import ...`, wherever one stands.
    roots = [os.fspath(p.parent) for p in path.resolve().parents if p.name == "configs"]
    sys.path[:0] = roots
    try:
        module_spec.loader.exec_module(module)
    finally:
        del sys.path[: len(roots)]
    return module, arg


def split_overrides(arguments: Iterable[str]) -> tuple[list[str], list[str]]:
    """Command-line words without --config.a.b=value, and "a.b=value" of those."""
    prefix, others, assignments = "--config.", [], []
    for word in arguments:
        if word.startswith(prefix):
            assignments.append(word.removeprefix(prefix))
        else:
            others.append(word)
    return others, assignments


def literal(text: str) -> Any:
    """The Python literal that a text spells, or the text itself."""
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def assignments(flag: str, pairs: Sequence[str]) -> dict[str, Any]:
    """ "key=value" strings of a repeated flag -> {key: literal}.

    Raises:
      UserError: one without "=".
    """
    for pair in pairs:
        if "=" not in pair:
            raise UserError(f"{flag} '{pair}' has no '='; write key=value")
    split = (pair.partition("=") for pair in pairs)
    return {name: literal(text) for name, _, text in split}


def override(config: Any, assignments: Iterable[str]) -> Any:
    """The ConfigDict itself, with "a.b=value" strings applied to it in place.

    Values are Python literals, or strings where they are not. A section may get a
    key that its file leaves at the default; who reads the section checks the name.

    Raises:
      UserError: an unknown section or top-level key (with the nearest name), or a
        value of another type than the config's.
    """
    for assignment in assignments:
        dotted, equals, text = assignment.partition("=")
        if not equals:
            raise UserError(f"override '{assignment}' has no '='; write key=value")
        *parents, last = dotted.split(".")
        node = config
        for depth, name in enumerate([*parents, last]):
            keys = (
                list(node) if isinstance(node, Mapping) or hasattr(node, "keys") else []
            )
            new = depth == len(parents) and depth > 0 and hasattr(node, "unlocked")
            if name not in keys and not new:
                prefix = ".".join(dotted.split(".")[: depth + 1])
                raise UserError(
                    f"unknown config key '{prefix}'{nearest(name, keys)}; "
                    f"known here: {', '.join(keys) or 'nothing'}"
                )
            if depth < len(parents):
                node = node[name]
        value = literal(text)
        try:
            with node.unlocked():
                node[last] = value
        except TypeError as error:
            raise UserError(
                f"config key '{dotted}' is {node[last]!r}, a "
                f"{type(node[last]).__name__}; {text!r} does not fit ({error})"
            ) from None
    return config
