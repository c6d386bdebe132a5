"""Pipes on the command line: what comes from one, and one that nobody reads."""

from __future__ import annotations

import argparse
import contextlib
import os
import pathlib
import select
import stat
import sys
import tempfile
from collections.abc import Iterator

from gptface_jax.core.errors import UserError

# Options that name a file to read.
_READ = ("image", "mask", "damage", "first", "second", "seam", "jobs")
_STDIN = ("-", "/dev/stdin", "/dev/fd/0")


@contextlib.contextmanager
def as_files(options: argparse.Namespace) -> Iterator[None]:
    """Puts files in the place of pipes, among the options of a verb.

    A picture is looked at more than once, and a pipe can be read once only: `-`,
    /dev/stdin and <(...) are read whole. `options.piped` names the options.

    Raises:
      UserError: two that are the standard input.
    """
    options.piped = set()
    with tempfile.TemporaryDirectory(prefix="gptface-") as folder:
        from_stdin = ""
        for name in _READ:
            given = getattr(options, name, None)
            if not isinstance(given, str) or not _is_pipe(given):
                continue
            if given in _STDIN and from_stdin:
                raise UserError(
                    f"--{from_stdin} and --{name} are both the standard input, which "
                    "can be read once; give a file for one of them"
                )
            from_stdin = name if given in _STDIN else from_stdin
            data = sys.stdin.buffer.read() if given in _STDIN else _read(given)
            path = pathlib.Path(folder, f"{name} of {given}".replace("/", "_"))
            path.write_bytes(data)
            setattr(options, name, str(path))
            options.piped.add(name)
        yield


def _is_pipe(name: str) -> bool:
    if name == "-":
        return True
    try:
        mode = os.stat(name).st_mode
    except (OSError, ValueError):
        return False
    return stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) or stat.S_ISCHR(mode)


def _read(name: str) -> bytes:
    with open(name, "rb") as file:
        return file.read()


def prepare_output() -> None:
    """No letter that the terminal's encoding lacks ends a verb whose work is done."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")


def is_closed() -> bool:
    """Whether nobody reads the output any more; what is left of it is thrown away."""
    closed = False
    for stream in (sys.stdout, sys.stderr):
        try:
            number = stream.fileno()
        except (AttributeError, OSError, ValueError):
            continue  # none, or one of memory
        with contextlib.suppress(BrokenPipeError, ValueError):
            stream.flush()
        poll = select.poll()
        poll.register(number, select.POLLOUT)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            closed = True
            # Else the interpreter complains when it flushes at its end.
            os.dup2(os.open(os.devnull, os.O_WRONLY), number)
    return closed
