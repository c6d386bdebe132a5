"""Opening a trained perception model with what it was trained on."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import geometry, phrases
from gptface_jax.data.perception_examples import NAMES
from gptface_jax.data.record import Record
from gptface_jax.experiments import opening
from gptface_jax.pipelines import faces, networks, upright
from gptface_jax.pipelines.perception import PerceptionModel

FRAME = "frame.json"  # where the training pictures show eyes, nose and mouth
_MEASURED = 200  # records
_PALETTE_CELL = 8  # pixels

Model = TypeVar("Model", bound=PerceptionModel)
Tokenise = Callable[[Any, jax.Array], jax.Array]


def learnt(
    shown: Sequence[Record] | None, attributes: Mapping[str, Sequence[Record]],
    tasks: Sequence[str] | None = None,
) -> bytes:  # fmt: skip
    """The content of FRAME: where faces lie, and which tasks and attributes are taught.

    Args:
      shown: records with 68 landmarks, whose five points are averaged; None or others
        give the frame of the bundled model.
      attributes: task -> its records. Of an attribute that none of them labels a model
        learns nothing, and should say nothing.
      tasks: that are trained, now or before; None where nobody knows of all.
    """
    rows = []
    for record in _some(shown or ()):
        points = record.landmarks
        if points is None or len(points) != 68 or not np.isfinite(points).all():
            continue
        bare = dataclasses.replace(record, parsing=None, boxes=None)
        view = geometry.squared(bare, 128)
        rows.append(faces.five_points((view.landmarks + 0.5) / 128))
    frame = np.mean(rows, 0) if rows else np.array(upright.FRAME)
    taught = {
        task: [
            name
            for name in NAMES["celeba"]
            if any(phrases.known(r.labels or {}, name) is not None for r in records)
        ]
        for task, records in ((t, list(_some(x))) for t, x in attributes.items())
    }
    content = {"frame": np.round(frame, 4).tolist(), "attributes": taught}
    if tasks is not None:
        content["tasks"] = sorted(tasks)
    return json.dumps(content).encode()


def trained_tasks(source: str | os.PathLike) -> list[str] | None:
    """The tasks that the network of a run or a model directory was trained on.

    [] of another system's; None where an older version did not note them.

    Raises:
      UserError: nothing there, or nothing that is known.
    """
    root = networks.locate(source)
    if "faceptor" not in opening.networks_of(root):
        return []
    if networks.is_run(root):
        from gptface_jax.train import checkpoint  # Orbax takes a second to import

        stored = checkpoint.read_meta(root)["extra_files"].get(FRAME)
    else:
        stored = _held(root)
    try:
        return json.loads(stored).get("tasks") if stored else None
    except (ValueError, AttributeError):
        return None


def _held(path: pathlib.Path) -> bytes | None:
    """FRAME of a model directory, where it has one."""
    held = path / FRAME
    return held.read_bytes() if held.is_file() else None


def _some(source: Sequence[Record]) -> Iterator[Record]:
    """Records from all over a source."""
    count = min(_MEASURED, len(source))
    for i in np.linspace(0, len(source) - 1, count).astype(int) if count else ():
        yield source[int(i)]


def tokeniser(codes: int, data: Any) -> tuple[Tokenise, dict[str, Any]]:
    """Function from pictures in [-1,1] to image tokens, and the constants it reads.

    Args:
      codes: of the encoder.
      data: the `data` section: `image_ids` "palette", or `tokenizer`.

    Raises:
      UserError: no tokenizer, or one of other codes.
    """
    if data.get("image_ids") == "palette":
        return lambda constants, image: _palette(codes, image), {}
    if not data.get("tokenizer"):
        raise UserError(
            "the encoder reads image tokens and data.tokenizer is empty; set it to the "
            "VQGAN that makes them, or data.image_ids to 'palette'"
        )
    vqgan = opening.open_network(data["tokenizer"], "vqgan")
    if vqgan.config.codebook_size != codes:
        raise UserError(
            f"data.tokenizer has {vqgan.config.codebook_size} codes and "
            f"model.sequence.vocab.codebook_size is {codes}; make them the same"
        )

    def tokenise(constants, image):
        variables = {"params": constants["tokenizer"]}
        return vqgan.module.apply(variables, image, method="encode")

    return tokenise, {"tokenizer": vqgan.params}


def _palette(codes: int, image: jax.Array) -> jax.Array:
    """Mean colours of cells as codes: needs no network, for tests and trials."""
    levels, cell = round(codes ** (1 / 3)), _PALETTE_CELL
    b, h, w, _ = image.shape
    cells = image.reshape(b, h // cell, cell, w // cell, cell, 3).mean((2, 4))
    steps = jnp.clip((cells + 1) / 2 * levels, 0, levels - 1).astype(int)
    return steps @ jnp.array([levels**2, levels, 1])


def open_model(
    kind: type[Model], path: pathlib.Path, tokenizer: Any = None,
    dtype: str | None = None,
) -> Model:  # fmt: skip
    """A perception model from a folder.

    Args:
      kind: the class that it is opened as.
      path: a model directory, or the work folder of a run.
      tokenizer: of a model on image tokens, instead of the one that it was trained
        with.
      dtype: of the activations, see `apps.api.load`.

    Raises:
      UserError: damaged files, or a tokenizer that does not belong to it.
    """
    network = opening.open_network(path, "faceptor")
    tokenise = None
    if network.config.encoder == "tokens":
        data = dict(networks.experiment(network, "faceptor").get("data", {}))
        if tokenizer is not None:
            data |= {"tokenizer": tokenizer, "image_ids": "tokenizer"}
        codes = network.config.sequence.vocab.codebook_size
        encode, constants = tokeniser(codes, data)
        tokenise = lambda image: encode(constants, image)  # noqa: E731
    elif tokenizer is not None:
        raise UserError(
            f"'{path}' is a perception model that reads pixels; leave the tokenizer out"
        )
    if networks.is_run(path):
        stored, card = network.meta["extra_files"].get(FRAME), ""
    else:
        stored, readme = _held(path), path / "README.md"
        card = readme.read_text("utf-8") if readme.is_file() else ""
    try:
        content = json.loads(stored) if stored else {"frame": upright.FRAME}
        taught = {k: tuple(v) for k, v in content.get("attributes", {}).items()}
        tasks = content.get("tasks")
        return kind(network, content["frame"], tokenise, card, dtype, taught, tasks)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"'{path}' has a {FRAME} that makes no sense") from None
