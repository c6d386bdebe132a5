"""Parameter tables."""

from __future__ import annotations

import math
from typing import Any

from gptface_jax.apps import api, networks, training
from gptface_jax.core import trees
from gptface_jax.core.config import from_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.train import settings


def table(shapes: Any, depth: int = 2) -> str:
    """Names, shapes and counts, summed below `depth` levels (0 = never).

    Args:
      shapes: tree of arrays or shape structs.
      depth: levels of the names that are kept apart.
    """
    rows: dict[str, list[int]] = {}
    shape_of = {}
    for name, leaf in trees.flatten(shapes).items():
        short = "/".join(name.split("/")[:depth]) if depth else name
        rows.setdefault(short, []).append(math.prod(leaf.shape))
        shape_of[short] = "x".join(map(str, leaf.shape)) or "scalar"
    lines = []
    width = max(len(n) for n in rows)
    for name, counts in rows.items():
        shown = shape_of[name] if len(counts) == 1 else f"{len(counts)} tensors"
        lines.append(f"{name:<{width}}  {shown:>16}  {sum(counts):>13,}")
    total = sum(sum(c) for c in rows.values())
    rule = "-" * (width + 33)
    return "\n".join([*lines, rule, f"{'total':<{width}}  {'':>16}  {total:>13,}"])


def of_config(config: Any, depth: int = 2) -> str:
    """Table of what a config would train; opens no data."""
    name = config.get("system")
    if name not in training.SYSTEMS:
        raise UserError(f"config key 'system' is {name!r}; nothing to describe")
    kind = networks.config_class(name)
    try:
        model = from_mapping(kind, settings.plain(config)["model"], "model.")
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"config of '{name}': {error}") from None
    shapes = networks.expected_shapes(name, model)
    text = table(shapes, depth)
    if name == "gptface":
        body = trees.count(shapes["transformer"])
        text += (
            f"\nbody (layers and final norm) {body / 1e6:.2f} M, with tied embeddings "
            f"and heads {trees.count(shapes) / 1e6:.2f} M"
        )
    return text


def of_model(source: str, depth: int = 2) -> str:
    """Table of a trained model's networks."""
    model = api.load(source)
    parts = {
        "vqgan": model.editor.vqgan.network.params,
        "gptface": model.editor.gptface.params,
    }
    return table(parts, depth + 1 if depth else 0)
