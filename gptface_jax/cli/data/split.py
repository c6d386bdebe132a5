"""a source into train, validation and test, by a hash

  gptface data split --images ../photos --out sets/photos --validation 0.05 --test 0.05

The split of a record does not depend on the others, nor on the machine: what is added
later does not move what is there. By default copies of one picture stay together; with
--by identity all pictures of a person do.
"""

from __future__ import annotations

import argparse
import pathlib
import shutil

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
        raise UserError("--validation and --test must be shares whose sum is below 1")
    if options.shard_size < 1:
        raise UserError(f"--shard-size is {options.shard_size}; use 1 or more")
    found = _shared.open_set(options)
    manifests = [getattr(part, "manifest", {}) for part in found.splits.values()]
    kept = {k: v for k, v in manifests[0].items() if k not in _OF_SHARDS}
    with _shared.bar(options, len(found)) as progress:
        counts = resplit.resplit(
            (record for _, record in found.sample(None)),
            options.out, shares, options.by, options.shard_size, kept, progress,
        )  # fmt: skip
    for split in counts:
        for part in found.splits.values():
            codes = getattr(part, "files", None) and pathlib.Path(part.files[0])
            if codes and codes.with_name(shard_format.CODEBOOK).is_file():
                target = pathlib.Path(options.out) / split / shard_format.CODEBOOK
                shutil.copyfile(codes.with_name(shard_format.CODEBOOK), target)
    print(", ".join(f"{split}: {n}" for split, n in counts.items()), "->", options.out)


# Entries of a manifest that are about its files.
_OF_SHARDS = (
    "format", "num_records", "shard_size", "shards", "counts", "sha256", "split",
    "dropped",
)  # fmt: skip
