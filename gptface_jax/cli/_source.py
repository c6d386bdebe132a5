"""Arguments that say where photos are, shared by several verbs."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable
from typing import Any

from gptface_jax.core.errors import UserError

_DRAWN = ("synthetic", "synthetic_edits", "rendered", "textures")


def add_arguments(
    parser: argparse.ArgumentParser,
    required: bool = True,
    limit: str = "all, or 1000 that are drawn",
) -> None:
    """Adds what says which photos; limit: how many where --limit is not given."""
    group = parser.add_argument_group("photos")
    group.add_argument(
        "--images",
        required=required,
        metavar="PATH",
        help="folder, Parquet file or folder, ArrayRecord folder, CelebA folder, "
        "TFDS name, 'synthetic' (drawn faces), 'synthetic_edits' (pairs that differ "
        "in one attribute), 'rendered' (heads of a 3D model) or 'textures' (no faces)",
    )
    group.add_argument(
        "--kind",
        choices=("folder", "parquet", "arrayrecord", "celeba", "tfds", *_DRAWN),
        help="what --images is; guessed from what is there",
    )
    group.add_argument(
        "--split",
        help="train, validation, test, ...; of a folder: which subfolder",
    )
    add_limit(group, f"use the first so many photos; default {limit}")
    group.add_argument("--seed", type=int, default=0, help="of drawn, rendered faces")
    group.add_argument(
        "--data",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="any other argument of the source, a Python literal or plain text, such "
        "as size=128, text_column=caption or data_dir=/x; may be given several times",
    )


def add_limit(parser: argparse._ActionsContainer, text: str) -> None:
    parser.add_argument("--limit", type=int, help=text)


def limit(options: argparse.Namespace, default: int) -> int:
    """--limit, or what it is where it is not given.

    Raises:
      UserError: it leaves nothing.
    """
    if options.limit is None:
        return default
    if options.limit < 1:
        raise UserError(f"--limit {options.limit} uses no photo; give 1 or more")
    return options.limit


def spec(
    options: argparse.Namespace, size: int | Callable[[], int] | None = None
) -> dict[str, Any]:
    """A spec for `data.sources.open_source` from the arguments.

    Args:
      options: parsed.
      size: of the model that looks at drawn pictures, or a function that is asked for
        it then: at another one they would be drawn small and enlarged. --data size=N
        says another.

    Raises:
      UserError: --split for a kind without splits, --data without a key, or a
        --limit that leaves nothing.
    """
    drawn = limit(options, 1000)
    kind = options.kind or _guess(options.images)
    result: dict[str, Any] = {"kind": kind, "limit": options.limit}
    if kind in _DRAWN:
        result.pop("limit")
        result |= {"count": drawn, "seed": options.seed}
        size = size() if callable(size) else size
        result |= {"size": size} if size else {}
    elif kind == "tfds":
        result |= {"name": options.images, "split": "train"}
    else:
        result["path"] = options.images
    if options.split:
        if kind in ("arrayrecord", *_DRAWN):
            raise UserError(
                f"--split {options.split} means nothing to photos of kind '{kind}'; "
                "leave it out"
            )
        result["split"] = options.split
    return result | dict(_pair(given) for given in options.data)


def _pair(given: str) -> tuple[str, Any]:
    key, equals, value = given.partition("=")
    if not (key and equals):
        raise UserError(f"--data {given} is no KEY=VALUE; write e.g. --data size=128")
    try:
        return key, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return key, value


def _guess(images: str) -> str:
    import pathlib

    from gptface_jax.data.inspection import sets

    path = pathlib.Path(images).expanduser()
    if images in _DRAWN:
        return images
    if path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet"))):
        return "parquet"
    if path.is_dir() and any(path.glob("*.array*record*")):
        return "arrayrecord"
    if parts := sets.parts_of(path):
        example = "train" if "train" in parts else parts[0]
        raise UserError(
            f"'{images}' holds sets of its own ({', '.join(parts)}); give one of them, "
            f"such as {path / example}"
        )
    if (path / "list_attr_celeba.txt").is_file():
        return "celeba"
    if path.exists() or "/" in images or "." in images:
        return "folder"
    return "tfds"
