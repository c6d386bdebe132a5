"""The preparation of a set, with the networks that it needs (`data.prepare`)."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.data import image_io, shards
from gptface_jax.data.prepare import beam, finish, opt_out, settings, stages, texts
from gptface_jax.data.prepare.sample import Faces
from gptface_jax.data.record import Record
from gptface_jax.data.text import TextTokenizer


def prepare(
    config: Any,
    out: str | os.PathLike,
    *,
    workers: int = 1,
    beam_options: str = "",
    progress: bool = True,
) -> dict[str, Any]:
    """Writes the set that a config describes; returns its manifest.

    Args:
      config: a mapping, see `data.prepare.settings`.
      out: folder of the set.
      workers, beam_options: see `data.prepare.beam`. Image ids are made by one process,
        which uses all devices, unless `beam_options` say where.
      progress: show bars.

    Raises:
      UserError: see `data.prepare.beam.prepare`; or a network that cannot be opened.
    """
    values = config.to_dict() if hasattr(config, "to_dict") else dict(config)
    wanted = settings.read(values)
    _check(wanted)
    about: dict[str, Any] = {"crop": dataclasses.asdict(wanted.crop)}
    if wanted.opt_out:
        listed = opt_out.read(wanted.opt_out)
        about["opt_out"] = {"digest": listed.digest, "entries": len(listed)}
    if wanted.texts.vocab:
        tokenizer = TextTokenizer.from_pretrained(wanted.texts.vocab)
        about["vocabulary"] = {"digest": tokenizer.digest, "size": tokenizer.size}
    if wanted.crop.mode == "upright":
        from gptface_jax.pipelines.upright import FRAME

        about["frame"] = [[float(v) for v in point] for point in FRAME]
    network, entries = _tokenizer(wanted)
    return beam.prepare(
        wanted,
        pathlib.Path(out),
        functools.partial(make_stages, wanted),
        functools.partial(make_encode, wanted.image_ids) if network else None,
        about=about | entries,
        beside={shards.CODEBOOK: network.params["codebook"]} if network else {},
        workers=workers,
        options=beam_options,
        progress=progress,
    )


def _check(config: settings.Config) -> None:
    """Opens what every worker will open, before any work is done."""
    texts.texts(config.texts)
    if config.texts.language:
        texts.probability("a", config.texts.language)


def make_stages(config: settings.Config) -> stages.Stages:
    """The stages of a config, with the bundled face finder."""
    return stages.Stages(
        config,
        texts.texts(config.texts),
        find_faces,
        upright,
        opt_out.read(config.opt_out),
    )


def find_faces(pictures: Sequence[np.ndarray]) -> list[Faces]:
    """The faces of each of many pictures uint8 [H,W,3]."""
    from gptface_jax.pipelines import faces

    return [_faces(found) for found in faces.find_all(pictures)]


def _faces(found: Sequence[Any]) -> Faces:
    count = len(found)
    return Faces(
        np.array([face.box for face in found], np.float32).reshape(count, 4),
        np.array([face.five for face in found], np.float32).reshape(count, 5, 2),
        np.array([face.score for face in found], np.float32).reshape(count),
    )


def upright(points: np.ndarray, size: tuple[int, int]):
    """The way of a face into the model frame; see `stages.Upright`."""
    from gptface_jax.pipelines.upright import FRAME
    from gptface_jax.pipelines.views import View

    view = View.upright(points, np.asarray(FRAME, np.float32), size)
    beyond = float(view.beyond(size).mean())
    return view.way.scaled(1 / view.side), view.side, beyond


def _tokenizer(config: settings.Config) -> tuple[Any, dict[str, Any]]:
    """The network that makes image ids, and what manifests say of it; (None, {})."""
    options = config.image_ids
    if not options.tokenizer:
        return None, {}
    from gptface_jax.experiments import opening

    network = opening.open_network(options.tokenizer, "vqgan")
    if config.crop.size != network.config.resolution:
        raise UserError(
            f"crop.size is {config.crop.size}, and the tokenizer sees "
            f"{network.config.resolution} pixels; make them the same"
        )
    return network, {
        "tokenizer_digest": network.codes_digest,
        "codebook_size": network.config.codebook_size,
        "grid": list(network.config.grid),
        "image_size": network.config.resolution,
        "mirrored": False,
    }


@functools.lru_cache(maxsize=1)
def make_encode(options: settings.ImageIds) -> finish.Encode:
    """Function from records to the same with image ids, on all devices of a process."""
    import jax

    from gptface_jax.experiments import opening
    from gptface_jax.pipelines.image_tokenizer import ImageTokenizer

    network = opening.open_network(options.tokenizer, "vqgan")
    devices = jax.local_devices()
    tokenizer = ImageTokenizer(network, options.batch_size, devices=devices)
    size = network.config.resolution

    def encode(records: Sequence[Record]) -> list[Record]:
        pictures = np.stack(
            [images.fit(image_io.decode(record.image), size) for record in records]
        )
        ids = np.asarray(tokenizer.encode(pictures)).astype(np.uint16)
        drop = {} if options.keep_pictures else dict.fromkeys(
            ("image", "landmarks", "parsing", "boxes")
        )  # fmt: skip
        return [
            dataclasses.replace(record, **drop, image_ids=ids[i])
            for i, record in enumerate(records)
        ]

    return encode
