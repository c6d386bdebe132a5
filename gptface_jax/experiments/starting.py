"""Runs on codes and words that begin with a network that was trained before."""

from __future__ import annotations

import os
from typing import Any

import jax
import numpy as np

from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.core.types import Params
from gptface_jax.core.vocab import JointVocab
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import registry
from gptface_jax.interop import directory
from gptface_jax.pipelines.networks import Network, is_run, locate
from gptface_jax.train import settings, sharding

# Parameters with a row, or an element, for each joint id.
_JOINT = ("tokens/embedding", "tokens/output", "tokens/output_bias")
# The same for words alone; the last axis counts them.
_WORDS = ("word_bag/kernel", "word_bag/bias")


def vocabulary_of(path: str | os.PathLike) -> TextTokenizer:
    """The vocabulary that a run or a model directory keeps.

    Raises:
      UserError: nothing there, or nothing with a vocabulary.
    """
    root = locate(path)
    if not is_run(root):
        return TextTokenizer.from_vocab_text(directory.read_vocab(root))
    from gptface_jax.train import checkpoint  # Orbax takes a second to import

    files = checkpoint.read_meta(root)["extra_files"]
    if "vocab.txt" not in files:
        raise UserError(f"'{path}' is a run without a vocabulary of texts")
    return TextTokenizer.from_vocab_text(files["vocab.txt"].decode())


def started(network: Network, experiment: Any) -> Params:
    """The parameters of a `nn.backbone` model, as a run begins with them.

    Rows of its tables go where their word, code or position is in the run's model;
    rows of words and positions that it does not know are as in a new run. Heads of
    another system, such as GPTFace's for matching, are left out.

    Args:
      network: of `init_from`.
      experiment: the `base.Experiment`; it keeps a vocab.txt.

    Raises:
      UserError: another grid of image tokens, or other codes.
    """
    model = settings.plain(experiment.config)["model"]
    vocab = from_mapping(JointVocab, model["vocab"])
    for what, before, now in (
        ("grid", _grid(settings.plain(network.config)), _grid(model)),
        ("codebook_size", network.config.vocab.codebook_size, vocab.codebook_size),
    ):
        if before != now:
            raise UserError(
                f"init_from: {what} is {before} there and {now} in this model; "
                "start from a network on the same image tokens"
            )
    text = experiment.extra_files["vocab.txt"].decode()
    known = vocabulary_of(experiment.config["init_from"])
    words = known.places_in(TextTokenizer.from_vocab_text(text))
    joint = joint_places(words, network.config.vocab, vocab)
    fresh = jax.jit(lambda key: sharding.unbox(experiment.system.init(key)))
    fresh = trees.flatten(fresh(jax.random.key(experiment.config["seed"])))
    found = {}
    own = registry.row(registry.named(experiment.config))
    foreign = not isinstance(network.config, own.config)
    for name, value in trees.flatten(network.params).items():
        if foreign and name not in fresh:
            continue
        if name in _JOINT:
            value = _moved(value, fresh[name], joint)
        elif name in _WORDS:
            value = _moved(value.T, fresh[name].T, words).T
        elif name == "tokens/position" and len(value) < len(fresh[name]):
            value = _moved(value, fresh[name], np.arange(len(value)))
        found[name] = value
    return trees.unflatten(found)


def joint_places(words: np.ndarray, before: JointVocab, now: JointVocab) -> np.ndarray:
    """Where each joint id of a vocabulary is in another one, -1 for nowhere; int.

    Args:
      words: the same for its words.
      before, now: the two, with the same codes. Tokens of 3D faces are the same where
        there are as many.
    """
    faces = now.size + np.arange(before.face_tokens)
    if before.face_tokens != now.face_tokens:
        faces = np.full(before.face_tokens, -1)
    codes = now.image_to_joint(np.arange(now.codebook_size))
    return np.concatenate([words, codes, faces])


def _grid(model: Any) -> list[int]:
    return list(model["grid"] if "grid" in model else model["layout"]["grid"])


def _moved(rows: np.ndarray, table: jax.Array, places: np.ndarray) -> np.ndarray:
    """A table with the first rows of another one at these places, -1 for nowhere."""
    table = np.array(table)
    there = places >= 0
    table[places[there]] = rows[: len(places)][there]
    return table
