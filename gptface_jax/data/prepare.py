"""Pictures read or drawn once, by many processes, into ArrayRecord shards."""

from __future__ import annotations

import multiprocessing
import os
import pathlib
from collections.abc import Mapping
from concurrent import futures
from typing import Any

import tqdm

from gptface_jax.core import locks
from gptface_jax.core.errors import UserError
from gptface_jax.data import fingerprint, shards, sources


def prepare(
    spec: Mapping[str, Any],
    out: str | os.PathLike,
    *,
    workers: int | None = None,
    shard_size: int = 512,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes every record of a source, with all that is known of it, into shards.

    The content does not depend on the number of processes. What was broken off, the
    same call goes on with.

    Args:
      spec: the source, see `data.sources.open_source`.
      out: folder of the shards; a source of kind "arrayrecord" reads it.
      workers: processes; one a CPU core by default.
      shard_size: records in a file.
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
    source = sources.open_source(spec, tell=True)
    manifest |= {shards.FINGERPRINT: fingerprint.of(source)}
    lock = pathlib.Path(out) / locks.NAME
    with locks.held(lock, "prepares pictures", "choose another --out"):
        writer = shards.Writer(out, manifest, len(source), shard_size)
        return _prepare(spec, writer, workers, progress)


def _prepare(
    spec: Mapping[str, Any], writer: shards.Writer, workers: int, progress: bool
) -> dict[str, Any]:
    left = sum(len(writer.records(i)) for i in writer.missing)
    bar = tqdm.tqdm(total=left, unit="image", disable=not progress)
    # Started afresh: a copy of a process that runs threads may hang.
    context = multiprocessing.get_context("spawn")
    with bar, futures.ProcessPoolExecutor(workers, context) as pool:
        parts = [pool.submit(_write, spec, writer, i) for i in writer.missing]
        try:
            for part in futures.as_completed(parts):
                bar.update(part.result())
        finally:
            for part in parts:
                part.cancel()
    return writer.finish()


def _write(spec: Mapping[str, Any], writer: shards.Writer, index: int) -> int:
    source = sources.open_source(spec)
    numbers = writer.records(index)
    writer.write(index, (source[i] for i in numbers))
    return len(numbers)
