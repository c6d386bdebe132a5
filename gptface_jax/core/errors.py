"""The errors that a person is expected to read: what was wrong, and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The message is one line: the offending value and the remedy.

    The command line prints it without a traceback and exits with its `status`.
    """

    status = 2


class Missing(UserError):
    """Data are not where they should be; who knows which key says so adds it."""


class Stopped(UserError):
    """A run was asked to end early, and has saved.

    The status is EX_TEMPFAIL of sysexits.h: what started the run may start it again.
    """

    status = 75


def nearest(name: str, names: Iterable[str]) -> str:
    """Hint " (did you mean 'x'?)" with the closest of `names`, else ""."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
