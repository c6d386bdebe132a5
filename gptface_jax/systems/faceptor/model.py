"""Faceptor: pictures of faces and names of tasks to answers (SPEC part C)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax

from gptface_jax.nn.perception import Perception, PerceptionConfig, prediction

__all__ = ["Perception", "PerceptionConfig", "apply", "apply_to_maps"]


def apply(
    config: PerceptionConfig,
    params: Any,
    state: Any,
    image: jax.Array,
    tasks: Sequence[str],
    stage: int = 1,
) -> dict[str, jax.Array]:
    """Predictions of the tasks for pictures, in evaluation mode.

    Args:
      config, params, state: of the model, such as `interop.faceptor.load` gives.
      image: float [B,H,W,3], normalised as the tasks want it; of a model on tokens
        image tokens int [B,h,w].
      tasks: names.
      stage: 1, or 2 with the levels of Layer-Attention.

    Returns:
      {task: float32: logits [B,Q] of ages, attributes and expressions; the embedding
      [B,E] of recognition; logits [B,S,S,Q] of parsing at the task's resolution; points
      [B,Q,2] (x, y) as shares of the sides of landmarks}.

    Raises:
      ValueError: a task or a stage that the model does not have.
    """
    module, tasks = Perception(config), tuple(tasks)
    raw = module.apply({"params": params, **state}, image, tasks, stage)
    return {task: prediction(config, task, x) for task, x in raw.items()}


def apply_to_maps(
    config: PerceptionConfig,
    params: Any,
    state: Any,
    maps: Mapping[int, jax.Array],
    tasks: Sequence[str],
    stage: int = 1,
) -> dict[str, jax.Array]:
    """Predictions from an encoder's maps {layer: [B,h,w,D]}; see `apply`."""
    module, tasks = Perception(config), tuple(tasks)
    variables = {"params": params, **state}
    raw = module.apply(variables, maps, tasks, stage, method="read")
    return {task: prediction(config, task, x) for task, x in raw.items()}
