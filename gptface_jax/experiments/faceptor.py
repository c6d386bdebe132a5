"""Experiments that train Faceptor: a source, a batch and a loss for every task."""

from __future__ import annotations

import functools
import pathlib
from collections.abc import Mapping
from typing import Any

from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.core.types import System
from gptface_jax.data import augmentation
from gptface_jax.data.perception_examples import PerceptionExample, people_of
from gptface_jax.experiments import base, faceptor_run, opening, registry
from gptface_jax.nn.perception import Perception, PerceptionConfig, example_inputs
from gptface_jax.pipelines.networks import Network
from gptface_jax.systems import faceptor
from gptface_jax.systems.faceptor.objective import STATS, ObjectiveConfig
from gptface_jax.train import settings


def make(config: Mapping[str, Any]) -> System:
    """The system of an experiment config; a model on tokens opens its tokenizer.

    Raises:
      UserError: no tokenizer, or one of other codes.
    """
    model = from_mapping(PerceptionConfig, config["model"], "model.")
    if model.encoder != "tokens":
        return faceptor.make_system(config)
    codes = model.sequence.vocab.codebook_size
    return faceptor.make_system(
        config, *faceptor_run.tokeniser(codes, config.get("data", {}))
    )


def _prepare(config: Any, data: base.DataConfig, workdir: Any) -> dict[str, Any]:
    """What was noted before: by the run itself, or by that of `init_from`.

    Without "tasks" where nobody knows them.
    """
    run = pathlib.Path(workdir)
    started = any(run.glob("checkpoints/[0-9]*"))  # and needs `init_from` no more
    source = run if started else config.get("init_from")
    if not source:
        return {"tasks": []}
    values = settings.plain(config)["model"]
    model = from_mapping(PerceptionConfig, values, "model.")
    try:
        has = {task.name for task in model.tasks}
        return faceptor_run.noted(source, has, own=started)
    except (ValueError, TypeError, AttributeError):
        return {}  # what is wrong is said where the parameters are read


def _build(
    config: Any, data: base.DataConfig, before: Mapping[str, Any]
) -> base.Experiment:
    values = settings.plain(config)
    system = make(values)
    model = from_mapping(PerceptionConfig, values["model"], "model.")
    tasks = tuple(system.feeds)
    feeds, held_out, attributes, shown = {}, {}, {}, None
    for task in tasks:
        size = model.resolution(task)
        train = base.of_feed(data.train, task, tasks)
        key = "data.train" if "kind" in data.train else f"data.train.{task}"
        source = base.open_source(key, train, base.pictures(size))
        entry = model.task(task)
        if entry.family == "align" and entry.queries == 68:
            shown = shown or source
        if entry.family == "biattr":
            attributes[task] = source
        people = people_of(source, entry.identities) if entry.identities else {}
        example = functools.partial(
            PerceptionExample, task, entry.queries, size, people=people
        )
        varied = augmentation.of_family(entry.family, data.augmentation)
        feeds[task] = base.Records(source, example(augmentation=varied))
        judged = tuple(system.evaluations)
        if task in judged and (test := base.of_feed(data.eval, task, judged)):
            key = key.replace("train", "eval")
            source = base.open_source(key, test, base.pictures(size), test != train)
            held_out[task] = base.Records(source, example())
    objective = from_mapping(ObjectiveConfig, values["objective"], "objective.")
    stages = dict.fromkeys(tasks, objective.stage)
    noted = faceptor_run.learnt(shown, attributes, stages, before)
    files = {faceptor_run.FRAME: noted}
    return base.experiment(config, data, system, feeds, held_out, extra_files=files)


def start(network: Network, experiment: base.Experiment) -> dict[str, Any]:
    """The parameters of a Faceptor, as a run begins with them.

    Of another Faceptor: what this one has too, with the statistics of batches. Of a
    GPTFace: its embedding and its layers, for an encoder on tokens or on patches.

    Raises:
      UserError: a GPTFace for an encoder that is a ViT.
    """
    values = settings.plain(experiment.config)["model"]
    model = from_mapping(PerceptionConfig, values, "model.")
    given = network.params
    if not isinstance(network.module, Perception):
        if model.encoder == "vit":
            raise UserError(
                "init_from: a GPTFace, and model.encoder is 'vit'; set it to 'tokens' "
                "or 'patches'"
            )
        given = {"backbone": given}
    shapes = opening.expected_shapes("faceptor", model, state=True)
    wanted = trees.flatten(shapes)
    kept = {k: v for k, v in trees.flatten(given).items() if k in wanted}
    table = "backbone/tokens/position"
    if table in kept:  # of a longer sequence, with its text
        kept[table] = kept[table][: len(wanted[table])]
    return trees.unflatten(kept)


def note(shapes: Any) -> str:
    """Note below the table of parameters: what the paper counts."""
    losses = sum(
        trees.count(part) for name, part in shapes.items() if "classifier" in name
    )
    if not losses:
        return ""
    rest = trees.count(shapes) - losses
    return f"of these {losses:,} classify identities in training; the model: {rest:,}"


def _inputs(config: PerceptionConfig) -> tuple[Any, ...]:
    return (example_inputs(config),)


ROW = registry.Row(
    config=PerceptionConfig,
    module=Perception,
    inputs=_inputs,
    method="init_all",
    make=make,
    prepare=_prepare,
    build=_build,
    start=start,
    starts_from=("gptface", "shared"),
    state=(STATS,),
    note=note,
    files=(faceptor_run.FRAME,),
    facade="gptface_jax.apps.perception_api:open_model",
    verbs=("perceive",),
    guide="docs/faceptor.md",
)
