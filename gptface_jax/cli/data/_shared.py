"""What the verbs of a set have in common."""

from __future__ import annotations

import argparse
import collections
import contextlib
from collections.abc import Callable, Iterator
from typing import Any

from gptface_jax.cli import _source
from gptface_jax.core.errors import UserError


def add_arguments(parser: argparse.ArgumentParser, sample: int | None = None) -> None:
    _source.add_arguments(parser)
    if sample is not None:
        parser.add_argument(
            "--sample",
            type=int,
            default=sample,
            help="records that are looked at, evenly drawn; 0 takes all "
            f"(default {sample})",
        )
    parser.add_argument("--quiet", action="store_true", help="no progress bar")


def open_set(
    options: argparse.Namespace, faults: collections.Counter[str] | None = None
) -> Any:
    """The set of --images: one in splits, or any source; see `sets.open_set`."""
    from gptface_jax.data.inspection import sets

    if not options.kind and sets.parts_of(options.images):
        if options.split or options.limit or options.data:
            raise UserError(
                f"'{options.images}' is a set in splits; give one of its splits as "
                "--images to use a part of it"
            )
        return sets.open_set({"kind": "arrayrecord", "path": options.images}, faults)
    return sets.open_set(_source.spec(options), faults)


def sample(options: argparse.Namespace) -> int | None:
    """Number of records by --sample; None for all.

    Raises:
      UserError: below 0.
    """
    if options.sample < 0:
        raise UserError(f"--sample is {options.sample}; give 1 or more, or 0 for all")
    return options.sample or None


@contextlib.contextmanager
def bar(options: argparse.Namespace, total: int) -> Iterator[Callable[[int], Any]]:
    """Shows a bar; yields what is called with a number of records."""
    import tqdm

    with tqdm.tqdm(total=total, unit="record", disable=options.quiet) as shown:
        yield shown.update
