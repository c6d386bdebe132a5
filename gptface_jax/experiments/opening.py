"""Opening trained networks, from a training run or from a model directory."""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import numpy as np

from gptface_jax.core import trees
from gptface_jax.core.config import changes, from_mapping
from gptface_jax.core.errors import UserError, nearest
from gptface_jax.core.version import __version__
from gptface_jax.experiments import registry
from gptface_jax.interop import directory
from gptface_jax.pipelines.networks import Network, is_run, locate
from gptface_jax.train import sharding


def expected_shapes(name: str, config: Any, state: bool = False) -> Any:
    """Tree of the shapes of a system's parameters, without computing anything.

    Args:
      name: of the system.
      config: of its module.
      state: with the collections beside them that inference needs.
    """
    row = registry.row(name)
    module = row.module(config)

    def init(key):
        made = module.init(key, *row.inputs(config), method=row.method)
        others = {k: made[k] for k in row.state if state and k in made}
        return {**made["params"], **others}

    # Flax's own `unbox` would shard what is no array, where a mesh is in force.
    return sharding.unbox(jax.eval_shape(init, jax.random.key(0)))


def networks_of(path: str | os.PathLike) -> list[str]:
    """The systems whose networks a training run or a model directory holds.

    Raises:
      UserError: nothing there, or nothing that is known.
    """
    root = locate(path)
    if is_run(root):
        from gptface_jax.train import checkpoint  # Orbax takes a second to import

        return [checkpoint.read_meta(root)["system"]]
    known = directory.read_config(root)
    found = [name for name in registry.SYSTEMS if name in known]
    if not found:
        raise UserError(
            f"model directory '{path}' holds none of the networks "
            + ", ".join(registry.SYSTEMS)
        )
    return found


def systems_of(path: str | os.PathLike) -> set[str]:
    """The systems of `networks_of`, and those that a part of one of them is."""
    found = networks_of(path)
    return {name for whole in found for name in (whole, *registry.row(whole).parts)}


def open_network(
    path: str | os.PathLike, name: str, step: str | int | None = "best"
) -> Network:
    """The network of a system, from a run or a model directory.

    Args:
      path: work folder of a training run, a model directory, a bundled name or hub id.
      name: of the system, or of one that is a part of it (`registry.Row.parts`).
      step: checkpoint of a run: "best", None = the latest, or a step.

    Raises:
      UserError: nothing there, or another system's run.
    """
    row = registry.row(name)
    root = locate(path)
    if is_run(root):
        from gptface_jax.train import checkpoint  # Orbax takes a second to import

        params, meta = checkpoint.restore_params(root, step, collections=row.state)
        if (whole := meta["system"]) != name:
            if name in registry.row(whole).parts:
                return registry.row(whole).parts[name](open_network(path, whole, step))
            raise UserError(
                f"'{path}' is a run of system '{whole}', not of '{name}'; "
                "give a run of that"
            )
        values, prefix = meta["config"]["model"], "model."
        params = row.kept(params)
    else:
        meta = directory.read_config(root)
        if name not in meta:
            for whole in registry.SYSTEMS:
                if whole in meta and name in registry.row(whole).parts:
                    return registry.row(whole).parts[name](open_network(path, whole))
            raise UserError(f"model directory '{path}' holds no network '{name}'")
        values, prefix = meta[name], f"{name}."

    def sensible(make, *arguments):
        try:
            return make(*arguments)
        except (ValueError, TypeError) as error:
            raise UserError(
                f"'{path}' has a config of '{name}' that makes no sense: {error}; "
                "train or export it again"
            ) from None

    config = sensible(from_mapping, row.config, values, prefix)
    shapes = functools.partial(sensible, expected_shapes, name, config, True)
    if is_run(root):
        shapes()
    else:
        params = directory.read_network(root, name, shapes, __version__)
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), params)
    digest = directory.digest(params, changes(config))
    return Network(row.module(config), params, digest, meta)


def as_part(
    network: Network,
    whole: str,
    name: str,
    config: Any,
    alone: Callable[[Mapping[str, Any]], dict[str, Any]],
) -> Network:
    """The network as that of a system whose parameters are some or all of its own.

    Args:
      network: to look at.
      whole: its system.
      name: of the part's.
      config: of the part's model.
      alone: experiment config of the whole -> as if the part alone were trained.
    """
    wanted = trees.flatten(expected_shapes(name, config))
    own = {k: v for k, v in trees.flatten(network.params).items() if k in wanted}
    meta = dict(network.meta)
    if "config" in meta:
        meta["config"] = alone(meta["config"])
    if "training" in meta:
        meta["training"] = {**meta["training"], name: alone(meta["training"][whole])}
    module = registry.row(name).module(config)
    return Network(module, trees.unflatten(own), network.digest, meta)


def facades(
    source: str | os.PathLike, system: str | None = None
) -> tuple[pathlib.Path, list[str]]:
    """Folder, and "module:function" that open it for people; see `registry.Row`.

    Args:
      source: see `open_network`.
      system: that comes first, where the folder holds several; default the one that
        is there as a whole and no part of another.

    Raises:
      UserError: nothing there, or no network with what belongs to it.
    """
    path = locate(source)
    found = networks_of(path)
    held = systems_of(path)
    known = [name for name in registry.SYSTEMS if registry.row(name).facade]
    if system is not None and system not in known:
        raise UserError(
            f"system {system!r} is none that can be opened{nearest(system, known)}; "
            f"use {' or '.join(known)}"
        )
    opened = [
        name
        for name in sorted(known, key=lambda name: (name != system, name not in found))
        if name in held and (is_run(path) or {*registry.row(name).beside} <= held)
    ]
    if not opened or system not in (None, opened[0]):
        wanted = " or ".join(f"'{name}'" for name in ([system] if system else known))
        raise UserError(
            f"'{source}' holds no network {wanted} with what belongs to it, only: "
            f"{', '.join(found)}; give a model that was exported whole"
        )
    # One row of two systems is named once.
    return path, [*dict.fromkeys(registry.row(name).facade for name in opened)]
