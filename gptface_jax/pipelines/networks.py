"""Trained networks, and the folders that hold some."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.core.config import changes
from gptface_jax.core.errors import UserError, nearest
from gptface_jax.interop import directory
from gptface_jax.nn.vqgan import DECODER

BUNDLED = pathlib.Path(__file__).parents[1] / "models"
# Names of bundled models that are found under another one.
_ALIASES = {"demo": "demo64"}


@dataclasses.dataclass(frozen=True)
class Network:
    """A module with its trained parameters.

    Attributes:
      module: the Linen module; `module.config` is its config.
      params: nested dict of float32 arrays.
      digest: of config and weights; edits carry it.
      meta: of the run (step, config, extra_files) or the model directory.
    """

    module: Any
    params: Any
    digest: str
    meta: Mapping[str, Any]

    @property
    def config(self):
        return self.module.config

    @property
    def codes_digest(self) -> str:
        """Digest of what decides a VQGAN's codes; token caches and their runs carry it.

        Of the weights in bfloat16: the model directory of a run stores them so.
        """
        deciding = {k: v for k, v in self.params.items() if k not in DECODER}
        rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), deciding)
        plain = dataclasses.replace(self.config, condition_channels=0)
        return directory.digest(rounded, changes(plain))


def bundled() -> list[str]:
    """Names of the models that come with the package."""
    if not BUNDLED.is_dir():
        return []
    found = {p.name for p in BUNDLED.iterdir() if (p / "config.json").is_file()}
    return sorted(found | {name for name, to in _ALIASES.items() if to in found})


def locate(source: str | os.PathLike) -> pathlib.Path:
    """Folder of a bundled name, a model directory, a training run or a hub id."""
    name = os.fspath(source)
    if name in bundled():
        folder = BUNDLED / name
        return folder if folder.is_dir() else BUNDLED / _ALIASES[name]
    path = pathlib.Path(name).expanduser()
    if not path.exists() and path.parent.resolve() == BUNDLED and path.name in _ALIASES:
        path = BUNDLED / _ALIASES[path.name]
    if path.is_dir():
        return path
    if name.count("/") == 1 and not name.startswith((".", "/", "~")):
        try:
            from huggingface_hub import snapshot_download

            return pathlib.Path(snapshot_download(name))
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise UserError(
                f"'{name}' is no folder here, and as a hub id it cannot be fetched "
                f"({reason}); check the name and the network"
            ) from None
    known = bundled()
    raise UserError(
        f"model '{name}' not found{nearest(name, known)}; bundled: "
        f"{', '.join(known) or 'none'}; or give a model directory, a training run or a "
        "hub id"
    )


def is_run(path: str | os.PathLike) -> bool:
    return (pathlib.Path(path) / "checkpoints").is_dir()


def experiment(network: Network, name: str) -> Mapping[str, Any]:
    """The config of the run that trained network `name`; {} where it is not known."""
    return network.meta.get("config") or network.meta.get("training", {}).get(name, {})
