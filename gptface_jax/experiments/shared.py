"""Experiments that train one set of weights as GPTFace and as Talk2Face (SPEC E.16).

A step draws a batch of each: pairs, with the whole sequence seen both ways, and
sequences, whose targets are written from left to right. Embedding, layers and output
are the same, with GPTFace's parameter paths, so that released weights stay valid.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp

from gptface_jax.core.config import from_mapping, part_of, to_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.core.types import Metrics, Phase, System
from gptface_jax.data import attribute_questions
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import (
    base,
    gptface,
    gptface_run,
    opening,
    registry,
    starting,
    talk2face,
    token_data,
)
from gptface_jax.nn.prefix_lm import PrefixLMConfig
from gptface_jax.pipelines.networks import Network
from gptface_jax.systems import gptface as gptface_system
from gptface_jax.systems.gptface.model import GPTFace, GPTFaceConfig
from gptface_jax.systems.gptface.objective import ObjectiveConfig
from gptface_jax.systems.talk2face import objective as sequence_objective
from gptface_jax.train import settings

# Feed -> the system whose objective it serves.
PARTS = {"pairs": "gptface", sequence_objective.FEED: "talk2face"}


@dataclasses.dataclass(frozen=True)
class SharedConfig(GPTFaceConfig):
    """The model: besides what GPTFace has

    Attributes:
      segments: rows of the segment table; GPTFace's sequences use row 0.
      length: most positions of a sequence of Talk2Face.
    """

    segments: int = 3
    length: int = 334

    def __post_init__(self):
        super().__post_init__()
        _ = self.sequences  # which checks the rest

    @property
    def pairs(self) -> GPTFaceConfig:
        """GPTFace as it is trained on pairs."""
        return part_of(self, GPTFaceConfig)

    @property
    def sequences(self) -> PrefixLMConfig:
        """Talk2Face, whose image tokens have the position rows of GPTFace's."""
        return part_of(
            self, PrefixLMConfig, grid=self.layout.grid, positions="by_modality"
        )


@dataclasses.dataclass(frozen=True)
class SharedObjective:
    """Options of the loss.

    Attributes:
      pairs: GPTFace's objective.
      sequences: Talk2Face's.
      weights: of a scored token of pairs, and of one of sequences.
    """

    pairs: ObjectiveConfig = ObjectiveConfig()
    sequences: sequence_objective.ObjectiveConfig = sequence_objective.ObjectiveConfig()
    weights: tuple[float, float] = (1.0, 1.0)


def part(config: Mapping[str, Any], feed: str) -> dict[str, Any]:
    """The experiment config of one of the two systems alone.

    Args:
      config: of a shared experiment.
      feed: of `PARTS`.
    """
    model = from_mapping(SharedConfig, config["model"], "model.")
    data = config["data"]
    options = {
        name: base.of_feed(data.get(name), feed, tuple(PARTS))
        for name in ("train", "eval")
    }
    if feed == sequence_objective.FEED:
        options["captions"] = data.get("tasks", {}).get("captions", {})
    return {
        **config,
        "system": PARTS[feed],
        "model": to_mapping(getattr(model, feed)),
        "objective": config["objective"].get(feed, {}),
        "data": {**data, **options},
    }


def make(
    config: Mapping[str, Any], codebook: Any = None, attributes: tuple[str, ...] = ()
) -> System:
    """The system of an experiment config; see `systems.gptface.make_system`."""
    wanted = from_mapping(SharedObjective, config["objective"], "objective.")
    pairs, sequences = (part(config, feed) for feed in PARTS)
    first = gptface_system.make_system(pairs, codebook, attributes)
    second = talk2face.make(sequences)
    parts = dict(zip(PARTS, (first, second)))

    def loss_fn(params, state, *given):
        losses, found = base.losses_of(parts, params, state, *given)
        shares = _shares(found, wanted.weights)
        return jnp.sum(shares * jnp.stack(losses)), (state, found)

    return System(
        name="shared",
        init=first.init,
        feeds={**first.feeds, **second.feeds},
        phases=(Phase("", ".*", loss_fn),),
        evaluations={name: s.evaluations["eval"] for name, s in parts.items()},
        unit=first.unit,
        whole_batch=first.whole_batch,
        resumable=tuple({**dict.fromkeys(first.resumable + second.resumable)}),
    )


def _shares(metrics: Metrics, weights: tuple[float, float]) -> Any:
    """Factors of the two losses, float32 [2], which add up to 2.

    Each is a mean over its scored tokens, of which all are to count the same. GPTFace
    scores none while it learns to match alone; then both count half.
    """
    tokens = jnp.stack(
        [
            metrics[f"{feed}/image_nll"][1] + metrics[f"{feed}/text_nll"][1]
            for feed in PARTS
        ]
    )
    tokens = jnp.where(jnp.all(tokens > 0), tokens, 1.0) * jnp.asarray(weights)
    return 2 * tokens / jnp.sum(tokens)


def _build(
    config: Any, data: base.DataConfig, tokenizer: TextTokenizer
) -> base.Experiment:
    config = config.copy_and_resolve_references()
    token_data.set_vocab(config, tokenizer)
    gptface.fit_length(config)
    values = talk2face.fitted(config)
    model = from_mapping(SharedConfig, values["model"], "model.")
    pairs = gptface.examples(_data(values, "pairs"), tokenizer, model.pairs)
    sequences = talk2face.examples(
        _data(values, sequence_objective.FEED), tokenizer, model.sequences
    )
    if pairs.codes.digest != sequences.codes.digest:
        raise UserError(
            "pairs and sequences are codes of different tokenizers, "
            f"{pairs.codes.digest} and {sequences.codes.digest}; run `gptface "
            "tokenize` with one"
        )
    both = dict(zip(PARTS, (pairs, sequences)))
    drawn = [found.samples for found in both.values() if found.samples]

    def samples(params, state):
        return {k: v for draw in drawn for k, v in draw(params, state).items()}

    system = make(values, pairs.codes.codebook, attribute_questions.ATTRIBUTES)
    return base.experiment(
        config,
        data,
        system,
        {name: found.records for name, found in both.items()},
        {name: found.held_out for name, found in both.items()},
        extra_files={
            "vocab.txt": tokenizer.vocab_text().encode(),
            **pairs.codes.files,
            **sequences.files,
        },
        samples=samples if drawn else None,
    )


def _data(config: Mapping[str, Any], feed: str) -> base.DataConfig:
    return base.data_config(part(config, feed))


def _prepare(config: Any, data: base.DataConfig, workdir: Any) -> TextTokenizer:
    """The vocabulary, of the sequences' captions and labels."""
    del data
    values = settings.plain(config)
    return talk2face.prepare(config, _data(values, sequence_objective.FEED), workdir)


def _sequences_of(network: Network) -> Network:
    feed = sequence_objective.FEED
    alone = functools.partial(part, feed=feed)
    config = network.config.sequences
    return opening.as_part(network, "shared", PARTS[feed], config, alone)


def _pairs_of(network: Network) -> Network:
    alone = functools.partial(part, feed="pairs")
    config = network.config.pairs
    found = opening.as_part(network, "shared", PARTS["pairs"], config, alone)
    return gptface_run.with_learnt_options(found)


ROW = registry.Row(
    config=SharedConfig,
    module=GPTFace,
    inputs=gptface.ROW.inputs,
    method=gptface.ROW.method,
    make=make,
    prepare=_prepare,
    build=_build,
    start=starting.started,
    starts_from=("gptface",),
    parts={"gptface": _pairs_of, "talk2face": _sequences_of},
    note=gptface.note,
    beside=("vqgan",),
    files=talk2face.ROW.files,
)
