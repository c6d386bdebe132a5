"""From an experiment config to a training run."""

from __future__ import annotations

import os
from typing import Any

from gptface_jax.core.errors import UserError
from gptface_jax.experiments import base, opening, registry
from gptface_jax.pipelines.networks import Network
from gptface_jax.train import goodput, loop, metrics, settings, work_folder
from gptface_jax.train.state import TrainState


def build(config: Any, workdir: str | os.PathLike) -> base.Experiment:
    """The experiment of a config: its data opened, its system built.

    What has to be learnt from the data before (a vocabulary) is read from the work
    folder of a run that has checkpoints, else learnt and kept there.

    Raises:
      UserError: an unknown system, a wrong key or value, or data that cannot be
        opened.
    """
    name = registry.named(config)
    settings.read_settings(config)
    row = registry.row(name)
    with registry.explained(name):
        data = base.data_config(config)
        return row.build(config, data, row.prepare(config, data, workdir))


def initial_network(where: str | os.PathLike, name: str) -> Network:
    """The network that `init_from` names, for a run of a system.

    Raises:
      UserError: there is none that the system can start from.
    """
    try:
        others = registry.row(name).starts_from
        whole, held = opening.networks_of(where), opening.systems_of(where)
        # A part of a larger model comes last.
        found = [n for n in others if n in whole] + [n for n in (name,) if n in held]
        found += [n for n in others if n in held]
        return opening.open_network(where, found[0] if found else name)
    except UserError as error:
        raise UserError(
            f"init_from: {error}; or set --config.init_from to a run or "
            "model directory of yours"
        ) from None


def train(config: Any, workdir: str | os.PathLike, progress: bool = True) -> TrainState:
    """Trains what the config describes, resuming what `workdir` holds."""
    wall = goodput.WallTime()
    with work_folder.held(workdir) as lock:  # the vocabulary is written there
        experiment = build(config, workdir)
        note = experiment.system.note_on_microbatches(config.get("grad_accum", 1))
        if note:
            metrics.print_line(f"note: {note}")

        def start():
            network = initial_network(config["init_from"], config["system"])
            return registry.row(config["system"]).start(network, experiment)

        return loop.train(
            experiment.config,
            experiment.system,
            experiment.batches_fn,
            workdir,
            extra_files=experiment.extra_files,
            initial_params=start if config.get("init_from") else None,
            samples=experiment.samples,
            lock=lock,
            wall=wall,
            progress=progress,
        )
