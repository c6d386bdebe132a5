"""Photos to token caches."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tqdm

from gptface_jax.apps import networks
from gptface_jax.core.errors import UserError
from gptface_jax.data import image, shards, sources, transforms
from gptface_jax.data.record import Record


def photo_batches(
    source: Sequence[Record], size: int, batch_size: int, progress: bool
) -> Iterator[tuple[list[Record], np.ndarray]]:
    """(records, uint8 [B,S,S,3]); a record that cannot be read is named."""
    bar = tqdm.tqdm(total=len(source), unit="image", disable=not progress)
    with bar:
        for start in range(0, len(source), batch_size):
            records, batch = [], []
            for i in range(start, min(start + batch_size, len(source))):
                record = source[i]
                try:
                    batch.append(image.fit(transforms.decode_picture(record), size))
                except UserError as error:
                    raise UserError(f"record {i}: {error}") from None
                records.append(record)
            yield records, np.stack(batch)
            bar.update(len(records))


def tokenize(
    spec: Mapping[str, Any],
    tokenizer: str | os.PathLike,
    out: str | os.PathLike,
    *,
    mirror: bool = False,
    batch_size: int = 64,
    progress: bool = True,
) -> dict[str, Any]:
    """Writes the cache of image ids that GPTFace trains on.

    Args:
      spec: the photos, for `data.sources.open_source`.
      tokenizer: VQGAN training run or model directory.
      out: folder of the cache.
      mirror: also store every picture mirrored (twice the records).
      batch_size: pictures encoded at once.
      progress: show a bar.

    Returns:
      The manifest.
    """
    source = sources.open_source(spec)
    vqgan = networks.ImageTokenizer(networks.open_network(tokenizer, "vqgan"))
    config = vqgan.config
    writer = shards.Writer(
        out,
        {
            "tokenizer_digest": vqgan.network.digest,
            "codebook_size": config.codebook_size,
            "grid": list(config.grid),
            "image_size": config.resolution,
            "mirrored": mirror,
        },
    )
    for records, batch in photo_batches(
        source, config.resolution, batch_size, progress
    ):
        views = [batch, batch[:, :, ::-1]] if mirror else [batch]
        ids = [vqgan.encode(image.to_unit_range(v)).astype(np.uint16) for v in views]
        for i, record in enumerate(records):
            for view in ids:
                # Pixels, points and maps would not match a mirrored picture.
                kept = dataclasses.replace(
                    record, image=None, landmarks=None, parsing=None, image_ids=view[i]
                )
                writer.write(kept)
    np.save(writer.folder / shards.CODEBOOK, vqgan.network.params["codebook"])
    return writer.finish()
