"""Photos through the tokenizer and back: figures and a picture."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from gptface_jax.apps import networks, pictures, tokenization
from gptface_jax.data import image, sources
from gptface_jax.evaluate import reconstruction


def reconstruct(
    spec: Mapping[str, Any],
    tokenizer: str | os.PathLike,
    out: str | os.PathLike | None = None,
    *,
    shown: int = 16,
    batch_size: int = 64,
    progress: bool = True,
) -> dict[str, float]:
    """Photos through the VQGAN and back.

    Args:
      spec: the photos.
      tokenizer: VQGAN training run or model directory.
      out: file for a picture of originals above reconstructions, or None.
      shown: photos in that picture.

    Returns:
      The figures of `evaluate.reconstruction`.
    """
    source = sources.open_source(spec)
    vqgan = networks.ImageTokenizer(networks.open_network(tokenizer, "vqgan"))
    size = vqgan.config.resolution

    def encode(batch):
        return vqgan.encode(image.to_unit_range(batch))

    def decode(ids):
        return image.from_unit_range(vqgan.decode(ids))

    batches = (
        b for _, b in tokenization.photo_batches(source, size, batch_size, progress)
    )
    figures = reconstruction.evaluate(
        batches, encode, decode, vqgan.config.codebook_size
    )
    if out:
        picks = [source[i] for i in range(min(shown, len(source)))]
        first = np.stack([image.fit(image.decode(r.image), size) for r in picks])
        again = decode(encode(first))
        columns = min(8, len(first))
        rows = []
        for start in range(0, len(first), columns):
            rows += [*first[start : start + columns], *again[start : start + columns]]
        pictures.save(pictures.sheet(rows, columns, cell=max(size, 96)), out)
    return figures
