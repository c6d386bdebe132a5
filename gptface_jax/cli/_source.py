"""Arguments that say where photos are, shared by several verbs."""

from __future__ import annotations

import argparse
from typing import Any


def add_arguments(parser: argparse.ArgumentParser, required: bool = True) -> None:
    group = parser.add_argument_group("photos")
    group.add_argument(
        "--images",
        required=required,
        metavar="PATH",
        help="folder, Parquet file or folder, ArrayRecord folder, CelebA folder, "
        "TFDS name, or 'synthetic'",
    )
    group.add_argument(
        "--kind",
        choices=("folder", "parquet", "arrayrecord", "celeba", "tfds", "synthetic"),
        help="what --images is; guessed from what is there",
    )
    group.add_argument("--split", help="train, validation, test, ...")
    group.add_argument("--limit", type=int, help="use the first so many photos")
    group.add_argument("--seed", type=int, default=0, help="of synthetic faces")


def spec(options: argparse.Namespace) -> dict[str, Any]:
    """Arguments -> a spec for `data.sources.open_source`."""
    kind = options.kind or _guess(options.images)
    result: dict[str, Any] = {"kind": kind, "limit": options.limit}
    if kind == "synthetic":
        result.pop("limit")
        result |= {"count": options.limit or 1000, "seed": options.seed}
    elif kind == "tfds":
        result |= {"name": options.images, "split": options.split or "train"}
    else:
        result["path"] = options.images
        if kind in ("parquet", "celeba"):
            result["split"] = options.split
    return result


def _guess(images: str) -> str:
    import pathlib

    path = pathlib.Path(images).expanduser()
    if images == "synthetic":
        return "synthetic"
    if path.suffix == ".parquet" or (path.is_dir() and any(path.glob("*.parquet"))):
        return "parquet"
    if path.is_dir() and any(path.glob("*.array*record*")):
        return "arrayrecord"
    if (path / "list_attr_celeba.txt").is_file():
        return "celeba"
    if path.exists() or "/" in images or "." in images:
        return "folder"
    return "tfds"
