"""Arguments checked against a function's annotations before it does anything."""

from __future__ import annotations

import collections.abc
import functools
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError

_UNFIT = object()
_WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "a text",
    np.ndarray: "a picture",
}


def checked(
    function: Callable, values: Mapping[str, Any], options: type | None = None
) -> dict[str, Any]:
    """The arguments of a function, each of the type that its annotation says.

    NaN counts as None, and None as not given where no None is expected. Whole numbers
    may be written as 4.0. Names that neither table has are left as they are.

    Args:
      function: whose annotations count.
      values: name -> argument.
      options: a class whose fields its **arguments are.

    Raises:
      UserError: a value of another type, or None for what has to be given.
    """
    hints, needed = _table(function, options)
    found = {}
    for name, value in values.items():
        if name not in hints:
            found[name] = value
            continue
        value = typed(name, value, hints[name] | None)
        if value is not None or _as(None, hints[name]) is None:
            found[name] = value
        elif name in needed:
            raise UserError(f"'{name}' is missing; give {_words(hints[name])}")
    return found


def bound(
    function: Callable, args: Sequence, kwargs: Mapping, options: type | None = None
) -> dict[str, Any]:
    """The arguments of a call by their names, `checked`."""
    given = dict(inspect.signature(function).bind(*args, **kwargs).arguments)
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind == parameter.VAR_KEYWORD:
            given |= given.pop(name, {})
    return checked(function, given, options)


def complete(
    method: Callable, values: Mapping[str, Any], options: type | None = None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """All arguments of a method but its first, `checked`, and its **arguments.

    Args:
      method: whose signature counts.
      values: name -> argument; the others are at their defaults.
      options: see `checked`.

    Raises:
      UserError: see `checked`.
    """
    _, *parameters = inspect.signature(method).parameters.values()
    own = {p.name: p.default for p in parameters if p.kind != p.VAR_KEYWORD}
    given = checked(method, values, options)
    others = {name: given[name] for name in given.keys() - own}
    return {n: given.get(n, default) for n, default in own.items()}, others


def call_checked(
    function: Callable, args: Sequence, kwargs: Mapping, options: type | None = None
) -> Any:
    """Result of the function for its arguments once they are `checked`."""
    return function(**bound(function, args, kwargs, options))


def typed(name: str, value: Any, hint: Any) -> Any:
    """The value if it is what an annotation says; NaN is None.

    Raises:
      UserError: it is something else.
    """
    if isinstance(value, (float, np.floating)) and math.isnan(value):
        value = None
    found = _as(value, hint)
    if found is _UNFIT:
        shown = repr(value)
        shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
        raise UserError(f"{name} is {shown}; give {_words(hint)}")
    return found


@functools.cache
def _table(function: Callable, options: type | None) -> tuple[dict[str, Any], set[str]]:
    """Annotations by name, and the names without a default."""
    parameters = inspect.signature(function).parameters.values()
    hints = dict(typing.get_type_hints(options)) if options else {}
    own = typing.get_type_hints(function)
    single = [p for p in parameters if p.kind != p.VAR_KEYWORD]
    hints |= {p.name: own[p.name] for p in single if p.name in own}
    return hints, {p.name for p in single if p.default is p.empty}


def _as(value: Any, hint: Any) -> Any:
    """The value as a hint says, or _UNFIT."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    value = value.item() if isinstance(value, np.generic) else value
    if hint is Any:
        return value
    if origin in (typing.Union, types.UnionType):
        found = (_as(value, part) for part in parts)
        return next((v for v in found if v is not _UNFIT), _UNFIT)
    if isinstance(value, bool) and hint is not bool:
        return _UNFIT  # Python's are whole numbers too
    if hint is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if hint is float and isinstance(value, int):
        return value
    if origin in (tuple, collections.abc.Sequence):
        many = isinstance(value, (list, tuple, np.ndarray))
        if not many or (origin is tuple and len(value) != len(parts)):
            return _UNFIT
        kinds = parts if origin is tuple else parts * len(value)
        values = value.tolist() if isinstance(value, np.ndarray) else value
        found = tuple(_as(v, k) for v, k in zip(values, kinds))
        return _UNFIT if any(v is _UNFIT for v in found) else found
    if origin is collections.abc.Mapping and isinstance(value, collections.abc.Mapping):
        pairs = [(_as(k, parts[0]), _as(v, parts[1])) for k, v in value.items()]
        unfit = any(part is _UNFIT for pair in pairs for part in pair)
        return _UNFIT if unfit else dict(pairs)
    return value if isinstance(value, origin or hint) else _UNFIT


def _words(hint: Any) -> str:
    """Words for what an annotation asks for."""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        if np.ndarray in parts:  # or its name, its bytes, ...
            return "a picture or its file"
        said = (_words(part) for part in parts if part is not types.NoneType)
        return " or ".join(said)
    if origin is tuple:
        return f"{len(parts)} {_words(parts[0]).removeprefix('a ')}s"
    if origin is collections.abc.Sequence:
        return f"a list of {_words(parts[0]).removeprefix('a ')}s"
    if origin is collections.abc.Mapping:
        if Any in parts:
            return "a mapping"
        of, to = (_words(part).removeprefix("a ") for part in parts)
        return f"a mapping of {of}s to {to}s"
    return _WORDS.get(hint, hint.__name__)
