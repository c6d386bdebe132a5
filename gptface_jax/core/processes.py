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
from concurrent.futures import process as pools
from typing import Any

from gptface_jax.core.errors import UserError


class Died(UserError):
    """A worker process was killed, or killed itself."""


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
    call: Callable[[Any], Any],
    keys: Iterable[Any],
    workers: int,
    begin: Callable[..., None],
    *arguments: Any,
) -> Iterator[Any]:
    """What calls in other processes return, as they end.

    Args:
      call: of one key; a function of a module.
      keys: as many as one likes, taken as they are needed.
      workers: number of processes.
      begin: called with the arguments by each process, once.
      *arguments: of `begin`.

    Raises:
      Died: one of the processes; the others are ended.
      Whatever a call raises.
    """
    # Started afresh: a copy of a process that runs threads may hang.
    context = multiprocessing.get_context("spawn")
    pool = futures.ProcessPoolExecutor(workers, context, _begin, (begin, arguments))
    left, waiting = iter(keys), set()
    try:
        while True:
            more = itertools.islice(left, 4 * workers - len(waiting))
            waiting |= {pool.submit(call, key) for key in more}
            if not waiting:
                return
            done, waiting = futures.wait(waiting, return_when=futures.FIRST_COMPLETED)
            for part in done:
                yield part.result()
    except pools.BrokenProcessPool:
        fewer = f", with fewer --workers than {workers}" if workers > 1 else ""
        raise Died(
            "a worker process died (out of memory?); run the same command again" + fewer
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin(begin: Callable[..., None], arguments: tuple[Any, ...]) -> None:
    end_with_parent()
    # Several that use one GPU do not take all of its memory each.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    begin(*arguments)
