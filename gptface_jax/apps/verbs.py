"""From a method of `api.Model` to its pipeline: arguments checked and grouped."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ParamSpec, TypeVar

import numpy as np

from gptface_jax.core import arguments, config_names
from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io
from gptface_jax.experiments import opening, registry
from gptface_jax.pipelines import edit, networks, restore, results, rows, stitch
from gptface_jax.pipelines import faces as face_finding
from gptface_jax.pipelines.compositing import Blend
from gptface_jax.pipelines.editing_model import EditingModel, Selection

# Verbs whose result is an Edit -> the pipeline that makes it.
DRAWN = {
    "edit": edit.edit,
    "inpaint": edit.inpaint,
    "restore": restore.restore,
    "stitch": stitch.stitch,
}

# Those that write a picture of each photo.
WRITTEN = (*DRAWN, "perceive")

P = ParamSpec("P")
R = TypeVar("R")


def checked(method: Callable[P, R]) -> Callable[P, R]:
    """The method, which refuses arguments of another type than it says.

    Its class says in OPTIONS whose fields its **arguments are.
    """

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return arguments.call_checked(method, args, kwargs, args[0].OPTIONS)

    return call


def in_steps(method: Callable[P, rows.Steps[R]]) -> Callable[P, R]:
    """The method, `checked`, that runs the steps to its result at once.

    They are its attribute `steps`, for whoever answers those of many photos together.
    """
    steps = checked(method)

    @functools.wraps(method)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        return rows.run_immediately(steps(*args, **kwargs))

    call.steps = steps
    # What `help` shows: the result, and not the steps to it.
    said = inspect.signature(method)
    result = said.return_annotation.removeprefix("Steps[").removesuffix("]")
    call.__signature__ = said.replace(return_annotation=result)
    return call


class MissingVerb(UserError, AttributeError):
    """A model was asked for what models of another system do."""


class Facade:
    """Facade of a model directory: a system, and the others that it holds.

    What one of these cannot do another does; of what none can it says which system has
    it.

    Attributes:
      _beside: open the folder as its other systems, and other models.
    """

    _beside: Sequence[Callable[[], Any]] = ()

    def add_beside(self, opened: Callable[[], Any]) -> None:
        """Has another model, which is opened when asked for, do what this one cannot.

        Those that were there before come first.
        """
        self._beside = (*self._beside, opened)

    @property
    def several(self) -> bool:
        """Whether other systems lie beside this one."""
        return bool(self._beside)

    @checked
    def faces(
        self, image: image_io.Source | results.Edit, *, any_roll: bool = False
    ) -> list[face_finding.Face]:
        """The faces of a photo from left to right, see `faces.find`.

        Args:
          image: path, encoded bytes, PIL image, uint8 array [H,W,3], or an Edit.
          any_roll: look for faces at every right angle too.
        """
        pixels = image_io.decode(
            image.image if isinstance(image, results.Edit) else image
        )
        return face_finding.find(pixels, any_roll=any_roll)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):
            raise AttributeError(name)
        for opened in self._beside:
            if hasattr(opened(), name):
                return getattr(opened(), name)
        able = [s for s in registry.SYSTEMS if name in registry.row(s).verbs]
        raise MissingVerb(f"this model has no '{name}'{_who_has_it(able)}")


def _who_has_it(systems: Sequence[str]) -> str:
    """What models to give instead, and where to get one."""
    if not systems:
        return ""
    found = [name for name in networks.bundled() if _holds(name, systems)]
    where = f", such as the bundled '{found[0]}'" if found else (
        "; none is bundled, and "
        + config_names.with_pages(
            " or ".join(dict.fromkeys(registry.row(name).guide for name in systems))
        )
        + " says how to train one"
    )  # fmt: skip
    return f"; give one of system {' or '.join(systems)} (--model){where}"


def _holds(model: str, systems: Sequence[str]) -> bool:
    return not opening.systems_of(model).isdisjoint(systems)


def warn(notes: Iterable[str], level: int = 5) -> None:
    """Notes that no result holds, as warnings of who called the `checked` method.

    Args:
      notes: texts.
      level: of the stack; 5 within the method itself.
    """
    for note in notes:
        warnings.warn(note, stacklevel=level)


def steps(model: EditingModel, verb: str, values: Mapping[str, Any]) -> edit.Steps:
    """The requests of a verb of `DRAWN`; see `api.Model.steps`.

    The signature of the model's method decides what the arguments may be. Its first
    one is the photo or an earlier Edit, which the new one goes on from.
    """
    work = DRAWN[verb]
    # All arguments, with their defaults: a pipeline has none of its own for what users
    # see.
    given, decode = arguments.complete(
        getattr(type(model), verb), values, model.OPTIONS
    )
    source, located = given.pop(next(iter(given))), given.pop("keep_location")

    def of_pixels(photo: np.ndarray) -> edit.Steps:
        return work(model, photo, decode=decode, **_grouped(given))

    return edit.continued(source, of_pixels, located)


def _grouped(values: Mapping[str, Any]) -> dict[str, Any]:
    """A verb's arguments, the fields of a Selection or a Blend among them as one."""
    given = dict(values)
    for group, kind in (("selection", Selection), ("blend", Blend)):
        names = [f.name for f in dataclasses.fields(kind) if f.name in given]
        if names:
            given[group] = kind(**{name: given.pop(name) for name in names})
    return given
