"""The kind of device that a program is traced for: "cpu", "gpu" or "tpu"."""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator

import jax

_target: contextvars.ContextVar[str] = contextvars.ContextVar("target", default="")


def current() -> str:
    """The platform of `compiling_for`, else that of this process's devices."""
    return _target.get() or jax.default_backend()


@contextlib.contextmanager
def compiling_for(platform: str) -> Iterator[None]:
    """Within it programs suit that platform and not this one; "" changes nothing."""
    token = _target.set(platform)
    try:
        yield
    finally:
        _target.reset(token)
