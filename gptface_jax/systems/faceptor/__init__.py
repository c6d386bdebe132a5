"""Faceptor (SPEC part C): face perception as queries of one encoder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax

from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping
from gptface_jax.core.types import Evaluation, Feed, Phase, System
from gptface_jax.nn.perception import Perception, PerceptionConfig, example_inputs
from gptface_jax.systems.faceptor import objective as faceptor_objective
from gptface_jax.systems.faceptor.objective import ObjectiveConfig


def make_system(
    config: Mapping[str, Any],
    tokenise: faceptor_objective.Tokenise | None = None,
    constants: Mapping[str, Any] | None = None,
) -> System:
    """The trainable system of an experiment config.

    Args:
      config: mapping with `model` (PerceptionConfig), `objective` (ObjectiveConfig) and
        `batch_size`, {task: pictures a step}: the tasks that are trained.
      tokenise: of a model on image tokens, what makes them.
      constants: that it reads, such as a tokenizer's parameters.

    Returns:
      A System with a feed and an evaluation of each task.

    Raises:
      ValueError: a task that the model does not have, or a config that makes no sense.
    """
    model = from_mapping(PerceptionConfig, config["model"], "model.")
    objective = from_mapping(ObjectiveConfig, config["objective"], "objective.")
    sizes = config["batch_size"]
    if not (isinstance(sizes, Mapping) and sizes):
        raise ValueError(
            f"batch_size is {sizes!r}; give one for each task that is trained, as "
            "{'age_drawn': 64}"
        )
    tasks, module = tuple(sizes), Perception(model)
    for entry in map(model.task, tasks):
        if not entry.has_queries and not entry.identities:
            raise ValueError(
                f"task '{entry.name}' has no identities; set them in model.tasks to "
                "the number of people in its data"
            )
    model.levels(tasks, objective.stage)  # says what is wrong, before anything runs
    specs = {
        task: faceptor_objective.label_spec(model, task, model.resolution(task))
        for task in tasks
    }

    def variables(key):
        return module.init(key, example_inputs(model), method="init_all")

    def init_state():
        return initial_state(module)

    loss = faceptor_objective.make_loss(module, objective, tasks, tokenise)
    return System(
        name="faceptor",
        init=lambda key: variables(key)["params"],
        feeds={task: Feed(specs[task], sizes[task]) for task in tasks},
        phases=(Phase("", objective.trainable(tasks), loss),),
        evaluations={
            task: Evaluation(
                faceptor_objective.make_eval(module, objective, task, tokenise),
                specs[task],
            )
            for task in tasks
            if model.task(task).has_queries
        },
        constants=constants or {},
        init_state=init_state,
        unit="images",
        whole_batch="batch statistics are",
        resumable=("data.tokenizer",),
    )


def initial_state(module: Perception) -> dict[str, Any]:
    """Statistics of no batch yet: {"batch_stats": means 0, variances 1, counts 0}."""
    inputs = example_inputs(module.config)
    shapes = jax.eval_shape(
        lambda key: module.init(key, inputs, method="init_all"), jax.random.key(0)
    )
    flat = trees.flatten(shapes.get(faceptor_objective.STATS, {}))
    made = {
        path: jax.numpy.full(x.shape, path.endswith("/var"), x.dtype)
        for path, x in flat.items()
    }
    return {faceptor_objective.STATS: trees.unflatten(made)}
