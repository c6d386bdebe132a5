"""Arguments of the verbs that change or describe many photos at once."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from typing import Any

from gptface_jax.cli import _hosts
from gptface_jax.core.errors import UserError

_PHOTOS = ("image", "first", "second")  # of the command, for jobs that name none


def add_arguments(
    parser: argparse.ArgumentParser, pictures: bool = True, strips: bool = True
) -> None:
    """Adds --jobs and what goes with it.

    pictures, strips: whether the verb writes such; where it does not, the options are
    understood, but not shown.
    """
    group = parser.add_argument_group("many photos")
    group.add_argument(
        "--jobs",
        metavar="FILE.jsonl|FOLDER",
        help='one JSON object a line, e.g. {"id": "a", "image": "a.jpg", "seed": 1}, '
        "- for a pipe, or a folder of pictures; what a line does not say, the other "
        "options do. --out is then a folder; run it again to go on",
    )
    group.add_argument(
        "--batch-size",
        type=int,
        default=8,
        help="photos a device works on at once"
        + ("" if pictures else "; 1 is as fast on a CPU"),
    )
    group.add_argument(
        "--format",
        choices=("png", "jpg", "webp"),
        default="png",
        help="of the pictures" if pictures else argparse.SUPPRESS,
    )
    group.add_argument(
        "--strips",
        action="store_true",
        help="also write strips: before, mask, after"
        if pictures and strips
        else argparse.SUPPRESS,
    )
    group.add_argument(
        "--threads", type=int, default=4, help="that read photos and write results"
    )
    group.add_argument("--quiet", action="store_true", help="no progress bar")
    _hosts.add_arguments(parser)


def need(options: argparse.Namespace, *names: str) -> None:
    """Refuses to work on a single photo without these options."""
    for name in names:
        if getattr(options, name) is None:
            raise UserError(f"--{name} is missing; give it, or many photos by --jobs")


def run(options: argparse.Namespace, verb: str, defaults: Mapping[str, Any]) -> None:
    """Runs the jobs of --jobs.

    Args:
      options: of the command line.
      verb: of `experiments.registry.verbs()`.
      defaults: arguments of its method, None where they were not given.
    """
    _hosts.join(options)
    from gptface_jax.apps import batch
    from gptface_jax.cli import _photo
    from gptface_jax.data import folders

    if options.out is None:
        raise UserError("--out is missing; give a folder for the results")
    photos = {name: getattr(options, name, None) for name in _PHOTOS}
    given = {k: v for k, v in {**photos, **defaults}.items() if v is not None}
    if os.path.isdir(options.jobs):
        if skipped := folders.listing(options.jobs, deep=False).skipped_words():
            print(f"'{options.jobs}': skipped: {skipped}", file=sys.stderr)
    base = "." if "jobs" in options.piped else None
    model = _photo.load(options)
    model = getattr(model, verb).__self__  # or it says which models have it
    jobs = batch.read_jobs(options.jobs, verb, given, base, type(model))
    counts = batch.run(
        model,
        jobs,
        options.out,
        verb=verb,
        batch_size=options.batch_size,
        ending=f".{options.format}",
        strips=options.strips,
        threads=options.threads,
        progress=not options.quiet,
    )
    print(
        f"{counts['done'] - counts['failed']} done, {counts['failed']} failed, "
        f"{counts['skipped']} finished before: {options.out}"
    )
    if none := counts.get("none"):
        print(f"{none} answers are none")
    if counts["failed"]:
        raise UserError(
            f'{counts["failed"]} jobs failed; see their "error" in '
            f"{options.out}/results.jsonl and run the same command again"
        )
