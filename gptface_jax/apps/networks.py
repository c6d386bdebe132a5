"""Opening trained networks, from a training run or from a model directory."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax import __version__
from gptface_jax.core.config import changes, from_mapping
from gptface_jax.core.errors import UserError, nearest
from gptface_jax.interop import directory
from gptface_jax.nn.classifier import Classifier, ClassifierConfig
from gptface_jax.nn.vqgan import DECODER, VQGAN, VQGANConfig
from gptface_jax.systems.gptface.model import GPTFace, GPTFaceConfig
from gptface_jax.train import sharding

BUNDLED = pathlib.Path(__file__).parents[1] / "models"


@dataclasses.dataclass(frozen=True)
class _Kind:
    config: type
    module: type
    dummy: Any  # config -> arguments of init
    method: str | None = None


def _picture(config) -> tuple[Any, ...]:
    side = config.resolution
    return (jnp.zeros((1, side, side, 3)),)


_KINDS = {
    "vqgan": _Kind(VQGANConfig, VQGAN, _picture),
    "judge": _Kind(ClassifierConfig, Classifier, _picture),
    "gptface": _Kind(
        GPTFaceConfig,
        GPTFace,
        lambda c: (jnp.zeros((1, c.layout.length), jnp.int32),),
        "init_all",
    ),
}


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
        """Of what decides a VQGAN's codes; token caches and their runs carry it.

        Of the weights in bfloat16: the model directory of a run stores them so.
        """
        deciding = {k: v for k, v in self.params.items() if k not in DECODER}
        rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16), deciding)
        return directory.digest(rounded, changes(self.config))


def bundled() -> list[str]:
    """Names of the models that come with the package."""
    if not BUNDLED.is_dir():
        return []
    return sorted(p.name for p in BUNDLED.iterdir() if (p / "config.json").is_file())


def locate(source: str | os.PathLike) -> pathlib.Path:
    """Folder of a bundled name, a model directory, a training run or a hub id."""
    name = os.fspath(source)
    if name in bundled():
        return BUNDLED / name
    path = pathlib.Path(name).expanduser()
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


def config_class(name: str) -> type:
    """The config dataclass of network `name`."""
    return _KINDS[name].config


def expected_shapes(name: str, config: Any) -> Any:
    """Tree of the parameters' shapes, without computing anything."""
    kind = _KINDS[name]
    module = kind.module(config)

    def init(key):
        return module.init(key, *kind.dummy(config), method=kind.method)["params"]

    # Flax's own `unbox` would shard what is no array, where a mesh is in force.
    return sharding.unbox(jax.eval_shape(init, jax.random.key(0)))


def open_network(
    path: str | os.PathLike, name: str, step: str | int | None = "best"
) -> Network:
    """Opens network `name` ("vqgan", "gptface", "judge").

    Args:
      path: work folder of a training run, a model directory, a bundled name or hub id.
      name: which network.
      step: checkpoint of a run: "best", None = the latest, or a step.

    Raises:
      UserError: nothing there, or another system's run.
    """
    kind = _KINDS[name]
    root = locate(path)
    if is_run(root):
        from gptface_jax.train import checkpoint  # Orbax takes a second to import

        params, meta = checkpoint.restore_params(root, step)
        if meta["system"] != name:
            raise UserError(
                f"'{path}' is a run of system '{meta['system']}', not of '{name}'; "
                "give the right --workdir"
            )
        values, prefix = meta["config"]["model"], "model."
        # A discriminator stays behind.
        params = {k: v for k, v in params.items() if k != "discriminator"}
    else:
        meta = directory.read_config(root)
        if name not in meta:
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

    config = sensible(from_mapping, kind.config, values, prefix)
    shapes = functools.partial(sensible, expected_shapes, name, config)
    if is_run(root):
        shapes()
    else:
        params = directory.read_network(root, name, shapes, __version__)
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), params)
    digest = directory.digest(params, changes(config))
    return Network(kind.module(config), params, digest, meta)
