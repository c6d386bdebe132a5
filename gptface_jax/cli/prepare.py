"""Photos or drawn faces -> ArrayRecord shards of pictures, read or drawn once.

  gptface prepare --images synthetic --limit 12000 --data size=128 --out pictures/drawn
  gptface prepare --images ../photos --out pictures/photos --workers 16

For what is slow to read again and again: drawn faces take a core 30 ms each. The
shards hold all that is known of a picture and are a source of kind "arrayrecord", for
`train` and for --images of the other verbs. If it is broken off, the same command goes
on with the shards that are missing.
"""

from __future__ import annotations

import argparse

from gptface_jax.cli import _source


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _source.add_arguments(parser)
    parser.add_argument("--out", required=True, help="folder of the shards")
    parser.add_argument(
        "--workers", type=int, help="processes; default: one a CPU core"
    )
    parser.add_argument("--shard-size", type=int, default=512, help="records in a file")
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> None:
    from gptface_jax.data import prepare

    manifest = prepare.prepare(
        _source.spec(options),
        options.out,
        workers=options.workers,
        shard_size=options.shard_size,
        progress=not options.quiet,
    )
    print(f"{manifest['num_records']} records -> {options.out}")
