"""Data sets as their authors hand them out -> TFDS, built once without TensorFlow.

`builder` makes one of `NAMES`, `build` writes it; afterwards it is a source of kind
"tfds" like any other: {"kind": "tfds", "name": "face_celeba", "data_dir": DIR}. The
files are the user's to get, by the terms of whoever made them: each module says where.
"""

from __future__ import annotations

import importlib
import os
from typing import Any

from gptface_jax.core.errors import UserError, nearest

# Name -> its module here; the class is `Builder`.
NAMES = {
    "face_laion": "laion_face",
    "face_celeba": "celeba",
    "face_celebamask_hq": "celebamask_hq",
    "face_wflw": "wflw",
    "face_rafdb": "rafdb",
}


def about(name: str) -> str:
    """Where to get the files, their layout and terms: the module's docstring."""
    return _module(name).__doc__


def _module(name: str) -> Any:
    if name not in NAMES:
        raise UserError(
            f"data set '{name}' is unknown{nearest(name, NAMES)}; known: "
            + ", ".join(NAMES)
        )
    return importlib.import_module(f"gptface_jax.data.datasets.{NAMES[name]}")


def builder(name: str, source: str | os.PathLike, data_dir: str | os.PathLike) -> Any:
    """The TFDS builder of a set.

    Args:
      name: of `NAMES`.
      source: folder with its files, laid out as its module says.
      data_dir: of TFDS.

    Raises:
      UserError: an unknown name, or no such folder.
    """
    return _module(name).Builder(
        source=source, data_dir=os.fspath(data_dir), file_format="array_record"
    )


def build(
    name: str,
    source: str | os.PathLike,
    data_dir: str | os.PathLike,
    partial: bool = False,
) -> dict[str, int]:
    """Writes a set; returns how many examples each split has.

    Args:
      name, source, data_dir: see `builder`.
      partial: a part of the set will do; else its size must be the published one.

    Raises:
      UserError: see `builder`; a file that is missing or of another format; another
        number of examples than the authors publish; or the set was built before of
        another number.
    """
    made = builder(name, source, data_dir)
    found = {split: len(made.index(split)) for split in made.SPLITS}
    wrong = {s: n for s, n in found.items() if made.PUBLISHED.get(s, n) != n}
    if wrong and not partial:
        said = ", ".join(
            f"{split} has {n:,} of {made.PUBLISHED[split]:,}"
            for split, n in wrong.items()
        )
        raise UserError(
            f"'{source}' is not all of {name}: {said}; get the rest, or build what is "
            "there with --partial"
        )
    if not any(found.values()):
        raise UserError(f"'{source}' holds no example of {name}; see its --layout")
    made.download_and_prepare()  # which leaves alone what was built before
    built = {name: info.num_examples for name, info in made.info.splits.items()}
    for split in made.PUBLISHED:  # of others the index is of files, not of examples
        if built.get(split, 0) != found[split]:
            raise UserError(
                f"'{made.data_dir}' was built before, of other files: {split} has "
                f"{built.get(split, 0):,} examples there and {found[split]:,} in "
                f"'{source}'; move it away and build again"
            )
    return built
