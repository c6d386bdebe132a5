"""Pictures read or drawn once, by many processes, into ArrayRecord shards."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, Protocol

import tqdm

from gptface_jax.core import locks, processes
from gptface_jax.core.errors import UserError
from gptface_jax.data import shards, sources
from gptface_jax.data.record import Record


class Select(Protocol):
    """A change of records on their way; goes to other processes by pickle."""

    def __call__(self, records: Iterable[Record]) -> Iterator[Record | str]:
        """A record to write for each record, or why it is dropped."""

    def described(self) -> dict[str, Any]:
        """Entries of the manifest: all that decides the content."""


def prepare(
    spec: Mapping[str, Any],
    out: str | os.PathLike,
    *,
    workers: int | None = None,
    shard_size: int = 512,
    select: Select | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes the records of a source, with all that is known of them, into shards.

    The content does not depend on the number of processes. What was broken off, the
    same call goes on with.

    Args:
      spec: the source, see `data.sources.open_source`.
      out: folder of the shards; a source of kind "arrayrecord" reads it.
      workers: processes; one a CPU core by default.
      shard_size: records in a file.
      select: changes records and drops some, such as `pipelines.upright.Upright`; the
        manifest counts what was "dropped" by reason.
      progress: show a bar.

    Returns:
      The manifest.

    Raises:
      UserError: a folder with anything else in it or in which another process
        writes, no processes, or a record that cannot be read.
    """
    workers = os.cpu_count() or 1 if workers is None else workers
    if workers < 1:
        raise UserError(f"{workers} workers cannot prepare pictures; use 1 or more")
    manifest = {"source": {k: v for k, v in spec.items() if v is not None}}
    manifest |= select.described() if select else {}
    source = sources.open_source(spec, report=True)
    manifest |= shards.prints_of(source)
    lock = pathlib.Path(out) / locks.NAME
    with locks.held(lock, "prepares pictures", "choose another --out"):
        drops = select is not None
        writer = shards.Writer(out, manifest, len(source), shard_size, drops=drops)
        return _prepare(spec, writer, workers, select, progress)


def _prepare(
    spec: Mapping[str, Any],
    writer: shards.Writer,
    workers: int,
    select: Select | None,
    progress: bool,
) -> dict[str, Any]:
    left = sum(len(writer.records(i)) for i in writer.missing)
    bar = tqdm.tqdm(total=left, unit="image", disable=not progress)
    work = writer.missing, workers, _begin, spec, writer, select
    with bar:
        for count in processes.results(_write, *work):
            bar.update(count)
    return writer.finish()


# Of a worker: opens the source, once since of a large folder that takes long; what
# writes its shards; and what changes its records.
_work: tuple[Callable[[], Sequence[Record]], shards.Writer, Select | None] | None = None


def _begin(
    spec: Mapping[str, Any], writer: shards.Writer, select: Select | None
) -> None:
    global _work
    opened = functools.cache(functools.partial(sources.open_source, spec))
    _work = opened, writer, select


def _write(index: int) -> int:
    assert _work is not None
    opened, writer, select = _work
    source, numbers = opened(), writer.records(index)
    records = (source[i] for i in numbers)
    writer.write(index, select(records) if select else records)
    return len(numbers)
