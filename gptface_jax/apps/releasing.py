"""Perception models written as their release's own files."""

from __future__ import annotations

import json
import os
import pathlib

from gptface_jax.core import files, trees
from gptface_jax.core.errors import UserError
from gptface_jax.experiments import opening, registry
from gptface_jax.interop import faceptor, state_dict


def export_faceptor(
    run: str | os.PathLike,
    out: str | os.PathLike,
    step: str | int | None = "best",
) -> dict[str, float]:
    """Writes a Faceptor in the layout of its release, with its sizes.

    Args:
      run: training run of a Faceptor, or a model directory.
      out: FILE.pth.tar or another ending of PyTorch's; FILE.json, which `gptface import
        --format faceptor` reads with it, comes beside it.
      step: checkpoint of the run.

    Returns:
      {"faceptor": parameters in millions}.

    Raises:
      UserError: a network that theirs cannot be, files that exist, or another ending.
    """
    ending = state_dict.check(out)
    network = opening.open_network(run, "faceptor", step)
    out = pathlib.Path(out)
    sizes = out.with_name(out.name.removesuffix(ending) + ".json")
    for path in (out, sizes):
        if path.exists():
            raise UserError(f"'{path}' already exists; choose another name")
    names = registry.row("faceptor").state
    params = {k: v for k, v in network.params.items() if k not in names}
    state = {k: v for k, v in network.params.items() if k in names}
    faceptor.save(out, network.config, params, state, network.meta.get("step", 0))
    theirs = faceptor.their_config(network.config)
    files.write_text(sizes, json.dumps(theirs, indent=2) + "\n")
    return {"faceptor": trees.count(params) / 1e6}
