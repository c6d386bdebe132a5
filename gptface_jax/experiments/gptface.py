"""Experiments that train a GPTFace on cached codes and texts."""

from __future__ import annotations

import logging
import math
from typing import Any

import jax.numpy as jnp

from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping
from gptface_jax.core.types import Params
from gptface_jax.data import attribute_questions, transforms
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import base, previews, registry, starting, token_data
from gptface_jax.nn.sequence import SequenceLayout
from gptface_jax.systems import gptface
from gptface_jax.systems.gptface.model import GPTFace, GPTFaceConfig
from gptface_jax.train import settings, sharding

log = logging.getLogger(__name__)


def _build(
    config: Any, data: base.DataConfig, tokenizer: TextTokenizer
) -> base.Experiment:
    config = config.copy_and_resolve_references()
    token_data.set_vocab(config, tokenizer)
    fit_length(config)
    values = settings.plain(config)
    model = from_mapping(GPTFaceConfig, values["model"], "model.")
    found = examples(data, tokenizer, model)
    codebook = found.codes.codebook
    return base.experiment(
        config,
        data,
        gptface.make_system(values, codebook, attribute_questions.ATTRIBUTES),
        {"pairs": found.records},
        {"eval": found.held_out},
        extra_files={
            "vocab.txt": tokenizer.vocab_text().encode(), **found.codes.files
        },
        samples=found.samples,
    )  # fmt: skip


def examples(
    data: base.DataConfig, tokenizer: TextTokenizer, model: GPTFaceConfig
) -> token_data.Examples:
    """Pictures with a text that belongs and one that does not.

    Args:
      data: section of the config, with sources of pairs.
      tokenizer: of the text.
      model: that is trained.

    Raises:
      UserError: data that cannot be opened, or that are not the model's.
    """
    source, eval_source, pool = token_data.open_sources(data)
    layout, slots = model.layout, model.layout.max_text_tokens
    codes = token_data.open_codes(
        data, layout.grid, model.vocab.codebook_size, source, pool
    )

    def transform(pool, options):
        plain = transforms.TokenTransform(tokenizer, slots, pool, options)
        return codes.with_codes(plain)

    def asked(records):
        if not data.eval_captions.from_labels:
            return {}
        return attribute_questions.questions(records, tokenizer, slots)

    eval_transform = transform(pool, data.eval_captions)
    samples = None
    if data.tokenizer:
        shown = base.Records(pool, eval_transform)
        samples = previews.edits(
            GPTFace(model),
            token_data.tokenizer_of(data.tokenizer, source),
            tokenizer,
            base.first_examples(shown, previews.NUM_EDITS),
        )
    held_out = None
    if eval_source is not None:
        held_out = base.Records(eval_source, eval_transform, asked)
    records = base.Records(source, transform(source, data.captions))
    return token_data.Examples(records, held_out, codes, samples)


def fit_length(config) -> None:
    """Pads sequences to what the mesh divides, if it splits them."""
    mesh, rules = sharding.open_mesh(settings.read_settings(config).mesh)
    ways = sharding.ways("length", mesh, rules)
    layout = config["model"]["layout"]
    length = from_mapping(SequenceLayout, settings.plain(layout)).length
    if length % ways:
        padded = math.lcm(ways, layout.get("multiple_of", 1))
        with config.unlocked():
            layout["multiple_of"] = padded
        log.warning(
            "sequences of %d do not divide by the %d devices that split the length; "
            "they get [PAD] up to a multiple of %d",
            length,
            ways,
            padded,
        )


def note(shapes: Params) -> str:
    """How many parameters the layers have, and all."""
    body = trees.count(shapes["transformer"])
    return (
        f"body (layers and final norm) {body / 1e6:.2f} M, with tied embeddings "
        f"and heads {trees.count(shapes) / 1e6:.2f} M"
    )


ROW = registry.Row(
    config=GPTFaceConfig,
    module=GPTFace,
    inputs=lambda config: (jnp.zeros((1, config.layout.length), jnp.int32),),
    method="init_all",
    make=gptface.make_system,
    prepare=token_data.text_tokenizer,
    build=_build,
    start=starting.started,
    note=note,
    beside=("vqgan",),
    files=("vocab.txt",),
    facade="gptface_jax.apps.api:open_model",
    verbs=("edit", "inpaint", "restore", "stitch", "tag", "caption"),
    guide="docs/guide.md",
)
