"""How an optional part, or a package that is missing, is installed here."""

from __future__ import annotations

import pathlib
import sys

_CHECKOUT = pathlib.Path(__file__).resolve().parents[2]


def install(extra: str) -> str:
    """The command that adds an extra of pyproject.toml to this installation."""
    if not (_CHECKOUT / "pyproject.toml").is_file():
        return f"pip install 'gptface-jax[{extra}]'"
    if _made_by_uv():
        return f"{_sync()} --extra {extra}"
    return f"pip install -e '{_CHECKOUT}[{extra}]'"


def install_package(requirement: str) -> str:
    """The command that brings a required package, such as "jax>=0.10", back."""
    if (_CHECKOUT / "pyproject.toml").is_file() and _made_by_uv():
        return _sync()
    return f'pip install "{requirement}"'


def _made_by_uv() -> bool:
    """Such an environment has no pip; what a shell finds is another Python's."""
    about = pathlib.Path(sys.prefix, "pyvenv.cfg")
    return about.is_file() and "\nuv = " in about.read_text()


def _sync() -> str:
    own = _CHECKOUT / ".uv" / "bin" / "uv"
    uv = own if own.is_file() else "uv"
    return f"{uv} sync --inexact --project {_CHECKOUT}"
