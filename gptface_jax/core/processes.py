"""Processes that others start."""

from __future__ import annotations

import functools
import itertools
import multiprocessing
import multiprocessing.connection
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent import futures
from typing import Any


@functools.cache
def end_with_parent() -> None:
    """Ends this process as soon as the one that started it has ended, however that was.

    A worker whose parent was killed would otherwise go on: write beside a process that
    begins anew, or wait for ever with its memory. Nothing happens in a process that
    `multiprocessing` has not started.
    """
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch():
        multiprocessing.connection.wait([parent.sentinel])
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def results(
    pool: futures.Executor, call: Callable[[Any], Any], keys: Iterable[Any], ahead: int
) -> Iterator[Any]:
    """What calls return, as they end; so many wait, whatever the number of keys.

    Raises:
      Whatever a call raises.
    """
    left, waiting = iter(keys), set()
    while True:
        more = itertools.islice(left, ahead - len(waiting))
        waiting |= {pool.submit(call, key) for key in more}
        if not waiting:
            return
        done, waiting = futures.wait(waiting, return_when=futures.FIRST_COMPLETED)
        for part in done:
            yield part.result()
