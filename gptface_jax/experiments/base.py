"""What experiments have in common: data of a config, opened and made into feeds."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping
from gptface_jax.core.errors import Missing, UserError
from gptface_jax.core.types import Metrics, Phase, System
from gptface_jax.data import (
    fingerprint,
    pipeline,
    sources,
    task_examples,
    transforms,
)
from gptface_jax.data.facemodel import opening
from gptface_jax.data.packing import PackingOptions
from gptface_jax.data.record import Record
from gptface_jax.train import checkpoint_meta, metrics, settings, sharding


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The `data` section of an experiment config.

    Attributes:
      train, eval: specs for `data.sources.open_source`; no `eval`, no evaluation.
      eval_records: how many held-out records are used.
      workers, threads: of the input pipeline.
      flip: mirror pictures at random (vqgan).
      image_ids: "cache" (a source of kind "tokens") or "palette" (mean colours,
        no tokenizer needed; for tests and trials; a cache is used as it is).
      codebook_init: start the code embeddings from the tokenizer's codebook.
      vocab: of the text: a vocab.txt, a folder, a hub id, or "" to learn one of
        `vocab_size` pieces from the captions of the training data.
      vocab_size: see `vocab`.
      captions, eval_captions: `data.transforms.CaptionOptions`.
      tokenizer: the run or model directory of the VQGAN that made the codes, for
        pictures of what a model draws while it trains; "" draws none.
      tasks: how examples of Talk2Face are made; its captions are `captions`.
      augmentation: how pictures of perception tasks are varied, entries of
        `data.augmentation.Augmentation` by family of tasks; what is left out is as
        published, "none" varies nothing.
      label_sets: data sets of one's own whose labels become text, a mapping or the
        path of a YAML or JSON file, see `data.label_templates`; "" for none.
      packing: several short sequences of Talk2Face in one row.
      face_model: of the 3D faces of FaceGPT, see `data.facemodel.open_model`.
      face_vertices: budget of its mesh; 0 for all.
    """

    train: Mapping[str, Any]
    eval: Mapping[str, Any] | None = None
    eval_records: int = 512
    workers: int = 0
    threads: int = 2
    flip: bool = True
    image_ids: str = "cache"
    codebook_init: bool = False
    vocab: str = ""
    vocab_size: int = 1024
    captions: transforms.CaptionOptions = transforms.CaptionOptions()
    eval_captions: transforms.CaptionOptions = transforms.CaptionOptions()
    tokenizer: str = ""
    tasks: task_examples.TaskOptions = task_examples.TaskOptions()
    augmentation: Any = dataclasses.field(default_factory=dict)
    label_sets: Any = ""
    packing: PackingOptions = PackingOptions()
    face_model: str = opening.PROCEDURAL
    face_vertices: int = 0


@dataclasses.dataclass(frozen=True)
class Experiment:
    """Arguments of `train.loop.train`.

    Attributes:
      config: the experiment config, completed with what the data decided.
      system: what is trained, with held-out batches where there are some.
      batches_fn: number of the first step -> {feed: batch of this process}, for that
        step and those after it.
      extra_files: stored in every checkpoint.
      samples: pictures of what the model does, see `previews`; None for none.
    """

    config: Any
    system: System
    batches_fn: Callable[[int], Any]
    extra_files: Mapping[str, bytes]
    samples: Callable[[Any, Any], Mapping[str, np.ndarray]] | None = None


@dataclasses.dataclass(frozen=True)
class Records:
    """Records, and what becomes of each.

    Attributes:
      source: see `open_source`.
      transform: (record, rng) -> arrays by name.
      more: held-out records -> further arrays by name, a row a record.
      packing: puts several of them in one row; None for one each.
    """

    source: Sequence[Record]
    transform: Callable[[Record, np.random.Generator], Mapping[str, np.ndarray]]
    more: Callable[[Iterator[Record]], Mapping[str, np.ndarray]] | None = None
    packing: PackingOptions | None = None


def data_config(config: Any) -> DataConfig:
    """The `data` section.

    Raises:
      UserError: there is no `data.train`, or an unknown key.
    """
    values = settings.plain(config).get("data")
    if not values or not values.get("train"):
        raise UserError("the config has no data.train; say where the pictures are")
    return from_mapping(DataConfig, values, "data.")


def pictures(size: int) -> dict[str, Any]:
    """Examples of a source of pictures, for messages: words -> such a value."""
    return {
        "photographs of yours": {"kind": "folder", "path": "photos"},
        "drawn faces": {"kind": "synthetic", "count": 4000, "size": size},
    }


def open_train(data: DataConfig, examples: Mapping[str, Any]) -> Sequence[Record]:
    """The records of `data.train`; see `open_source`."""
    return open_source("data.train", data.train, examples)


def open_eval(data: DataConfig, examples: Mapping[str, Any]) -> Sequence[Record] | None:
    """The records of `data.eval`, None where there are none; see `open_source`."""
    if not data.eval:
        return None
    same = data.eval == data.train
    if same:
        metrics.print_line(
            "data.eval is data.train: held-out figures and the best checkpoint say "
            "nothing of other pictures; `gptface data split` makes two sets of one"
        )
    return open_source("data.eval", data.eval, examples, report=not same)


def open_source(
    key: str, spec: Any, examples: Mapping[str, Any], report: bool = True
) -> Sequence[Record]:
    """The records that a key of the config names.

    Args:
      key: such as "data.train".
      spec: its value.
      examples: what it might say -> such a value, as of `pictures`.
      report: whether process 0 says what was passed over.

    Raises:
      UserError: as `sources.open_source`; of data that are not there, which the config
        may name without anybody having typed it, with the key and what to set it to.
    """
    try:
        return sources.open_source(spec, report=report and jax.process_index() == 0)
    except Missing as error:
        ways = (f'--config.{key}="{example}" for {what}'
                for what, example in examples.items())  # fmt: skip
        raise UserError(f"{key}: {error}; or set {', or '.join(ways)}") from None


def of_feed(value: Any, feed: str, feeds: Sequence[str]) -> Any:
    """The source of a feed: what the config says of it, or of all.

    Args:
      value: of `data.train` or `data.eval`: a spec, or one for each feed.
      feed: its name.
      feeds: the names of all.

    Raises:
      UserError: the config says something of others only.
    """
    if not value or "kind" in value:
        return value
    if feed not in value:
        raise UserError(
            f"the data name {', '.join(value)} and not '{feed}'; give "
            f"one source, or one for each of {', '.join(feeds)}"
        )
    return value[feed]


def experiment(
    config: Any,
    data: DataConfig,
    system: System,
    feeds: Mapping[str, Records],
    held_out: Mapping[str, Records | None],
    *,
    extra_files: Mapping[str, bytes] | None = None,
    samples: Any = None,
) -> Experiment:
    """A system joined with its data.

    Args:
      config, data: of the experiment.
      system: without held-out batches.
      feeds: of each of the system's feeds.
      held_out: of its evaluations; what is None is not evaluated.
      extra_files, samples: see `Experiment`.

    Raises:
      UserError: a batch that the processes do not divide.
    """
    contents: dict[str, str] = {}
    pipelines = _pipelines(config, data, system, feeds, contents)
    batches = _held_out(config, data, system, held_out, contents)

    def batches_fn(start: int) -> Iterator[dict[str, Any]]:
        with contextlib.ExitStack() as open_feeds:
            drawn = {
                name: open_feeds.enter_context(contextlib.closing(feed.batches(start)))
                for name, feed in pipelines.items()
            }
            for together in zip(*drawn.values()):
                yield dict(zip(drawn, together))

    files = {checkpoint_meta.CONTENTS: json.dumps(contents).encode()}
    files |= extra_files or {}
    return Experiment(config, system.held_out(**batches), batches_fn, files, samples)


def _pipelines(
    config: Any,
    data: DataConfig,
    system: System,
    feeds: Mapping[str, Records],
    contents: dict[str, str],
) -> dict[str, pipeline.Pipeline]:
    """The input pipeline of each feed, for this process's share of every batch.

    Fingerprints of their records go into `contents`, by keys of the config.

    Raises:
      UserError: a batch that the processes do not divide.
    """
    index, shares = sharding.share_of_batch(*_open_mesh(config))
    pipelines = {}
    for number, (name, feed) in enumerate(system.feeds.items()):
        if feed.size % shares:
            raise UserError(
                f"batch_size {feed.size} does not divide by the {shares} shares of "
                "the processes; change batch_size"
            )
        records = feeds[name]
        key = "data.train" if len(system.feeds) == 1 else f"data.train.{name}"
        contents[key] = fingerprint.of(records.source)
        pipelines[name] = pipeline.Pipeline(
            records.source,
            records.transform,
            feed.size // shares,
            config["seed"] + number,
            shard=index,
            num_shards=shares,
            workers=data.workers,
            threads=data.threads,
            packing=records.packing,
        )
    return pipelines


def _open_mesh(config: Any):
    return sharding.open_mesh(settings.read_settings(config).mesh)


def _held_out(
    config: Any,
    data: DataConfig,
    system: System,
    held_out: Mapping[str, Records | None],
    contents: dict[str, str],
) -> dict[str, pipeline.HeldOut]:
    """The held-out batches of each evaluation, this process's share of each.

    Fingerprints of their records go into `contents`, by keys of the config.
    """
    where = _open_mesh(config)
    index, shares = sharding.share_of_batch(*where)
    sizes = {name: feed.size for name, feed in system.feeds.items()}
    # One share may be of a size that the devices cannot divide.
    ways = sharding.ways("batch", *where) if shares > 1 else 1
    batches = {}
    for name, records in held_out.items():
        if records is None:
            continue
        key = "data.eval" if len(held_out) == 1 else f"data.eval.{name}"
        contents[key] = fingerprint.of(records.source)
        count = min(len(records.source), data.eval_records)
        size = sizes.get(name, max(sizes.values()))
        rows = pipeline.held_out_rows(count, size, index, shares, ways)
        read = (records.source[i] for i in range(count))
        batches[name] = pipeline.HeldOut(
            records.source,
            records.transform,
            rows,
            more=records.more and records.more(read),
            threads=max(1, data.threads, data.workers),
        )
    return batches


def first_examples(records: Records, count: int) -> list[Mapping[str, np.ndarray]]:
    """The first so many held-out examples, the same in all processes."""
    rng = np.random.default_rng(0)
    count = min(count, len(records.source))
    return [records.transform(records.source[i], rng) for i in range(count)]


def losses_of(
    parts: Mapping[str, System], params, state, constants, batches, key, step
) -> tuple[list[jax.Array], Metrics]:
    """Losses of systems with one phase each, in their order, and their metrics.

    The arguments are those of a phase's loss, for all parts alike but for the random
    numbers. Metrics are called NAME/..., that of its loss NAME/loss.
    """
    losses, found = [], {}
    for name, system in parts.items():
        (phase,) = system.phases
        loss, (_, metrics) = phase.loss(
            params, state, constants, batches, trees.stream(key, name), step
        )
        losses.append(loss)
        metrics = {**metrics, "loss": (loss, 1.0)}
        found |= {f"{name}/{key}": value for key, value in metrics.items()}
    return losses, found


def together(parts: Mapping[str, tuple[System, float]]) -> System:
    """A system that makes a step of all parts, which share the first one's parameters.

    Args:
      parts: systems, each with one phase and but the first with the evaluation "eval",
        and the weights of their losses.
    """
    (first, _), *others = parts.values()
    if not others:
        return first

    systems = {name: system for name, (system, _) in parts.items()}
    weights = [weight for _, weight in parts.values()]

    def loss_fn(params, state, *given):
        losses, found = losses_of(systems, params, state, *given)
        return sum(w * loss for w, loss in zip(weights, losses)), (state, found)

    feeds, evaluations, resumable = {}, dict(first.evaluations), first.resumable
    for name, (system, _) in list(parts.items())[1:]:
        # Told in the first one's unit: an example is one.
        feeds |= {n: dataclasses.replace(f, units=1) for n, f in system.feeds.items()}
        evaluations[name] = system.evaluations["eval"]
        resumable += system.resumable
    return dataclasses.replace(
        first,
        feeds={**first.feeds, **feeds},
        phases=(Phase("", ".*", loss_fn),),
        evaluations=evaluations,
        whole_batch=first.whole_batch or "means over tokens are",
        resumable=tuple(dict.fromkeys(resumable)),
    )
