"""Files that are there complete or not at all, whoever else writes them."""

from __future__ import annotations

import contextlib
import os
import pathlib
import secrets
from collections.abc import Iterator

PARTIAL = ".partial"


def partial_name(path: str | os.PathLike) -> pathlib.Path:
    """A name beside `path` that no other writer chooses, and no reader takes.

    It is hidden, ends in ".partial" and is short whatever the length of the name.
    """
    path = pathlib.Path(path)
    return path.with_name(f".{path.name[:100]}.{secrets.token_hex(6)}{PARTIAL}")


@contextlib.contextmanager
def replacing(path: str | os.PathLike) -> Iterator[pathlib.Path]:
    """Yields the name to write to, which becomes `path` at the end of the block.

    After an error `path` is what it was, and nothing else is left.

    Raises:
      OSError: what is written cannot take its place.
    """
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


def remove_partial(folder: str | os.PathLike) -> None:
    """Removes what killed writers left in a folder in which nobody writes now."""
    for path in pathlib.Path(folder).glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)
