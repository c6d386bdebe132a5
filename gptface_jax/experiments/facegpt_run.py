"""A trained FaceGPT opened for inference, from a run or a model directory."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any, TypeVar

from gptface_jax.core.errors import UserError
from gptface_jax.data.facemodel import opening as face_models
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import gptface_run, opening, talk2face_run
from gptface_jax.experiments.facegpt import FACE_MODEL
from gptface_jax.experiments.talk2face import LABEL_SETS
from gptface_jax.interop import directory
from gptface_jax.pipelines import networks
from gptface_jax.pipelines.face_answers import ChatModel
from gptface_jax.pipelines.faces3d import Face3DModel
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer

Model = TypeVar("Model", bound=Face3DModel)
Chat = TypeVar("Chat", bound=ChatModel)


def open_model(
    kind: Callable[..., Model], path: pathlib.Path, tokenizer: Any = None,
    dtype: str | None = None, system: str = "facegpt",
) -> Model:  # fmt: skip
    """A FaceGPT with its tokenizers and its face model from a folder.

    Args:
      kind: the class that they are opened as.
      path: a model directory, or the work folder of a run.
      tokenizer: for a run, the VQGAN of its config's data.tokenizer; default that.
      dtype: of the activations, see `apps.api.load`.
      system: "facegpt", or one that is a FaceGPT and more.

    Raises:
      UserError: damaged files, or networks that do not belong together.
    """
    network = opening.open_network(path, system)
    card = ""
    if networks.is_run(path):
        vqgan = gptface_run.vqgan_of_run(network, tokenizer, path)
        vocab = kept_file(network, path, "vocab.txt").decode()
    else:
        vqgan, vocab = opening.open_network(path, "vqgan"), directory.read_vocab(path)
        if (path / "README.md").is_file():
            card = (path / "README.md").read_text("utf-8")
    trained = networks.experiment(network, system)
    faces = trained.get("objective", {}).get("faces", {})
    captions = trained.get("data", {}).get("captions", {})
    return kind(
        network,
        ImageTokenizer(vqgan, dtype=dtype),
        TextTokenizer.from_vocab_text(vocab),
        face_models.unpacked(kept_file(network, path, FACE_MODEL), path),
        None,  # heads lie as the face model's own does, wherever edits bring faces
        card,
        dtype,
        faces.get("with_text", 0.0),
        captions.get("empty_fraction", 0.0),
    )


def open_chat(
    kind: Callable[..., Chat], path: pathlib.Path, tokenizer: Any = None,
    dtype: str | None = None,
) -> Chat:  # fmt: skip
    """A FaceGPT that answers; arguments as of `open_model`."""

    def made(network, *rest):
        learnt = kept_file(network, path, LABEL_SETS).decode()
        return kind(network, *rest, learnt=talk2face_run.learnt_of(path, learnt))

    return open_model(made, path, tokenizer, dtype, "chat")


def kept_file(network: networks.Network, path: pathlib.Path, name: str) -> bytes:
    """Content of a file that the network's run, or its model directory, keeps.

    Raises:
      UserError: it cannot be read.
    """
    if networks.is_run(path):
        return network.meta["extra_files"][name]
    try:
        return (path / name).read_bytes()
    except OSError as error:
        raise UserError(
            f"cannot read '{path / name}': {error.strerror}; export the model again"
        ) from None
