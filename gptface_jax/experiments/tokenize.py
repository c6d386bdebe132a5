"""Photos to token caches, on all devices of all hosts, to be gone on with at will."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import itertools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import tqdm
from jax.experimental import multihost_utils

from gptface_jax.core.errors import UserError
from gptface_jax.data import (
    fingerprint,
    geometry,
    photo_batches,
    prepare,
    shards,
    sources,
)
from gptface_jax.data.record import Record
from gptface_jax.experiments.opening import open_network
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer
from gptface_jax.train import work_folder

_IN_FLIGHT = 2  # batches given to the devices whose result is not yet there

Out = TypeVar("Out")


def tokenize(
    spec: Mapping[str, Any],
    tokenizer: str | os.PathLike,
    out: str | os.PathLike,
    *,
    mirror: bool = False,
    dtype: str | None = None,
    batch_size: int = 64,
    threads: int | None = None,
    shard_size: int = 8192,
    upright: prepare.Select | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes the cache of image ids that GPTFace trains on.

    Every process does every n-th of the missing shards, on all its devices, in a
    folder that all processes share. The content does not depend on the number of
    processes or devices of one kind. What was broken off, the same call goes on with.

    Args:
      spec: the photos, for `data.sources.open_source`.
      tokenizer: VQGAN training run or model directory.
      out: folder of the cache.
      mirror: also store every picture mirrored, behind it (twice the records).
      dtype: of the activations, "float32" or "bfloat16"; the network's by default.
      batch_size: pictures that each device encodes at once.
      threads: that read pictures; one a CPU core by default.
      shard_size: records in a file.
      upright: brings faces upright first, see `data.prepare`; their pictures stay in
        a folder beside, OUT-upright.
      progress: show a bar.

    Returns:
      The manifest; with the "frame" of pictures that were brought upright.

    Raises:
      UserError: a folder with anything else in it or in which another run writes, or
        a picture that cannot be read.
    """
    views = 2 if mirror else 1
    if shard_size % views:
        raise UserError(
            f"shard_size is {shard_size}; make it even, since a photo and its mirror "
            "image go into one shard"
        )
    if upright:
        spec = _in_turn(lambda: _prepared(spec, out, upright, progress))
    source = sources.open_source(spec, report=jax.process_index() == 0)
    network, devices = open_network(tokenizer, "vqgan"), jax.local_devices()
    batch_size = min(batch_size, max(1, len(source)))
    vqgan = ImageTokenizer(network, batch_size, dtype=dtype, devices=devices)
    manifest, count = _manifest(vqgan, spec, mirror), len(source) * views
    manifest |= shards.prints_of(source)
    if "frame" in (brought := getattr(source, "manifest", {})):
        manifest["frame"] = brought["frame"]
    with work_folder.held(out, "tokenizes", "choose another --out"):
        writer = _in_turn(lambda: shards.Writer(out, manifest, count, shard_size))
        return _write(writer, vqgan, source, mirror, threads, progress)


def _prepared(spec, out, upright: prepare.Select, progress: bool) -> dict[str, Any]:
    """The spec of the pictures with their faces upright, which are made if missing."""
    folder = pathlib.Path(out).expanduser()
    folder = folder.with_name(f"{folder.name}-upright")
    if not (folder / shards.MANIFEST).is_file():
        prepare.prepare(spec, folder, select=upright, progress=progress)
    manifest, wanted = shards.read_manifest(folder), upright.described()
    asked = json.loads(json.dumps({"source": spec, **wanted}, default=os.fspath))
    asked["source"] = {k: v for k, v in asked["source"].items() if v is not None}
    if shards.FINGERPRINT in manifest:
        asked[shards.FINGERPRINT] = fingerprint.of(sources.open_source(spec))
    if any(manifest.get(k) != v for k, v in asked.items()):
        raise UserError(
            f"'{folder}' holds other pictures, or in another frame; move it away or "
            "choose another --out"
        )
    return {"kind": "arrayrecord", "path": os.fspath(folder)}


def _write(
    writer: shards.Writer,
    vqgan: ImageTokenizer,
    source: Sequence[Record],
    mirror: bool,
    threads: int | None,
    progress: bool,
) -> dict[str, Any]:
    """Writes this process's share of the missing shards; returns the manifest."""
    first, views = jax.process_index() == 0, 2 if mirror else 1
    total = len(writer.manifest["shards"])
    if first and len(writer.missing) < total:
        found = total - len(writer.missing)
        print(f"going on: {found} of {total} shards are there", file=sys.stderr)
    mine = {
        i: range(writer.records(i).start // views, writer.records(i).stop // views)
        for i in writer.missing[jax.process_index() :: jax.process_count()]
    }
    pictures = sum(len(indices) for indices in mine.values())
    bar = tqdm.tqdm(total=pictures, unit="image", disable=not (progress and first))
    records = _encoded(vqgan, source, mine, mirror, threads, bar.update)
    with bar, contextlib.closing(records):
        for index, group in itertools.groupby(records, key=lambda pair: pair[0]):
            writer.write(index, (record for _, record in group))
    # The manifest says that the set is complete: not before the slowest process is
    # done.
    _wait_for_all("written")
    if first:
        np.save(writer.folder / shards.CODEBOOK, vqgan.network.params["codebook"])
        writer.finish()
    _wait_for_all("finished")
    return writer.manifest


def _manifest(
    vqgan: ImageTokenizer, spec: Mapping[str, Any], mirror: bool
) -> dict[str, Any]:
    config = vqgan.config
    given = {k: v for k, v in spec.items() if v is not None}
    return {
        "tokenizer_digest": vqgan.network.codes_digest,
        "codebook_size": config.codebook_size,
        "grid": list(config.grid),
        "image_size": config.resolution,
        "mirrored": mirror,
        "dtype": vqgan.dtype,
        "photos": json.loads(json.dumps(given, default=os.fspath)),
    }


def _encoded(
    vqgan: ImageTokenizer,
    source: Sequence[Record],
    ranges: Mapping[int, range],
    mirror: bool,
    threads: int | None,
    done: Callable[[int], Any],
) -> Iterator[tuple[int, Record]]:
    """Shard and record of all pictures in `ranges` (shard -> indices), in order.

    While threads read the next pictures and the devices encode two batches, the
    caller writes the one before.
    """
    size = vqgan.full_batch
    batches = [
        (shard, indices[start : start + size])
        for shard, indices in ranges.items()
        for start in range(0, len(indices), size)
    ]
    wanted = itertools.chain.from_iterable(indices for _, indices in batches)
    photos = photo_batches.photos_of(
        source, vqgan.config.resolution, wanted, threads, 2 * size
    )
    pending: collections.deque = collections.deque()

    def oldest() -> Iterator[tuple[int, Record]]:
        shard, records, results = pending.popleft()
        # Here the host waits for the device, for the oldest batch in flight alone.
        views = [np.asarray(ids).astype(np.uint16) for ids in results]
        for i, record in enumerate(records):
            for turn, ids in enumerate(views):
                # Pixels, points, maps, boxes and a head would not match a mirrored
                # picture.
                kept = dataclasses.replace(
                    geometry.mirrored_words(record) if turn else record,
                    image=None,
                    landmarks=None,
                    parsing=None,
                    boxes=None,
                    face3d=None,
                    image_ids=ids[i],
                )
                yield shard, kept
        done(len(records))

    with contextlib.closing(photos):
        for shard, indices in batches:
            records, pictures = zip(*itertools.islice(photos, len(indices)))
            batch = np.stack(pictures)
            views = [batch, batch[:, :, ::-1]] if mirror else [batch]
            # Always full: the same program, whatever is left and for whomever.
            results = [vqgan.dispatch(v, "encode", full=True) for v in views]
            pending.append((shard, records, results))
            if len(pending) > _IN_FLIGHT:
                yield from oldest()
        while pending:
            yield from oldest()


def _in_turn(action: Callable[[], Out]) -> Out:
    """Process 0 acts first, then the others; nobody goes on before all have."""
    first = jax.process_index() == 0
    if not first:
        _wait_for_all("first")
    try:
        result = action()
    finally:  # an error of the first one will be met by the others as well
        if first:
            _wait_for_all("first")
    _wait_for_all("others")
    return result


def _wait_for_all(name: str) -> None:
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"tokenize: {name}")
