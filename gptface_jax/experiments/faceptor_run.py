"""Opening a trained perception model with what it was trained on."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import types
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.core.config import from_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.data import geometry, phrases, transforms
from gptface_jax.data.perception_examples import NAMES
from gptface_jax.data.record import Record
from gptface_jax.experiments import opening
from gptface_jax.interop import directory
from gptface_jax.nn.perception import PerceptionConfig
from gptface_jax.pipelines import faces, networks, upright
from gptface_jax.pipelines.perception import PerceptionModel

FRAME = "frame.json"  # where the training pictures show eyes, nose and mouth
_MEASURED = 200  # records
_PALETTE_CELL = 8  # pixels

Model = TypeVar("Model", bound=PerceptionModel)
Tokenise = Callable[[Any, jax.Array], jax.Array]


def learnt(
    shown: Sequence[Record] | None, attributes: Mapping[str, Sequence[Record]],
    stages: Mapping[str, int] = types.MappingProxyType({}),
    before: Mapping[str, Any] = types.MappingProxyType({}),
) -> bytes:  # fmt: skip
    """The content of FRAME: where faces lie, and which tasks and attributes are taught.

    Args:
      shown: records with 68 landmarks, whose five points are averaged; None or others
        give the frame noted before, or else that of the bundled model.
      attributes: task -> its records. Of an attribute that none of them labels a model
        learns nothing, and should say nothing, unless it was taught before.
      stages: task that is trained now -> the stage, 1 or 2, at which it is.
      before: what is noted of the network that this training starts from, see `noted`.
    """
    rows = []
    for record in _some(shown or ()):
        points = record.landmarks
        if points is None or len(points) != 68 or not np.isfinite(points).all():
            continue
        bare = dataclasses.replace(record, parsing=None, boxes=None)
        view = geometry.squared(bare, 128)
        rows.append(faces.five_points((view.landmarks + 0.5) / 128))
    frame = np.round(np.mean(rows, 0), 4).tolist() if rows else None
    taught = dict(before.get("attributes", {}))
    for task, source in attributes.items():
        records, known = list(_some(source)), taught.get(task, ())
        taught[task] = [
            name
            for name in NAMES["celeba"]
            if name in known
            or any(phrases.known(r.labels or {}, name) is not None for r in records)
        ]
    content = {
        "frame": frame or before.get("frame", upright.FRAME),
        "attributes": taught,
        "stage": {**before.get("stage", {}), **stages},
        "latest": sorted(stages),
    }
    if "tasks" in before:
        content["tasks"] = sorted({*before["tasks"], *stages})
    return json.dumps(content).encode()


def noted(
    source: str | os.PathLike, has: Collection[str], own: bool = False
) -> dict[str, Any]:
    """What FRAME says of the network of a run or a model directory, as a mapping.

    "tasks" is missing where nobody knows them, and empty of another system's network.
    A task whose "stage" is not noted has the last that the network has; one of
    attributes, of which nothing is noted, was taught all.

    Args:
      source: the run or the model directory.
      has: the tasks of which it is asked; others are left out.
      own: the run itself goes on: what it did not note is not filled in.

    Raises:
      ValueError: nothing there, or nothing that is known.
    """
    root = networks.locate(source)
    if "faceptor" not in opening.networks_of(root):
        return {"tasks": []}
    if networks.is_run(root):
        from gptface_jax.train import checkpoint  # Orbax takes a second to import

        meta = checkpoint.read_meta(root)
        stored, values = meta["extra_files"].get(FRAME), meta["config"]["model"]
    else:
        stored, values = _held(root), directory.read_config(root)["faceptor"]
    model = from_mapping(PerceptionConfig, values, "model.")
    try:
        content = dict(json.loads(stored)) if stored else {}
    except (ValueError, TypeError):
        content = {}
    tasks = content.get("tasks", [task.name for task in model.tasks])
    stage = dict.fromkeys(tasks, model.last_stage) | content.get("stage", {})
    every = {task: NAMES["celeba"] for task in tasks if task.startswith("biattr_")}
    every = {} if own else every
    taught = every | content.get("attributes", {})
    content["stage"] = {task: n for task, n in stage.items() if task in has}
    content["attributes"] = {task: x for task, x in taught.items() if task in has}
    if "tasks" in content:
        content["tasks"] = [task for task in tasks if task in has]
    return content


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
    levels, cell = transforms.palette_levels(codes), _PALETTE_CELL
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
        stages = {k: int(v) for k, v in content.get("stage", {}).items()}
        return kind(
            network, content["frame"], tokenise, card, dtype, taught,
            content.get("tasks"), stages, content.get("latest", ()),
        )  # fmt: skip
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"'{path}' has a {FRAME} that makes no sense") from None
