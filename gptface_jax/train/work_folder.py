"""The work folder of a run belongs to one run at a time."""

from __future__ import annotations

import contextlib
import os
import pathlib
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from gptface_jax.core import locks
from gptface_jax.core.errors import UserError


class NotHeld:
    """Stand-in of the lock in other processes: process 0 holds it for all."""

    def check(self) -> None:
        pass


@contextlib.contextmanager
def held(
    folder: str | os.PathLike,
    doing: str = "trains",
    remedy: str = "choose another --workdir",
) -> Iterator[locks.Lock | NotHeld]:
    """Holds a folder in the block, for all processes of this run.

    Args:
      folder: one that all processes see.
      doing, remedy: for who comes second, see `locks.held`.

    Raises:
      UserError: another run holds it; in all processes.
    """
    with contextlib.ExitStack() as stack:
        lock, refused = NotHeld(), None
        if jax.process_index() == 0:
            path = pathlib.Path(folder) / locks.NAME
            try:
                lock = stack.enter_context(locks.held(path, doing, remedy))
            except UserError as error:
                refused = error
        if jax.process_count() > 1:
            free = multihost_utils.broadcast_one_to_all(np.int32(refused is None))
            if not free and refused is None:
                refused = UserError(
                    f"process 0 does not get '{folder}' and says why; {remedy}"
                )
        if refused:
            raise refused
        yield lock
