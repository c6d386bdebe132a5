"""What a verb writes is looked at before any work is done for it."""

from __future__ import annotations

import argparse
import os

from gptface_jax.core import files
from gptface_jax.core.errors import UserError

_PLACES = ("out", "json", "sheet", "plot", "workdir")  # options of all verbs
_FILES = ("json", "sheet", "plot")


def check(options: argparse.Namespace) -> None:
    """Refuses places that cannot be written and endings that are no format.

    Raises:
      UserError, OSError: an option, of these that verbs share, that does not do.
    """
    for name in _PLACES:
        if isinstance(path := getattr(options, name, None), str):
            files.check_place(path)
            if name in _FILES:
                check_file(f"--{name}", path)
    if getattr(options, "sheet", None):
        from gptface_jax.pipelines import pictures

        pictures.check(options.sheet)
    if getattr(options, "plot", None):
        from gptface_jax.apps import plotting

        plotting.check(options.plot)


def check_file(flag: str, path: str | None) -> None:
    """Refuses a folder where one file is written."""
    if path and (os.path.isdir(path) or not os.path.basename(path)):
        raise UserError(f"{flag} is the folder '{path}'; give the name of a file")
