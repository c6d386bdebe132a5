"""Host batches, checked against what a system asks for, onto the devices."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
from jax.sharding import Mesh

from gptface_jax.core import types
from gptface_jax.core.errors import UserError, nearest
from gptface_jax.train import sharding


def checked(
    batch: Mapping[str, Any], spec: Mapping[str, Any], system: str
) -> dict[str, Any]:
    """The entries of a batch that a spec asks for, in its dtypes.

    Args:
      batch: name -> numpy array [B,...].
      spec: of a `Feed` or an `Evaluation`.
      system: its name, for errors.

    Raises:
      UserError: one is missing, or has examples of another shape.
    """
    chosen = {}
    for name, wanted in spec.items():
        if name not in batch:
            raise UserError(
                f"a batch has no '{name}'{nearest(name, batch)}; system {system!r} "
                f"needs {', '.join(spec)}"
            )
        value = batch[name]
        if tuple(value.shape[1:]) != tuple(wanted.shape):
            raise UserError(
                f"batch entry '{name}' has examples of shape {value.shape[1:]}; "
                f"system {system!r} needs {tuple(wanted.shape)}"
            )
        chosen[name] = value.astype(wanted.dtype, copy=False)
    return chosen


def explained(error: Exception, done: int, total: int) -> UserError:
    """The error of the data after `done` of `total` steps, in words for a person."""
    if isinstance(error, StopIteration):
        return UserError(
            f"the data ended after {done} of {total} steps; give more data or lower "
            "total_steps"
        )
    return UserError(
        f"the data failed after step {done}: "
        f"{str(error).strip() or type(error).__name__}; run the same command again "
        "to go on"
    )


def put_feeds(
    batches: types.Batches, system: types.System, mesh: Mesh, rules: sharding.Rules
) -> dict[str, dict[str, jax.Array]]:
    """Global arrays of the batches of a step, of which this process gives its share.

    Raises:
      UserError: a feed is missing, or a batch is not what its feed says.
    """
    placed, (_, shares) = {}, sharding.share_of_batch(mesh, rules)
    for name, feed in system.feeds.items():
        if name not in batches:
            raise UserError(
                f"a step has no batch '{name}'{nearest(name, batches)}; system "
                f"{system.name!r} needs {', '.join(system.feeds)}"
            )
        batch = checked(batches[name], feed.spec, system.name)
        for key, value in batch.items():
            if len(value) * shares != feed.size:
                raise UserError(
                    f"batch entry '{key}' of '{name}' has {len(value)} examples in "
                    f"each of {shares} shares of the processes; together they must be "
                    f"{feed.size}"
                )
        placed[name] = sharding.put_batch(batch, mesh, rules)
    return placed
