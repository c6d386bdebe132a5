"""Where compiled programs are kept, so that the next process need not compile them.

One policy for the command line and for `gptface_jax.load`; what a user sets, in the
environment or in `jax.config`, is the user's. An empty JAX_COMPILATION_CACHE_DIR turns
it off.
"""

from __future__ import annotations

import contextlib
import gc
import glob
import os
import threading
from collections.abc import Iterator

_FOLDER = "jax_compilation_cache_dir"
_SIZE = 4 * 2**30  # bytes; what was used longest ago goes first
_lock, _tracing = threading.Lock(), []  # for each block: whether to go on collecting


def _options() -> dict[str, str | int | float]:
    """Options of JAX but the folder."""
    return {
        "jax_compilation_cache_max_size": _SIZE,
        # Face finding and the tokenizer are several programs of less than a second.
        "jax_persistent_cache_min_compile_time_secs": 0.0,
    }


def _folder() -> str:
    home = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(home, "gptface_jax")


def keep_in_environment() -> None:
    """Sets the variables that JAX reads when it starts; child processes have them too.

    To be called before JAX is imported.
    """
    if _FOLDER.upper() in os.environ:
        return  # the size of a folder of the user's is the user's
    os.environ[_FOLDER.upper()] = _folder()
    for name, value in _options().items():
        os.environ.setdefault(name.upper(), str(value))
    _mend(_folder())


def keep() -> None:
    """Sets the same in a process in which JAX may have compiled before."""
    import jax
    from jax.experimental.compilation_cache import compilation_cache

    if getattr(jax.config, _FOLDER) is not None or _FOLDER.upper() in os.environ:
        return
    folder = _folder()
    for name, value in _options().items():
        # A value other than JAX's own was set by somebody.
        if name.upper() not in os.environ and _is_default(name):
            jax.config.update(name, value)
    jax.config.update(_FOLDER, folder)
    # JAX decides at its first compilation whether it keeps any.
    compilation_cache.reset_cache()
    _mend(folder)


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """A block in which networks are traced for the first time, in any thread.

    Python's collector of cycles rests: tracing makes many objects that stay, and it
    would go over them again and again, a tenth of the time until the first edit.
    """
    with _lock:
        _tracing.append(gc.isenabled() or any(_tracing))
        gc.disable()
    try:
        yield
    finally:
        with _lock:
            collects = _tracing.pop()
            if collects and not _tracing:
                gc.enable()


def _is_default(name: str) -> bool:
    import jax

    defaults = {
        "jax_compilation_cache_max_size": -1,
        "jax_persistent_cache_min_compile_time_secs": 1.0,
    }
    return getattr(jax.config, name) == defaults[name]


def _mend(folder: str) -> None:
    """Makes an entry of a process that was killed between its two files the oldest.

    It would keep all later ones from storing anything.
    """
    for entry in glob.glob(os.path.join(glob.escape(folder), "*-cache")):
        stamp = f"{entry.removesuffix('-cache')}-atime"
        with contextlib.suppress(OSError):
            if not os.path.exists(stamp):
                with open(stamp, "xb") as file:
                    file.write(bytes(8))
