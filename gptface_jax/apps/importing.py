"""Foreign checkpoints -> model directories."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Sequence

from gptface_jax.apps import exporting, model_cards
from gptface_jax.core import trees
from gptface_jax.core.config import to_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.core.version import __version__
from gptface_jax.data import label_sets
from gptface_jax.data.task_examples import TaskOptions
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import opening, talk2face
from gptface_jax.interop import directory, faceptor, taming, tencent
from gptface_jax.nn.perception import PerceptionConfig
from gptface_jax.nn.query_decoder import QueryDecoderConfig
from gptface_jax.pipelines import framing


def import_taming(
    checkpoint: str | os.PathLike, config: str | os.PathLike, out: str | os.PathLike
) -> list[str]:
    """Writes a model directory with the VQGAN of a taming checkpoint, float32.

    Args:
      checkpoint, config: see `interop.taming.load`.
      out: new folder.

    Returns:
      Lines for a person: what was matched, what was left aside, the config.

    Raises:
      UserError: see `interop.taming.read` and `interop.directory.write`.
    """
    found = taming.read(checkpoint, config)
    name = pathlib.Path(checkpoint).name
    facts = {
        "description": f"Imported from `{name}` of taming-transformers.",
        "origin": "Its licence and its limits are those of that checkpoint.",
    }
    source = {"imported": {"format": "taming", "checkpoint": name}}
    millions = exporting.write_tokenizer(
        out, found.config, found.params, facts, source=source, files={}, dtype="float32"
    )
    lines = [f"matched: {found.matched} weights, {millions['vqgan']:.2f} M parameters"]
    aside = [f"{count} of the {part}" for part, count in found.ignored.items()]
    lines.append(f"left aside: {', '.join(aside) or 'nothing'}")
    if found.never_met:
        lines.append(
            f"attn_resolutions {', '.join(map(str, found.never_met))}: never met at "
            f"resolution {found.config.resolution}, as in taming"
        )
    values = dataclasses.asdict(found.config)
    return [*lines, f"config: {', '.join(f'{k}={v}' for k, v in values.items())}"]


def import_tencent(
    checkpoint: str | os.PathLike,
    config: str | os.PathLike,
    out: str | os.PathLike,
    *,
    tokenizer: str | os.PathLike,
    vocab: str | os.PathLike,
    pixel_map: str = "double",
    frame: Sequence[Sequence[float]] | None = None,
) -> list[str]:
    """Writes a model directory with a Talk2Face of TencentPretrain, float32.

    It is asked about the data sets of the paper (`data.label_sets`).

    Args:
      checkpoint, config: see `interop.tencent.load`.
      out: new folder.
      tokenizer: the VQGAN of its codes: a run, model directory, bundled name or hub id;
        `import_taming` makes one.
      vocab: the text's vocab.txt, a folder with one, or a hub id.
      pixel_map: what that VQGAN's encoder is given of a picture, see `VQGANConfig`.
      frame: where its training pictures show a face, see `SeesFaces`; no checkpoint
        says it. None: the central square of a photo is taken as it is.

    Returns:
      Lines for a person: what was matched, and the config.

    Raises:
      UserError: see `interop.tencent.load`; a tokenizer or vocabulary of other sizes,
        or five points that are no frame.
    """
    points = framing.checked_frame(frame)
    model, params = tencent.load(checkpoint, config)
    text = TextTokenizer.from_pretrained(vocab)
    vqgan = opening.open_network(tokenizer, "vqgan")
    try:
        pixels = dataclasses.replace(vqgan.config, pixel_map=pixel_map)
    except ValueError as error:
        raise UserError(str(error)) from None
    for what, wanted, given, source in (
        ("words", model.vocab.text_size, text.size, vocab),
        ("codes", model.vocab.codebook_size, pixels.codebook_size, tokenizer),
        ("grid", list(model.grid), list(pixels.grid), tokenizer),
    ):
        if wanted != given:
            raise UserError(
                f"the transformer's {what}: {wanted}, those of '{source}': {given}; "
                "give what it was trained with, or its codebook_size and grid in the "
                "config"
            )
    # Its special ids are the vocabulary's.
    joint = text.joint_vocab(pixels.codebook_size, multiple_of=1)
    model = dataclasses.replace(model, vocab=joint)
    name = pathlib.Path(checkpoint).name
    known = {
        "library_version": __version__,
        "talk2face": to_mapping(model),
        "vqgan": to_mapping(pixels),
        "imported": {"format": "tencent", "checkpoint": name},
    }
    if points is not None:
        known["frame"] = exporting.plain_frame(points)
    card = model_cards.IMPORTED.format(
        name=pathlib.Path(out).name,
        checkpoint=name,
        version=__version__,
        millions=trees.count(params) / 1e6,
        pixel_map=pixel_map,
    )
    paper = {name: label_sets.TABLE[name] for name in label_sets.PAPER}
    files = {
        **text.files(model.length),
        talk2face.LABEL_SETS: talk2face.learnt_labels(paper, TaskOptions()),
        "README.md": card.encode(),
    }
    weights = {"talk2face": params, "vqgan": vqgan.params}
    directory.write(out, known, weights, files, "float32")
    tensors = len(tencent.to_state_dict(model, params))
    values = ", ".join(f"{k}={v}" for k, v in to_mapping(model).items())
    return [
        f"matched: {tensors} weights, {trees.count(params) / 1e6:.2f} M parameters",
        f"pixel_map: {pixel_map}",
        f"config: {values}",
    ]


def import_faceptor(
    checkpoint: str | os.PathLike, config: str | os.PathLike, out: str | os.PathLike
) -> list[str]:
    """Writes a model directory with a released Faceptor, or a naive one, float32.

    Args:
      checkpoint, config: see `interop.faceptor.load`.
      out: new folder.

    Returns:
      Lines for a person: what was matched, and the tasks.

    Raises:
      UserError: see `interop.faceptor.load` and `interop.directory.write`.
    """
    model, params, state = faceptor.load(checkpoint, config)
    names = ", ".join(task.name for task in model.tasks)
    _write_perception(out, checkpoint, "faceptor", model, {**params, **state})
    return [
        f"matched: {len(faceptor.to_state_dict(model, params, state))} weights, "
        f"{trees.count(params) / 1e6:.2f} M parameters",
        f"design: {model.design}, stage {model.last_stage}",
        f"tasks: {names}",
    ]


def import_farl(checkpoint: str | os.PathLike, out: str | os.PathLike) -> list[str]:
    """Writes a model directory with the encoder of a FaRL, to start a Faceptor from.

    Args:
      checkpoint: see `interop.faceptor.load_farl`.
      out: new folder.

    Returns:
      Lines for a person: what was matched.

    Raises:
      UserError: see `interop.faceptor.load_farl` and `interop.directory.write`.
    """
    vit, params = faceptor.load_farl(checkpoint)
    last = vit.transformer.num_layers - 1
    model = PerceptionConfig(
        vit=vit, decoder=QueryDecoderConfig(levels=(last,)), source_level=last
    )
    _write_perception(out, checkpoint, "farl", model, {"backbone": params})
    return [
        f"matched: {trees.count(params) / 1e6:.2f} M parameters of the encoder of "
        f"pictures; the text tower was left aside",
        "start from it: gptface train --config configs/faceptor/base.py "
        f"--config.init_from={out}",
    ]


def _write_perception(out, checkpoint, kind: str, model, params) -> None:
    name = pathlib.Path(checkpoint).name
    known = {
        "library_version": __version__,
        "faceptor": to_mapping(model),
        "imported": {"format": kind, "checkpoint": name},
    }
    card = model_cards.PERCEPTION.format(
        name=pathlib.Path(out).name,
        checkpoint=name,
        version=__version__,
        millions=trees.count(params) / 1e6,
        tasks=", ".join(task.name for task in model.tasks) or "none",
    )
    files = {"README.md": card.encode()}
    directory.write(out, known, {"faceptor": params}, files, "float32")
