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
from gptface_jax.experiments import base, previews, registry, token_data
from gptface_jax.nn.sequence import SequenceLayout
from gptface_jax.systems import gptface
from gptface_jax.systems.gptface.model import GPTFace, GPTFaceConfig
from gptface_jax.train import settings, sharding

log = logging.getLogger(__name__)


def _build(
    config: Any, data: base.DataConfig, tokenizer: TextTokenizer
) -> base.Experiment:
    config = config.copy_and_resolve_references()
    source, eval_source = (
        opener(data, token_data.CACHE) for opener in (base.open_train, base.open_eval)
    )
    grid = tuple(config["model"]["layout"]["grid"])
    codes = config["model"]["vocab"]["codebook_size"]
    eval_pool = source if eval_source is None else eval_source
    found = token_data.open_codes(data, grid, codes, source, eval_pool)
    extra = {"vocab.txt": tokenizer.vocab_text().encode(), **found.files}
    token_data.set_vocab(config, tokenizer)
    _fit_length(config)
    values = settings.plain(config)
    system = gptface.make_system(values, found.codebook, attribute_questions.ATTRIBUTES)
    slots = config["model"]["layout"]["max_text_tokens"]

    def transform(pool, options):
        plain = transforms.TokenTransform(tokenizer, slots, pool, options)
        return found.with_codes(plain)

    def asked(records):
        if not data.eval_captions.from_labels:
            return {}
        return attribute_questions.questions(records, tokenizer, slots)

    eval_transform = transform(eval_pool, data.eval_captions)
    samples = None
    if data.tokenizer:
        model = from_mapping(GPTFaceConfig, values["model"], "model.")
        shown = base.Records(eval_pool, eval_transform)
        samples = previews.edits(
            GPTFace(model),
            token_data.tokenizer_of(data.tokenizer, source),
            tokenizer,
            base.first_examples(shown, previews.NUM_EDITS),
        )
    held_out = None
    if eval_source is not None:
        held_out = base.Records(eval_source, eval_transform, asked)
    return base.experiment(
        config,
        data,
        system,
        {"pairs": base.Records(source, transform(source, data.captions))},
        {"eval": held_out},
        extra_files=extra,
        samples=samples,
    )


def _fit_length(config) -> None:
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


def _note(shapes: Params) -> str:
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
    note=_note,
    beside=("vqgan",),
    files=("vocab.txt",),
    facade="gptface_jax.apps.api:open_model",
    verbs=("edit", "inpaint", "restore", "stitch", "tag", "caption"),
)
