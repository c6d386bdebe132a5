"""Config files and pages by name, in a checkout and where only the package is."""

from __future__ import annotations

import os
import pathlib
import re

from gptface_jax.core.errors import UserError, nearest

_PACKAGE = pathlib.Path(__file__).resolve().parents[1]
# The folder that holds configs/ and launch/: of a wheel, of a checkout.
ROOTS = (_PACKAGE / "shipped", _PACKAGE.parent)
# Where several folders have a file of a name, it is the one of this.
_FIRST = "gptface"


def root() -> pathlib.Path:
    """The folder that holds `configs` and `launch`.

    Raises:
      UserError: an installation without them.
    """
    for folder in ROOTS:
        if (folder / "configs" / "base.py").is_file():
            return folder
    raise UserError(
        "the configs did not come with this installation; give the path of a config "
        "file, or install gptface-jax from its wheel or a checkout"
    )


def with_pages(text: str) -> str:
    """The text, with pages of docs/ named by where a wheel has put them."""
    folder = ROOTS[0].as_posix()

    def place(match: re.Match) -> str:
        return f"{folder}/{match[0]}" if (ROOTS[0] / match[0]).is_file() else match[0]

    return re.sub(r"\bdocs/\w+\.md", place, text)


def names() -> dict[str, pathlib.Path]:
    """Name -> file of every config, such as "vqgan/faces64", sorted."""
    folder = root() / "configs"
    files = sorted(folder.rglob("*.py"))
    return {
        path.relative_to(folder).with_suffix("").as_posix(): path
        for path in files
        if "def get_config" in path.read_text() or "def get_sweep" in path.read_text()
    }


def find(spec: str) -> tuple[pathlib.Path, str]:
    """The file of a config and its argument.

    Args:
      spec: "path/to/file.py[:arg]", or "name[:arg]" of a config that comes with the
        project: "vqgan/faces64", or "faces64" alone, which is the one in gptface/
        where several folders have one.

    Raises:
      UserError: there is none, with the nearest name.
    """
    name, dot, arg = spec.partition(".py:")
    if not dot:
        name, dot, arg = spec, ".py" * spec.endswith(".py"), ""
        name = name.removesuffix(".py")
    if dot and (path := pathlib.Path(f"{name}.py")).is_file():
        return path, arg
    if dot and os.path.isabs(name):
        raise UserError(f"config file '{name}.py' does not exist")
    if not dot:
        name, _, arg = name.partition(":")
    known = names()
    wanted = name.removeprefix("./").removeprefix("configs/")
    last = [n for n in known if n.rpartition("/")[2] == wanted]
    for found in (wanted, f"{_FIRST}/{wanted}", *last[: len(last) == 1]):
        if found in known:
            return known[found], arg
    several = f"; there are {', '.join(last)}" if last else nearest(wanted, known)
    what = f"config file '{name}.py'" if dot else f"config '{name}'"
    raise UserError(
        f"{what} does not exist{several}; give the path of a file, or "
        "one of the names that `gptface configs` lists"
    )
