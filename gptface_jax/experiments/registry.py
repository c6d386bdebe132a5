"""What everything above the engine needs to know of a system; one row each."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.core.types import Params, System
from gptface_jax.train import settings

# System -> the module whose ROW is its row; imported when it is asked for.
SYSTEMS = {
    "vqgan": "gptface_jax.experiments.vqgan",
    "gptface": "gptface_jax.experiments.gptface",
    "talk2face": "gptface_jax.experiments.talk2face",
    "judge": "gptface_jax.experiments.judge",
    "faceptor": "gptface_jax.experiments.faceptor",
    "shared": "gptface_jax.experiments.shared",
    "facegpt": "gptface_jax.experiments.facegpt",
    "chat": "gptface_jax.experiments.chat",
}


@dataclasses.dataclass(frozen=True)
class Row:
    """A system.

    Attributes:
      config: dataclass of the `model` section.
      module: Linen class, made of such a config.
      inputs: config -> arguments with which `init` (of `method`, where that is set)
        meets every parameter.
      make: experiment config, as plain mapping -> System, without any data.
      build: (experiment config, its `data` section, what `prepare` gave) ->
        `base.Experiment`; reads data, writes nothing, and leaves the config alone.
      method: see `inputs`.
      prepare: (experiment config, its `data` section, work folder) -> what `build`
        needs beside them, such as a vocabulary that is trained and kept there.
      kept: parameters of a run -> those that inference needs.
      state: collections of the state that inference needs as well, such as statistics
        of batches; a network's parameters hold them by their names.
      start: (network, `base.Experiment`) -> parameters that a run begins with when
        `init_from` names that network.
      starts_from: systems whose networks `init_from` may name besides its own.
      parts: systems whose networks one of its own is as well -> network -> that
        network; `opening.open_network` finds them.
      note: shapes of the parameters -> a line below their table.
      beside: networks that lie beside it in a model directory.
      files: extra files of a run that go into a model directory.
      facade: "module:function" that opens a model for people, see `apps.api.load`.
      verbs: of the command line that it adds to jobs.
      guide: page that says how one is trained.
    """

    config: type
    module: type
    inputs: Callable[[Any], tuple[Any, ...]]
    make: Callable[[Mapping[str, Any]], System]
    build: Callable[[Any, Any, Any], Any]
    method: str | None = None
    prepare: Callable[[Any, Any, str | os.PathLike], Any] = lambda *_: None
    kept: Callable[[Params], Params] = lambda params: params
    state: tuple[str, ...] = ()
    start: Callable[[Any, Any], Params] = lambda network, experiment: network.params
    starts_from: tuple[str, ...] = ()
    parts: Mapping[str, Callable[[Any], Any]] = dataclasses.field(default_factory=dict)
    note: Callable[[Params], str] = lambda shapes: ""
    beside: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    facade: str = ""
    verbs: tuple[str, ...] = ()
    guide: str = ""


def row(name: str) -> Row:
    """The row of a system.

    Raises:
      UserError: an unknown one.
    """
    if name not in SYSTEMS:
        raise UserError(
            f"system {name!r} is unknown{nearest(str(name), SYSTEMS)}; known: "
            + ", ".join(SYSTEMS)
        )
    return importlib.import_module(SYSTEMS[name]).ROW


def verbs() -> list[str]:
    """Verbs that jobs may ask models of all systems for."""
    return [*dict.fromkeys(verb for name in SYSTEMS for verb in row(name).verbs)]


def named(config: Any) -> str:
    """The system that an experiment config names.

    Raises:
      UserError: an unknown one.
    """
    name = config.get("system")
    if name not in SYSTEMS:
        raise UserError(
            f"config key 'system' is {name!r}{nearest(str(name), SYSTEMS)}; known: "
            + ", ".join(SYSTEMS)
        )
    return name


def make(config: Any) -> System:
    """The system that an experiment config describes, without its data.

    Raises:
      UserError: an unknown system, a wrong key or value, or the weights of a
        perceptual distance that cannot be read.
    """
    name = named(config)
    with explained(name):
        return row(name).make(settings.plain(config))


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turns the ValueError of a config dataclass into a UserError."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"config of '{name}': {error}") from error
