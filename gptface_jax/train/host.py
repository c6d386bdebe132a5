"""The host side of the loop: batches one ahead in a thread, a profile, a clean stop."""

from __future__ import annotations

import contextlib
import os
import pathlib
import queue
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

_POLL = 0.01  # seconds between looks at whether the device is idle


class Prefetch:
    """Prepares the next batch in a thread while the device computes.

    Args:
      source: iterator of host batches; closed in the thread, if it can be.
      prepare: host batch -> what `next` returns; its errors surface there.
    """

    _END = object()

    def __init__(self, source: Iterator[Any], prepare: Callable[[Any], Any]):
        self._source, self._prepare = source, prepare
        self._ready: queue.Queue = queue.Queue(maxsize=1)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._work, daemon=True)
        self._thread.start()

    def _work(self) -> None:
        try:
            for batch in self._source:
                if not self._put((self._prepare(batch), None)):
                    break
            else:
                self._put((self._END, None))
        except BaseException as error:  # handed to the caller's thread
            self._put((None, error))
        finally:
            getattr(self._source, "close", lambda: None)()

    def _put(self, item: Any) -> bool:
        while not self._closed.is_set():
            try:
                # With a time limit, so that the thread sees that it has been closed
                # meanwhile.
                self._ready.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def __iter__(self) -> Prefetch:
        return self

    def __next__(self) -> Any:
        return self.wait(lambda: False)[0]

    def wait(self, idle: Callable[[], bool]) -> tuple[Any, float]:
        """The next batch, and the seconds that the idle device waited for it."""
        since = None
        while True:
            try:
                value, error = self._ready.get(timeout=_POLL)
                break
            except queue.Empty:
                if since is None and idle():
                    since = time.perf_counter()
        if error is not None:
            raise error
        if value is self._END:
            raise StopIteration
        return value, 0.0 if since is None else time.perf_counter() - since

    def close(self) -> None:
        """Stops the thread and closes the source; waits a few seconds for it."""
        self._closed.set()
        # A source that hangs must not keep the run from ending; the thread is a daemon.
        self._thread.join(timeout=10)


class Profile:
    """Records some steps of process 0, past compilation and the first few.

    Args:
      workdir: the record goes into `profile/` there, for TensorBoard or XProf.
      start: steps done when the run starts.
      steps: how many are recorded; 0 records nothing.
    """

    _SETTLED = 5  # steps before a run is in its stride

    def __init__(self, workdir: str | os.PathLike, start: int, steps: int):
        self.folder = pathlib.Path(workdir, "profile")
        self.first = start + self._SETTLED
        # The host is at most one step ahead of the device.
        self.last = self.first + steps
        self.wanted = steps > 0 and jax.process_index() == 0
        self.running = False

    @contextlib.contextmanager
    def step(self, done: int) -> Iterator[None]:
        """Around the call of the step that follows `done` updates."""
        if self.wanted and done == self.first:
            jax.profiler.start_trace(os.fspath(self.folder))
            self.running = True
        with jax.profiler.StepTraceAnnotation("train", step_num=done):
            yield
        if self.running and done == self.last:
            self.close()

    def close(self) -> None:
        """Writes what was recorded."""
        if self.running:
            self.running = False
            jax.profiler.stop_trace()


class StopSignal:
    """Turns the first SIGTERM or SIGINT into a request to stop after the step.

    The former handlers come back with that first signal, so a second one acts as
    it always did, and in any case at the end of the block. With several
    processes all of them stop after the same step, whichever got the signal.
    """

    _SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self):
        self.requested = False
        self._former: dict[int, Any] = {}
        self._votes: Any = None

    def __enter__(self) -> StopSignal:
        # Python lets the main thread alone set handlers.
        if threading.current_thread() is threading.main_thread():
            self._former = {s: signal.signal(s, self._handle) for s in self._SIGNALS}
        return self

    def __exit__(self, *_) -> None:
        self._restore()

    def _handle(self, number, frame) -> None:
        self.requested = True
        self._restore()

    def _restore(self) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def agreed(self, mesh: Mesh) -> bool:
        """Whether to stop now; called once per step, the same on all processes.

        Several processes answer with the votes of the step before, so that
        nobody waits for the step that runs.
        """
        if jax.process_count() == 1:
            return self.requested
        where = NamedSharding(mesh, PartitionSpec(mesh.axis_names))
        # A vote for each device: the array is sharded over all of them.
        mine = np.full(jax.local_device_count(), self.requested, np.int32)
        # Reading the votes of this step would wait for the device; those of the one
        # before have long arrived.
        before = self._votes
        self._votes = _any(jax.make_array_from_process_local_data(where, mine))
        return before is not None and bool(before)


@jax.jit
def _any(votes):
    return jnp.max(votes) > 0
