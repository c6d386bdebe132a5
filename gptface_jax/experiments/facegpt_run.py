"""A trained FaceGPT opened for inference, from a run or a model directory."""

from __future__ import annotations

import pathlib
from typing import Any, TypeVar

from gptface_jax.core.errors import UserError
from gptface_jax.data.facemodel import opening as face_models
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import gptface_run, opening
from gptface_jax.experiments.facegpt import FACE_MODEL
from gptface_jax.interop import directory
from gptface_jax.pipelines import networks
from gptface_jax.pipelines.faces3d import Face3DModel
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer

Model = TypeVar("Model", bound=Face3DModel)


def open_model(
    kind: type[Model], path: pathlib.Path, tokenizer: Any = None,
    dtype: str | None = None,
) -> Model:  # fmt: skip
    """A FaceGPT with its tokenizers and its face model from a folder.

    Args:
      kind: the class that they are opened as.
      path: a model directory, or the work folder of a run.
      tokenizer: for a run, the VQGAN of its config's data.tokenizer; default that.
      dtype: of the activations, see `apps.api.load`.

    Raises:
      UserError: damaged files, or networks that do not belong together.
    """
    network = opening.open_network(path, "facegpt")
    card, frame = "", None
    if networks.is_run(path):
        tokenizer = tokenizer or network.meta["config"]["data"]["tokenizer"]
        if not tokenizer:
            raise UserError(
                f"'{path}' was trained on codes of colours, by no tokenizer; it can be "
                "used by tests alone"
            )
        vqgan = opening.open_network(tokenizer, "vqgan")
        gptface_run.check_pair(vqgan, network, path)
        files = network.meta["extra_files"]
        vocab, heads = files["vocab.txt"].decode(), files[FACE_MODEL]
        frame = gptface_run.learnt_frame(network)
    else:
        vqgan, vocab = opening.open_network(path, "vqgan"), directory.read_vocab(path)
        frame = network.meta.get("frame")
        try:
            heads = (path / FACE_MODEL).read_bytes()
        except OSError as error:
            raise UserError(
                f"cannot read '{path / FACE_MODEL}': {error.strerror}; export the "
                "model again"
            ) from None
        if (path / "README.md").is_file():
            card = (path / "README.md").read_text("utf-8")
    return kind(
        network,
        ImageTokenizer(vqgan, dtype=dtype),
        TextTokenizer.from_vocab_text(vocab),
        face_models.unpacked(heads, path),
        frame,
        card,
        dtype,
    )
