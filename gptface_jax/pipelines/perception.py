"""What a perception model says of the faces of a photo: points, parts, age, expression.

Faces are found and brought upright first; each is looked at by itself. Nothing here
tells who somebody is: the task of recognition has no answer of its own.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import image as images
from gptface_jax.data.perception_examples import answer_names
from gptface_jax.nn.perception import Perception, prediction
from gptface_jax.nn.transformer import on_any_device
from gptface_jax.ops import losses
from gptface_jax.pipelines import framing, rows
from gptface_jax.pipelines.face_view import SeesFaces
from gptface_jax.pipelines.faces import Face
from gptface_jax.pipelines.networks import Network
from gptface_jax.pipelines.rows import Rows, Steps
from gptface_jax.pipelines.views import Box, View
from gptface_jax.systems.faceptor import objective

_SHOWN = 0.5  # probability from which an attribute is said to be there


@dataclasses.dataclass(frozen=True)
class FaceSeen:
    """Predictions for one face; None for tasks that the model was not trained on.

    Attributes:
      number: from 1 on, by the left edge.
      view: the square of the photo that the model saw.
      face: as the detector found it; None where the square was given.
      landmarks: float64 [P,2] (x, y) in pixels of the photo.
      landmark_confidences: [P], the peak 0..1 of the map that each is read from.
      parsing: uint8 [S,S] classes of the square, at the model's size.
      classes: names of these.
      parsing_confidence: mean probability of the class that is told.
      age, age_spread: mean and standard deviation of the age in years, as told.
      expression: the likeliest, and `expressions` the probabilities of all.
      attributes: name -> probability, all that the model knows.
    """

    number: int
    view: View
    face: Face | None = None
    landmarks: np.ndarray | None = None
    landmark_confidences: np.ndarray | None = None
    parsing: np.ndarray | None = None
    classes: tuple[str, ...] = ()
    parsing_confidence: float | None = None
    age: float | None = None
    age_spread: float | None = None
    expression: str | None = None
    expressions: Mapping[str, float] = dataclasses.field(default_factory=dict)
    attributes: Mapping[str, float] = dataclasses.field(default_factory=dict)

    @property
    def present(self) -> dict[str, float]:
        """The attributes that are said to be there, the surest first."""
        order = sorted(self.attributes.items(), key=lambda pair: -pair[1])
        return {name: p for name, p in order if p >= _SHOWN}

    def described(self) -> dict[str, Any]:
        """Predictions as JSON types: pixels to a hundredth, the map as shares."""
        found: dict[str, Any] = {"number": self.number, **self.view.described()}
        if self.face is not None:
            found["box"] = [round(v, 2) for v in self.face.box]
        if self.age is not None:
            found["age"] = {
                "years": round(self.age, 1),
                "spread": round(self.age_spread or 0.0, 1),
            }
        if self.expression is not None:
            found["expression"] = self.expression
        for name in ("expressions", "attributes"):
            if said := getattr(self, name):
                found[name] = {k: round(float(p), 4) for k, p in said.items()}
        if self.landmarks is not None:
            found["landmarks"] = np.round(self.landmarks, 2).tolist()
        if (sure := self.landmark_confidences) is not None:
            found["landmark_confidences"] = [round(float(p), 4) for p in sure]
        if self.parsing is not None:
            count = np.bincount(self.parsing.ravel(), minlength=len(self.classes))
            share = count / self.parsing.size
            named = dict(zip(self.classes, share.tolist()))
            found["parsing"] = {k: round(v, 4) for k, v in named.items() if v}
            found["parsing_confidence"] = round(float(self.parsing_confidence or 0), 4)
        return found


@dataclasses.dataclass(frozen=True)
class NoOptions:
    """No options: perception has none."""


class PerceptionModel(SeesFaces):
    """A trained Faceptor that looks at the faces of photos.

    Args:
      network: of the system "faceptor"; its parameters hold the statistics of batches.
      frame: see `SeesFaces`.
      tokenise: of a model on image tokens, what makes them of float [B,S,S,3].
      card: the model card.
      dtype: of the activations, "float32" or "bfloat16"; default the network's.
      taught: task -> the attributes that its data labelled; of others nothing is said.
        A task that is not in it was taught all.
      tasks: that it was trained on; of others nothing is said. None for all.
      stages: task -> 1 or 2, the stage at which it was trained and is asked; of one
        that is not in it, the last stage that the network has.
      latest: the tasks that were trained last, which are asked before others.
    """

    OPTIONS = NoOptions

    def __init__(
        self,
        network: Network,
        frame: Any = None,
        tokenise: Callable[[jax.Array], jax.Array] | None = None,
        card: str = "",
        dtype: str | None = None,
        taught: Mapping[str, Sequence[str]] | None = None,
        tasks: Sequence[str] | None = None,
        stages: Mapping[str, int] | None = None,
        latest: Sequence[str] = (),
    ):
        self.network, self.card, self.dtype = network, card, dtype
        self.taught = dict(taught or {})
        has = tuple(task.name for task in network.config.tasks)
        self.tasks = has if tasks is None else tuple(t for t in has if t in tasks)
        self.latest, last = tuple(latest), network.config.last_stage
        self.stages = {t: min((stages or {}).get(t, last), last) for t in has}
        self.frame = framing.checked_frame(frame)
        self.tokenise = tokenise
        self.module = Perception(with_dtype(network.config, dtype))
        params = dict(jax.tree.map(jnp.asarray, network.params))
        stats = params.pop(objective.STATS, {})
        self.variables = {"params": params, objective.STATS: stats}

    def __repr__(self) -> str:
        return f"<gptface_jax.{type(self).__name__} {self.digest}, {self.size} px>"

    def on(self, devices: Sequence[jax.Device]) -> Self:
        """The model itself: what it says one by one needs one device."""
        del devices
        return self

    @property
    def config(self):
        return self.module.config

    @property
    def digest(self) -> str:
        """Digest of the network's weights."""
        return self.network.digest

    @property
    def size(self) -> int:
        """See `SeesFaces`: the larger of its two sizes."""
        return max(self.config.attribute_resolution, self.config.dense_resolution)

    def chosen(self, tasks: Sequence[str] | None = None) -> tuple[str, ...]:
        """The tasks that are asked: those given, or the first of each family.

        Of a family the tasks that were trained last come first.

        Raises:
          UserError: a task that there is not, that it was not trained on or that says
            who somebody is, or two of one family.
        """
        known = [t for t in self.tasks if self.config.task(t).has_queries]
        if tasks is None:
            order = sorted(known, key=lambda name: name not in self.latest)
            first = {name.partition("_")[0]: name for name in reversed(order)}
            return tuple(name for name in known if name in first.values())
        for task in tasks:
            if task not in known:
                raise UserError(
                    f"task '{task}' cannot be asked{nearest(task, known)}; the model "
                    f"was trained on {', '.join(known) or 'none that can'}"
                )
        families = [task.partition("_")[0] for task in tasks]
        if len(set(families)) < len(families):
            raise UserError(
                f"tasks {', '.join(tasks)} are of one family; ask one after the other"
            )
        return tuple(tasks)

    def look(self, squares_seen: Sequence[np.ndarray], tasks: Sequence[str]) -> Rows:
        """Rows whose answer is predictions for squares, {task: {name: array [B,...]}}.

        Args:
          squares_seen: uint8 [S,S,3] each, any sizes.
          tasks: of `chosen`.
        """
        sides = sorted({self.config.resolution(task) for task in tasks})
        arrays = [
            np.stack([images.resize(x, (side, side)) for x in squares_seen])
            for side in sides
        ]

        def run(*pixels):
            by_side = {side: images.to_unit_range(x) for side, x in zip(sides, pixels)}
            return self._answers(self.variables, by_side, tuple(tasks))

        return Rows(run, arrays, tuple(tasks))

    @functools.partial(jax.jit, static_argnums=(0, 3))
    def _answers(self, variables, by_side, tasks):
        config = self.config
        raw = {}
        for stage in sorted({self.stages[task] for task in tasks}):
            asked = [task for task in tasks if self.stages[task] == stage]
            # One array for all tasks of a size: the encoder sees it once.
            given = {task: by_side[config.resolution(task)] for task in asked}
            raw |= objective.forward(
                self.module, variables, given, stage, None, self.tokenise
            )[0]
        return {task: _said(config, task, raw[task]) for task in tasks}

    def views(
        self, photo: np.ndarray, face: int | Face | None, align: bool, crop: Box | None
    ) -> tuple[list[tuple[int, Face | None, View]], list[str]]:
        """(number, face, square) of every face that is asked for, and notes."""
        if face is None and align and crop is None and self.frame is not None:
            found = self.found_faces(photo, None, True, None) or []
            if found:
                return [
                    (number, one, self.view_of(one, photo))
                    for number, one in enumerate(found, 1)
                ], []
        (one, view), notes = self.seen(photo, face, align, crop)
        return [(face if isinstance(face, int) else 1, one, view)], notes

    def perceived(
        self,
        photo: np.ndarray,
        face: int | Face | None = None,
        align: bool = True,
        crop: Box | None = None,
        tasks: Sequence[str] | None = None,
    ) -> Steps[tuple[list[FaceSeen], list[str]]]:
        """Steps to predictions for the faces of a photo uint8 [H,W,3], and notes.

        Args:
          photo: the picture.
          face: number or one of `faces.find`; default all.
          align: find faces and bring them upright.
          crop: a square that an upright face fills.
          tasks: see `chosen`.

        Raises:
          UserError: no face, or an argument that cannot be used.
        """
        asked = self.chosen(tasks)
        if not asked:
            known = ", ".join(self.chosen()) or "none, so that it has nothing to say"
            raise UserError(f"no task is asked; those that can be are {known}")
        views, notes = self.views(photo, face, align, crop)
        said = yield self.look([view.picture(photo) for *_, view in views], asked)
        return [
            self._seen(jax.tree.map(lambda x, i=i: x[i], said), *where)
            for i, where in enumerate(views)
        ], notes

    @property
    def _parsing_tasks(self) -> list[str]:
        return [task for task in self.chosen() if task.startswith("parsing_")]

    @property
    def predicts_parsing(self) -> bool:
        """Whether the model was trained on parsing."""
        return bool(self._parsing_tasks)

    def parsing(
        self, photo: np.ndarray, view: View
    ) -> tuple[np.ndarray, tuple[str, ...]]:
        """Classes uint8 [S,S] of a square of a photo, and what they are called.

        Raises:
          UserError: the model was not trained on parsing.
        """
        asked = self._parsing_tasks
        if not asked:
            known = ", ".join(self.chosen()) or "none"
            raise UserError(
                f"the perception model {self.digest} tells no parts; give one with a "
                f"task of parsing (this one has {known})"
            )
        (said,) = rows.answer([self.look([view.picture(photo)], asked)])
        row = jax.tree.map(lambda x: x[0], said)
        seen = self._seen(row, 1, None, view)
        return seen.parsing, seen.classes

    def _seen(self, said, number: int, face: Face | None, view: View) -> FaceSeen:
        """The answers of all tasks for one face, put together."""
        found: dict[str, Any] = {}
        for task, parts in said.items():
            entry = self.config.task(task)
            names = answer_names(task, entry.queries)
            if entry.family == "align":
                points = np.float64(parts["points"]) * view.side
                found["landmarks"] = view.way.inverse.points(points)
                found["landmark_confidences"] = parts["peaks"]
            elif entry.family == "parsing":
                found["parsing"], found["classes"] = np.uint8(parts["classes"]), names
                found["parsing_confidence"] = float(parts["confidence"])
            elif entry.family == "age":
                found["age"] = float(parts["mean"])
                found["age_spread"] = float(parts["spread"])
            else:
                named = dict(zip(names, map(float, parts["probabilities"])))
                if entry.family == "affect":
                    found["expressions"] = named
                    found["expression"] = max(named, key=named.__getitem__)
                else:
                    known = self.taught.get(task, names)
                    found["attributes"] = {k: named[k] for k in names if k in known}
        return FaceSeen(number, view, face, **found)


def _said(config, task: str, raw: jax.Array) -> dict[str, jax.Array]:
    """A task's answer as probabilities, points and classes."""
    family = config.task(task).family
    if family == "align":
        peaks = jax.nn.sigmoid(jnp.max(raw, (1, 2)))
        return {"points": prediction(config, task, raw), "peaks": peaks}
    if family == "parsing":
        p = jax.nn.softmax(prediction(config, task, raw))
        confidence = jnp.mean(jnp.max(p, -1), (1, 2))
        return {"classes": jnp.argmax(p, -1), "confidence": confidence}
    if family == "age":
        p = losses.age_probabilities(raw)
        years = jnp.arange(raw.shape[-1], dtype=jnp.float32)
        mean = p @ years
        spread = jnp.sqrt(jnp.sum(p * jnp.square(years - mean[:, None]), -1))
        return {"mean": mean, "spread": spread}
    odds = jax.nn.softmax if family == "affect" else jax.nn.sigmoid
    return {"probabilities": odds(raw)}


def with_dtype(config, dtype: str | None):
    """The config for work on any device, with activations of another dtype."""
    other, parts = {"dtype": dtype} if dtype else {}, {}
    for name in ("vit", "sequence"):
        part = getattr(config, name)
        layers = dataclasses.replace(on_any_device(part.transformer), **other)
        parts[name] = dataclasses.replace(part, transformer=layers)
    decoder = dataclasses.replace(config.decoder, **other)
    return dataclasses.replace(config, decoder=decoder, **parts)
