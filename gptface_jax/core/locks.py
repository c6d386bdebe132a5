"""One writer of a folder at a time, on one host or on a shared file system.

The lock is a file, `filelock.SoftFileLease`: it names its owner's host, process and
start of the process, and its time is renewed while the owner lives. Who meets it on
the same machine sees whether that process is there; on another one (or in another
container) whether the time changes. Kernel locks (flock) are not enough, for not all
shared file systems pass them on. A second file says since when it is held.
"""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import pathlib
import socket
import sys
from collections.abc import Iterator
from typing import Any

from gptface_jax.core import files
from gptface_jax.core.errors import UserError

NAME = "running.lock"  # in a folder that belongs to one run at a time
HEARTBEAT = 15.0  # seconds between two renewals
# Seconds without one after which another host takes a lock over.
EXPIRES = 180.0


class Lock:
    """A lock that is held; see `held`."""

    def __init__(self, lease: Any, path: pathlib.Path):
        self._lease, self.path = lease, path

    def check(self) -> None:
        """Raises UserError if another process has taken the lock over meanwhile.

        That happens to an owner that stood still for minutes, or whose folder was
        deleted under it. To be called before anything is overwritten.
        """
        if self._lease.compromise is not None:
            raise UserError(
                f"'{self.path.parent}' is no longer this process's: it stood still for "
                "too long and another one took over, or the folder is gone; nothing "
                "more is written"
            )


@contextlib.contextmanager
def held(path: str | os.PathLike, doing: str, remedy: str) -> Iterator[Lock]:
    """Holds the lock `path` in the block; exactly one process can.

    Args:
      path: of the lock file; its folder is made where it is missing. Both are as
        before when the block ends.
      doing: what the owner does, for the message of whoever comes second: "trains".
      remedy: what they can do instead, such as "choose another --workdir".

    Raises:
      UserError: another process holds it, or the file cannot be written, for its path
        is an address (`files.check_local`) or otherwise. Nothing was touched.
    """
    import filelock

    files.check_local(path)
    path = pathlib.Path(path).expanduser().absolute()
    new = not path.parent.exists()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _unwritable(path.parent, error, remedy) from error
    lease = filelock.SoftFileLease(
        path, lease_duration=EXPIRES, heartbeat_interval=HEARTBEAT, thread_local=False
    )
    try:
        _acquire(lease, path)
    except (filelock.Timeout, filelock.LeaseSettingsMismatch):
        raise UserError(
            f"'{path.parent}' is in use: {_owner(lease, path)} {doing} there; wait for "
            f"it to end, stop it, or {remedy}"
        ) from None
    except OSError as error:
        raise _unwritable(path.parent, error, remedy) from error
    about = _about(path)
    lock = Lock(lease, path)
    try:
        with contextlib.suppress(OSError):  # a full disk holds a lock without it
            files.write_text(about, json.dumps(_ourselves()) + "\n")
        yield lock
    finally:
        # Else both files are another owner's by now.
        if lease.compromise is None:
            about.unlink(missing_ok=True)
        lease.release()
        if new:
            with contextlib.suppress(OSError):  # something was written there
                path.parent.rmdir()


def _acquire(lease: Any, path: pathlib.Path) -> None:
    """Takes the lock, or raises filelock.Timeout once its owner is known to live."""
    import filelock

    try:
        lease.acquire(timeout=0)
        return
    except filelock.Timeout:
        # A process of this machine lives for certain; of others only time can tell.
        if _is_here(lease, path):
            raise  # the library looked: that process is there
    print(
        f"'{path.parent}' is in use by {_owner(lease, path)}; looking for up to "
        f"{EXPIRES / 60:.0f} minutes whether that process still lives",
        file=sys.stderr,
    )
    first = _renewed(path)

    def lives() -> bool:
        # None: given back just now, and ours at the next attempt.
        return _renewed(path) not in (None, first) or _is_here(lease, path)

    lease.acquire(timeout=EXPIRES + HEARTBEAT, poll_interval=0.5, cancel_check=lives)


def _renewed(path: pathlib.Path) -> tuple[int, int] | None:
    try:
        found = path.stat()
    except OSError:
        return None  # taken over, or given back
    return found.st_mtime_ns, found.st_ino


def _about(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + ".json")


def _ourselves() -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC)
    return {
        "host": socket.gethostname(),
        "process": os.getpid(),
        "processes": _process_space(),
        "since": now.strftime("%Y-%m-%d %H:%M:%S UTC"),
    }


def _process_space() -> str:
    """Name of the scope of process numbers: this boot of a machine or container."""
    try:
        boot = pathlib.Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return ""  # not Linux: the host's name has to do


def _described(lease: Any, path: pathlib.Path) -> dict[str, Any]:
    """The content of the second file, if it is of the lock's owner."""
    owner = lease.owner
    try:
        found = json.loads(_about(path).read_text("utf-8"))
        same = owner is not None and found["process"] == owner.pid
        return found if same and owner.hostname.startswith(found["host"]) else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}


def _is_here(lease: Any, path: pathlib.Path) -> bool:
    """Whether the owner is of this machine and no zombie: its number says it lives."""
    found, ours = _described(lease, path), _ourselves()
    if any(found.get(key) != ours[key] for key in ("host", "processes")):
        return False
    try:
        stat = pathlib.Path(f"/proc/{found['process']}/stat").read_text("latin-1")
    except OSError:
        return not os.path.isdir("/proc/self")
    # Behind the last bracket: a program's name may hold brackets and blanks.
    return stat.rpartition(")")[2].split()[0] != "Z"


def _owner(lease: Any, path: pathlib.Path) -> str:
    owner, since = lease.owner, _described(lease, path).get("since")
    if owner is None:
        return "another process"
    host = owner.hostname.partition("?")[0]  # behind it: which container
    return f"process {owner.pid} on {host}" + (f" (since {since})" if since else "")


def _unwritable(folder: pathlib.Path, error: OSError, remedy: str) -> UserError:
    return UserError(f"cannot write in '{folder}': {error.strerror or error}; {remedy}")
