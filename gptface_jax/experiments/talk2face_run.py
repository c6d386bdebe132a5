"""A trained Talk2Face opened for inference, from a run or a model directory."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any, TypeVar

from gptface_jax.core.errors import UserError
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import gptface_run, opening
from gptface_jax.experiments.talk2face import LABEL_SETS
from gptface_jax.interop import directory
from gptface_jax.pipelines import networks
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer
from gptface_jax.pipelines.sequence_model import Learnt, SequenceModel

Model = TypeVar("Model", bound=SequenceModel)


def open_run(path: str | os.PathLike, tokenizer: str | os.PathLike) -> SequenceModel:
    """A Talk2Face with its tokenizers; arguments as of `open_model`."""
    return open_model(SequenceModel, networks.locate(path), tokenizer)


def open_model(
    kind: type[Model], path: pathlib.Path, tokenizer: Any = None,
    dtype: str | None = None,
) -> Model:  # fmt: skip
    """A Talk2Face with its tokenizers from a folder.

    Args:
      kind: the class that they are opened as.
      path: a model directory, or the work folder of a run.
      tokenizer: for a run, the VQGAN that made its token cache: a run, model
        directory, bundled name or hub id; default that of its config (data.tokenizer).
      dtype: of the activations, see `apps.api.load`.

    Raises:
      UserError: damaged files, or networks that do not belong together.
    """
    network = opening.open_network(path, "talk2face")
    card = ""
    if networks.is_run(path):
        vqgan = gptface_run.vqgan_of_run(network, tokenizer, path)
        files = network.meta["extra_files"]
        vocab, learnt = files["vocab.txt"].decode(), files[LABEL_SETS].decode()
        frame = gptface_run.learnt_frame(network)
    else:
        vqgan = opening.open_network(path, "vqgan")
        vocab, learnt = directory.read_vocab(path), _read(path, LABEL_SETS)
        frame = network.meta.get("frame")
        card = _read(path, "README.md") if (path / "README.md").is_file() else ""
    return kind(
        network,
        ImageTokenizer(vqgan, dtype=dtype),
        TextTokenizer.from_vocab_text(vocab),
        learnt_of(path, learnt),
        frame,
        card,
        dtype,
        network.meta.get("synthesis"),
    )


def _read(path: pathlib.Path, name: str) -> str:
    try:
        return (path / name).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UserError(
            f"cannot read '{path / name}': {reason}; export the model again"
        ) from None


def learnt_of(path: pathlib.Path, text: str) -> Learnt:
    """What a model was trained to say, by the text of its label_sets.json.

    Raises:
      UserError: text that makes no sense.
    """
    try:
        return Learnt.from_json(json.loads(text))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(
            f"'{path}' has a {LABEL_SETS} that makes no sense ({error}); export the "
            "model again"
        ) from None
