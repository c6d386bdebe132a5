"""A trained Talk2Face opened for inference, from the work folder of its run."""

from __future__ import annotations

import json
import os

from gptface_jax.core.errors import UserError
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import gptface_run, opening
from gptface_jax.experiments.talk2face import LABEL_SETS
from gptface_jax.pipelines import networks
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer
from gptface_jax.pipelines.sequence_model import Learnt, SequenceModel


def open_run(path: str | os.PathLike, tokenizer: str | os.PathLike) -> SequenceModel:
    """A Talk2Face with its tokenizers.

    Args:
      path: work folder of its training run.
      tokenizer: the VQGAN that made its token cache: a run, model directory, bundled
        name or hub id.

    Raises:
      UserError: no such run, or networks that do not belong together.
    """
    network = opening.open_network(path, "talk2face")
    if not networks.is_run(networks.locate(path)):
        raise UserError(f"'{path}' is no training run; give one of a Talk2Face")
    vqgan = opening.open_network(tokenizer, "vqgan")
    gptface_run.check_pair(vqgan, network, path)
    files = network.meta["extra_files"]
    return SequenceModel(
        network,
        ImageTokenizer(vqgan),
        TextTokenizer.from_vocab_text(files["vocab.txt"].decode()),
        Learnt.from_json(json.loads(files[LABEL_SETS])),
        gptface_run.learnt_frame(network),
    )
