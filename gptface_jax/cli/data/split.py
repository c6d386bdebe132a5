"""a source into train, validation and test, by a hash

  gptface data split --images ../photos --out sets/photos --validation 0.05 --test 0.05

The split of a record does not depend on the others, nor on the machine: what is added
later does not move what is there. By default copies of one picture stay together, and
so do all records of one file, such as its faces and its mirror image, which go where
the first of them does; with --by identity all pictures of a person do.
"""

from __future__ import annotations

import argparse
import pathlib
from collections.abc import Mapping
from typing import Any

from gptface_jax.cli.data import _shared
from gptface_jax.core.errors import UserError

_KEYS = ("picture", "identity")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _shared.add_arguments(parser)
    parser.add_argument("--out", required=True, help="folder of the splits")
    parser.add_argument("--validation", type=float, default=0.05, help="its share")
    parser.add_argument("--test", type=float, default=0.0, help="its share")
    parser.add_argument("--by", choices=_KEYS, default="picture", help="what decides")
    parser.add_argument("--salt", default="", help="another one, another split")
    parser.add_argument(
        "--shard-size", type=int, default=8192, help="records in a file"
    )


def run(options: argparse.Namespace) -> None:
    from gptface_jax.data import shard_format
    from gptface_jax.data.inspection import resplit
    from gptface_jax.data.prepare import settings

    shares = settings.SplitOptions(options.validation, options.test, options.salt)
    if min(options.validation, options.test) < 0 or (
        options.validation + options.test >= 1
    ):
        raise UserError(
            f"--validation {options.validation:g} and --test {options.test:g} leave "
            "nothing to train on; give shares from 0 whose sum is below 1"
        )
    if options.shard_size < 1:
        raise UserError(f"--shard-size is {options.shard_size}; use 1 or more")
    found = _shared.open_set(options)
    # Of the first records of a set it is the whole one that has them.
    wholes = [getattr(part, "source", part) for part in found.splits.values()]
    manifest = getattr(wholes[0], "manifest", {})
    kept = {k: v for k, v in manifest.items() if k not in _OF_SHARDS}
    folders = {pathlib.Path(f).parent for w in wholes for f in getattr(w, "files", ())}
    codebooks = [path / shard_format.CODEBOOK for path in sorted(folders)]
    with _shared.bar(options, len(found)) as progress:
        counts = resplit.resplit(
            (record for _, record in found.sample(None)),
            options.out, shares, options.by, options.shard_size, kept,
            [path for path in codebooks if path.is_file()], _together(manifest),
            progress,
        )  # fmt: skip
    print(", ".join(f"{split}: {n}" for split, n in counts.items()), "->", options.out)


def _together(manifest: Mapping[str, Any]) -> int:
    """How many records, one after the other, are of one picture."""
    from gptface_jax.data import shard_format

    count = 2 if manifest.get("mirrored") else 1
    kinds = [manifest.get(key, {}).get("kind") for key in shard_format.PLACES]
    return 2 * count if "synthetic_edits" in kinds else count


# Entries of a manifest that are about its files.
_OF_SHARDS = (
    "format", "num_records", "shard_size", "shards", "counts", "sha256", "split",
    "dropped",
)  # fmt: skip
