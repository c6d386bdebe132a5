"""Files that are there complete or not at all, whoever else writes them."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import pathlib
import re
import secrets
from collections.abc import Iterator, Mapping
from typing import Any

from gptface_jax.core.errors import UserError

PARTIAL = ".partial"
# pathlib makes "gs:/bucket" of "gs://bucket". One letter is a drive of Windows.
_ADDRESS = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]+:/")


def partial_name(path: str | os.PathLike) -> pathlib.Path:
    """A name beside `path` that no other writer chooses, and no reader takes.

    It is hidden, ends in ".partial" and is short whatever the length of the name.
    """
    path = pathlib.Path(path)
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}{PARTIAL}")


def check_local(path: str | os.PathLike) -> None:
    """Refuses an address such as gs://bucket/run, which would become a local folder.

    Raises:
      UserError: it is one.
    """
    if _ADDRESS.match(os.fspath(path)):
        raise UserError(
            f"'{os.fspath(path)}' is an address, and files are written to folders; "
            "mount the bucket on every host (gcsfuse, Filestore, NFS) and give the "
            "path under its mount"
        )


def check_place(path: str | os.PathLike) -> None:
    """Refuses a path that cannot be written, before work is done for it.

    Raises:
      UserError: see `check_local`.
      OSError: a folder on its way is a file, or may not be written to.
    """
    check_local(path)
    path = pathlib.Path(os.path.abspath(path))
    folder = next(p for p in path.parents if os.path.lexists(p))
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    if not os.access(folder, os.W_OK | os.X_OK) and not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields the name to write to, which becomes `path` at the end of the block.

    Its folder is made. After an error `path` is what it was, and nothing else is left.
    What is no file, such as /dev/stdout, is written to as it is.

    Raises:
      OSError: what is written cannot take its place.
    """
    path = pathlib.Path(path)
    if path.exists() and not path.is_file() and not path.is_dir():
        yield path
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = partial_name(path)
    try:
        yield partial
        os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            partial.unlink()
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes a UTF-8 file, complete or not at all."""
    with replacing(path) as partial:
        partial.write_text(text, "utf-8")


def json_text(value: Any, indent: int | None = None) -> str:
    """A value as JSON and the end of a line.

    Numpy's numbers and arrays become plain ones. What is not finite, as a figure of
    nothing, becomes null: JSON has no NaN.
    """
    return json.dumps(_plain(value), indent=indent, ensure_ascii=False) + "\n"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(inner) for inner in value]
    if hasattr(value, "tolist"):  # of numpy
        return _plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value


def sha256(path: str | os.PathLike) -> str:
    """The SHA-256 of a file's bytes, 64 hex digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove_partial(folder: str | os.PathLike) -> None:
    """Removes what killed writers left in a folder in which nobody writes now."""
    for path in pathlib.Path(folder).glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)
