"""A memory allocator that keeps what it was given back, for programs on CPUs.

XLA takes the temporaries of every step from the allocator and gives them back. glibc's
returns such large blocks to the system, and the next step pays for them again in page
faults: up to two fifths of its time (docs/results.md). jemalloc, tcmalloc and mimalloc
can keep them. An allocator has to be there when a process starts (`LD_PRELOAD`):

    env $(python -m gptface_jax.core.allocator) python my_training.py
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import pathlib
import platform
import sys
from collections.abc import Iterator, Mapping

from gptface_jax.core.errors import UserError

SWITCH = "GPTFACE_ALLOCATOR"
_STARTED = "_GPTFACE_STARTED_AGAIN"  # of the process with that number
_PRELOAD = "LD_PRELOAD"
# What is looked for, best first, and what makes it keep memory, in large pages. For
# jemalloc longer than a step takes, but not for ever: a process would grow until the
# machine is full (docs/results/speed.md). With any limit blocks over 8 MiB, most of a
# step's, would go back at once but for the threshold of 0, which is "no such rule".
NAMES = {
    "jemalloc": ("libjemalloc.so.2",),
    "tcmalloc": ("libtcmalloc_minimal.so.4", "libtcmalloc.so.4"),
    "mimalloc": ("libmimalloc.so.3", "libmimalloc.so.2"),
}
_SETTINGS = {
    "jemalloc": {
        "MALLOC_CONF": "thp:always,oversize_threshold:0,"
        "dirty_decay_ms:40000,muzzy_decay_ms:40000"
    },
    "tcmalloc": {"TCMALLOC_RELEASE_RATE": "0"},
    "mimalloc": {"MIMALLOC_PURGE_DELAY": "-1", "MIMALLOC_ALLOW_LARGE_OS_PAGES": "1"},
}
_PLUGINS = ("jax_cuda12_plugin", "jax_cuda13_plugin", "jax_rocm7_plugin", "libtpu")


def has_accelerator(environ: Mapping[str, str] = os.environ) -> bool:
    """Whether JAX, which is not imported here, would look for more than CPUs.

    JAX_PLATFORMS says so, or a plugin of JAX that is installed.
    """
    if platforms := environ.get("JAX_PLATFORMS", ""):
        return any(name not in ("cpu", "") for name in platforms.split(","))
    found = importlib.util.find_spec("jax_plugins")  # a namespace; none is imported
    places = found.submodule_search_locations if found else ()
    plugins = [n for p in places or () if os.path.isdir(p) for n in os.listdir(p)]
    return bool(plugins) or any(map(importlib.util.find_spec, _PLUGINS))


def find(*names: str) -> str | None:
    """Path of the best allocator on this machine, of all or of some; or None."""
    for name in names or NAMES:
        for folder in _folders():
            for path in (folder / file for file in NAMES[name]):
                if path.is_file() and _loads(path):
                    return str(path)
    return None


def _folders() -> Iterator[pathlib.Path]:
    """Folders of libraries: asked for, of the environment, of the system."""
    for folder in os.environ.get("LD_LIBRARY_PATH", "").split(":"):
        if folder:
            yield pathlib.Path(folder)
    yield pathlib.Path(sys.prefix, "lib")  # of a conda environment
    for folder in sys.path:  # `cmeel-mimalloc` from PyPI
        yield pathlib.Path(folder, "cmeel.prefix", "lib")
    machine = f"lib/{platform.machine()}-linux-gnu"
    for folder in ("local/lib", machine, "lib64", "lib"):
        yield pathlib.Path("/usr", folder)


def _loads(path: pathlib.Path) -> bool:
    """Whether a library is for this kind of machine and process: by its ELF header."""
    ours, theirs = (_header(p) for p in ("/proc/self/exe", path))
    # The loader prints an error and goes on where a library is of another machine, at
    # every program that is started: so it is looked at first.
    kind = slice(0, 6), slice(18, 20)  # magic, word size and byte order; machine
    return all(ours[part] == theirs[part] for part in kind)


def _header(path: str | pathlib.Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read(20)
    except OSError:
        return b""


def settings(library: str, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Variables that start a process under a library, beside those already set."""
    loaded = environ.get(_PRELOAD)
    result = {_PRELOAD: f"{library}:{loaded}" if loaded else library}
    for name, variables in _SETTINGS.items():
        if name in os.path.basename(library):
            result |= {k: v for k, v in variables.items() if k not in environ}
    return result


def chosen(environ: Mapping[str, str] = os.environ) -> str | None:
    """Path of the allocator for a new process, or None: all is well as it is.

    Raises:
      UserError: GPTFACE_ALLOCATOR names no library.
    """
    wanted = environ.get(SWITCH, "")
    if sys.platform != "linux" or wanted == "off":
        return None
    if any(name in environ.get(_PRELOAD, "") for name in NAMES):
        return None
    if not wanted:
        return None if has_accelerator(environ) else find()
    found = find(wanted) if wanted in NAMES else wanted
    if found is None or not _loads(pathlib.Path(found)):
        raise UserError(
            f"{SWITCH} is '{wanted}', and no such library was found; give "
            f"{', '.join(NAMES)}, the path of one, or off"
        )
    return found


def start_again(program: str) -> None:
    """Replaces this process by itself under a better allocator, where there is one.

    Its number, arguments, folder and open pipes stay. To be called at the start of a
    program, before JAX is imported. What the program starts itself gets the environment
    that was there before.

    Args:
      program: named in a line on stderr.
    """
    if _started_again() or "jax" in sys.modules:
        return
    # What came through a pipe or `-c` cannot be read, or is not ours to run, again.
    if not sys.executable or not getattr(sys.modules["__main__"], "__file__", None):
        return
    library = chosen()
    if library is None:
        return
    new = settings(library)
    # So that what the program starts itself is as it would be without us.
    before = {name: os.environ.get(name) for name in new}
    new[_STARTED] = json.dumps([os.getpid(), before])
    print(
        f"{program}: takes memory from {library}, which is faster on CPUs "
        f"({SWITCH}=off: the system's)",
        file=sys.stderr,
    )
    sys.stderr.flush()
    arguments = [sys.executable, *sys.orig_argv[1:]]
    with contextlib.suppress(OSError):  # then it runs as it is
        os.execve(sys.executable, arguments, {**os.environ, **new})


def _started_again() -> bool:
    """Whether this process is one already; its environment is then put right."""
    number, before = json.loads(os.environ.pop(_STARTED, "[0, {}]"))
    if number != os.getpid():
        return False
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
    return True


if __name__ == "__main__":
    path = chosen()
    if path:
        print(*(f"{name}={value}" for name, value in settings(path).items()))
