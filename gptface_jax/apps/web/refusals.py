"""What requests of the API are answered that cannot be understood, before any work.

gradio ends at them with an internal error and a traceback in the server's log.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Callable, Sequence
from typing import Any

import gradio as gr
from gradio.route_utils import FnIndexInferError
from starlette.requests import Request
from starlette.responses import JSONResponse

from gptface_jax.core import arguments
from gptface_jax.core.errors import UserError, nearest

_CALL = "/gradio_api/call/"
_TYPES = {gr.Textbox: str, (gr.Number, gr.Slider): float, gr.Checkbox: bool}
_UPLOADED = "{'path': what the upload answered, 'meta': {'_type': 'gradio.FileData'}}"


async def _refused(request: Request, error: Exception) -> JSONResponse:
    """One line for a verb or an argument that there is not."""
    path = request.url.path
    if not path.startswith(_CALL):
        raise error
    verb = path.removeprefix(_CALL).removeprefix("v2/").strip("/")
    named = request.app.get_blocks().get_api_info()["named_endpoints"]
    if isinstance(error, TypeError) and f"/{verb}" in named:
        given = named[f"/{verb}"]["parameters"]
        known = [parameter["parameter_name"] for parameter in given]
        body = await request.json()
        wrong = next((name for name in body if name not in known), str(error))
        status, what = 400, f"argument '{wrong}'"
    else:
        known = [name[1:] for name in named]
        status, what, wrong = 404, f"'{verb}'", verb
    said = f"there is no {what}{nearest(wrong, known)}; there are {', '.join(known)}"
    return JSONResponse({"detail": said}, status)


# Of the web server: exception -> what it answers.
HANDLERS = {kind: _refused for kind in (FnIndexInferError, KeyError, TypeError)}


def refuse_links(value: Any) -> None:
    """Raises where files of a request lie on another server, which gradio would ask."""
    if isinstance(value, dict):
        path = value.get("path")
        if isinstance(path, str) and "://" in path:
            raise gr.Error("a link is no upload; send the file", print_exception=False)
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        for part in value:
            refuse_links(part)


def of_their_types(
    function: Callable, blocks: Sequence[gr.Block], values: Sequence[Any]
) -> list[Any]:
    """The values of a request for a function that takes those of some blocks.

    Raises:
      UserError: see `of_its_type`.
    """
    names = inspect.signature(function).parameters
    found = [
        of_its_type(block, value, name or block.label)
        for block, value, name in itertools.zip_longest(blocks, values, [*names])
        if block is not None
    ]
    return [*found, *values[len(blocks) :]]


def of_its_type(block: gr.Block, value: Any, name: str) -> Any:
    """A value of a request; null and NaN are what a text or number begins with.

    Args:
      block: the value's.
      value: of the request.
      name: what the request calls it.

    Raises:
      UserError: one of another type, out of its range, or none of the choices, which
        gradio would turn into a text, or end at without a word.
    """
    if isinstance(block, gr.File):
        for file in value if isinstance(value, list) else [value]:
            if not (file is None or _is_upload(file)):
                raise _wrong(name, file, f"give {_UPLOADED}")
    if isinstance(block, gr.Radio):
        choices = [choice for _, choice in block.choices]
        value = block.value if value is None else value
        if value not in choices:
            raise _wrong(name, value, f"use {', '.join(map(str, choices))}")
    if isinstance(block, gr.Dropdown) and block.multiselect:
        value = [value] if isinstance(value, str) else value
        value = block.value if value is None else value
        return list(arguments.typed(name, value, Sequence[str]))
    for kinds, hint in _TYPES.items():
        if isinstance(block, kinds):
            hint = int if getattr(block, "precision", None) == 0 else hint
            value = arguments.typed(name, value, hint | None)
            value = block.value if value is None else value
            if isinstance(value, str):
                _check_unicode(value, name)
            _check_range(block, value, name)
    return value


def _is_upload(file: Any) -> bool:
    meta = file.get("meta") if isinstance(file, dict) else None
    return isinstance(meta, dict) and meta.get("_type") == "gradio.FileData"


def _check_unicode(value: str, name: str) -> None:
    try:
        value.encode()
    except UnicodeEncodeError:  # no answer could repeat it
        raise _wrong(name, value, "give Unicode, without lone surrogates") from None


def _check_range(block: gr.Block, value: Any, name: str) -> None:
    least, most = (getattr(block, name, None) for name in ("minimum", "maximum"))
    if value is None or isinstance(value, str):
        return
    if (least is not None and value < least) or (most is not None and value > most):
        ends = f"{least} to {most}" if most is not None else f"{least} or more"
        raise _wrong(name, value, f"use {ends}")


def _wrong(name: str, value: Any, remedy: str) -> UserError:
    shown = repr(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
    return UserError(f"{name} is {shown}; {remedy}")
