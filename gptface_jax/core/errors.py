"""The one error a person is expected to read: what was wrong, and the remedy."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Bad input. The message is one line: the offending value and the remedy.

    The command line prints it without a traceback and exits with status 2.
    """


def nearest(name: str, names: Iterable[str]) -> str:
    """Returns " (did you mean 'x'?)" for the closest of `names`, else ""."""
    close = difflib.get_close_matches(name, list(names), n=1, cutoff=0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""
