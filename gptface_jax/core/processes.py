"""Processes that others start."""

from __future__ import annotations

import functools
import multiprocessing
import multiprocessing.connection
import os
import threading


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
