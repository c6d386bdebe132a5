"""Experiments that train a Talk2Face on cached codes, captions and labels."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from gptface_jax.core.config import from_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.core.types import System
from gptface_jax.core.vocab import round_up
from gptface_jax.data import label_templates, label_text
from gptface_jax.data.age_tokens import REACH
from gptface_jax.data.label_text import DataSet
from gptface_jax.data.packing import PackingOptions
from gptface_jax.data.record import Record
from gptface_jax.data.task_examples import EachTask, TaskOptions, all_tasks
from gptface_jax.data.tasks import (
    interleaved,
    task_sources,
    tasks_of,
    vocabulary_texts,
)
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import base, previews, registry, starting, token_data
from gptface_jax.nn.prefix_lm import PrefixLM, PrefixLMConfig
from gptface_jax.systems import talk2face
from gptface_jax.systems.talk2face import objective
from gptface_jax.train import settings, sharding

# In a run's and a model's folder: what the model was trained to say.
LABEL_SETS = "label_sets.json"


def prepare(config: Any, data: base.DataConfig, workdir: str | os.PathLike):
    """The vocabulary; one that is learnt can spell all that labels may say."""
    table = label_templates.open_table(data.label_sets)

    def texts(records):
        # All keys of their data sets: these records may lack one that few have.
        present = {name: table[name] for name in used(records, table)}
        # As often as a piece must be met to be learnt.
        return 50 * vocabulary_texts(present, data.tasks.edits)

    return token_data.text_tokenizer(config, data, workdir, texts)


def used(records: Sequence[Record], table: Mapping[str, DataSet]) -> dict[str, DataSet]:
    """The data sets that records belong to, and the keys that any of them has."""
    said: dict[str, set[str]] = {}
    for record in records:
        if data_set := label_text.data_set_of(record, table):
            keys = said.setdefault(data_set.name, set())
            keys |= {key for key, _ in data_set.pairs(record)}
    return with_keys(said, table)


def with_keys(
    said: Mapping[str, set[str]], table: Mapping[str, DataSet]
) -> dict[str, DataSet]:
    """The data sets of a table, of each the keys that are named."""
    return {
        name: dataclasses.replace(
            table[name], keys=tuple(k for k in table[name].keys if k.name in said[name])
        )
        for name in table
        if name in said
    }


def make(config: Mapping[str, Any], codebook: Any = None) -> System:
    """The system of an experiment config; `codebook` as of `make_system`."""
    options = config["data"].get("tasks", {})
    packing = from_mapping(
        PackingOptions, config["data"].get("packing", {}), "data.packing."
    )
    ordinal = options.get("age_tokens") == "ordinal"
    tasks = tasks_of(options.get("edits", False))
    return talk2face.make_system(
        config, codebook, tasks, (2 * REACH + 1) * ordinal,
        (packing.length, packing.most),
    )  # fmt: skip


def _build(
    config: Any, data: base.DataConfig, tokenizer: TextTokenizer
) -> base.Experiment:
    config = config.copy_and_resolve_references()
    token_data.set_vocab(config, tokenizer)
    values = fitted(config)
    model = from_mapping(PrefixLMConfig, values["model"], "model.")
    found = examples(base.data_config(values), tokenizer, model)
    return base.experiment(
        config,
        data,
        make(values, found.codes.codebook),
        {objective.FEED: found.records},
        {"eval": found.held_out},
        extra_files={
            "vocab.txt": tokenizer.vocab_text().encode(),
            **found.codes.files,
            **found.files,
        },
        samples=found.samples,
    )


def fitted(config: Any) -> dict[str, Any]:
    """The config with sequences as long as the mesh divides, if it splits them.

    A run is saved with the config as it was given: it may go on on another mesh.
    """
    ways = sharding.ways(
        "length", *sharding.open_mesh(settings.read_settings(config).mesh)
    )
    values = settings.plain(config)
    values["model"]["length"] = round_up(values["model"]["length"], ways)
    if packed := values["data"].get("packing", {}).get("length", 0):
        values["data"]["packing"]["length"] = round_up(packed, ways)
    return values


def examples(
    data: base.DataConfig, tokenizer: TextTokenizer, model: PrefixLMConfig
) -> token_data.Examples:
    """Sequences of the four tasks.

    Args:
      data: section of the config, with sources of captions and labels.
      tokenizer: of the text.
      model: that is trained.

    Raises:
      UserError: data that cannot be opened, or that are not the model's.
    """
    source, eval_source, pool = token_data.open_sources(data)
    codes = token_data.open_codes(
        data, model.grid, model.vocab.codebook_size, source, pool
    )
    table = label_templates.open_table(data.label_sets)

    said: dict[str, set[str]] = {}

    def records(pool: Sequence[Record], options: TaskOptions, keys=None):
        found = task_sources(
            pool, options.captions, table, edits=options.edits, keys=keys,
            needed=data.tasks.turns,
        )  # fmt: skip
        options = dataclasses.replace(options, turns=options.turns or (*found,))
        each = all_tasks(tokenizer, model.vocab, model.length, options, table)
        return base.Records(
            interleaved(found, options.turns),
            EachTask(tuple(map(codes.with_codes, each.transforms))),
        )

    options = dataclasses.replace(data.tasks, captions=data.captions)
    packing = data.packing if data.packing.length else None
    if packing and packing.length < model.length:
        raise UserError(
            f"data.packing.length is {packing.length}, and a sequence may have "
            f"model.length {model.length} tokens; make rows at least as long"
        )
    feed = dataclasses.replace(records(source, options, said), packing=packing)
    held_out = None
    if eval_source is not None:
        options = dataclasses.replace(options, captions=data.eval_captions, turns=())
        held_out = records(eval_source, options)
    samples = None
    turns = data.tasks.turns or tasks_of(data.tasks.edits)
    if data.tokenizer and "caption_to_image" in turns:
        number = turns.index("caption_to_image")
        drawn = base.Records(
            feed.source.sources[number], feed.transform.transforms[number]
        )
        shown = base.first_examples(drawn, previews.NUM_EDITS)
        vqgan = token_data.tokenizer_of(data.tokenizer, source)
        samples = previews.syntheses(PrefixLM(model), vqgan, tokenizer, shown)
    files = {LABEL_SETS: learnt_labels(with_keys(said, table), data.tasks)}
    return token_data.Examples(feed, held_out, codes, samples, files)


def learnt_labels(data_sets: Mapping[str, DataSet], options: TaskOptions) -> bytes:
    """Content of label_sets.json, as `pipelines.sequence_model.Learnt` reads it."""
    content = {
        "data_sets": label_templates.to_mapping(data_sets),
        "age_tokens": options.age_tokens,
        "max_prefix": options.max_prefix,
        "edits": options.edits,
        "name_data_sets": options.name_data_sets,
    }
    return (json.dumps(content, indent=1) + "\n").encode()


ROW = registry.Row(
    config=PrefixLMConfig,
    module=PrefixLM,
    inputs=lambda config: (jnp.zeros((1, config.length), jnp.int32),),
    method="init_all",
    make=make,
    prepare=prepare,
    build=_build,
    start=starting.started,
    starts_from=("gptface",),
    beside=("vqgan",),
    files=("vocab.txt", LABEL_SETS),
    facade="gptface_jax.apps.sequence_api:open_model",
    verbs=("synthesize", "caption", "ask", "answers"),
    guide="docs/talk2face.md",
)
