"""Record -> an example of a perception task: picture, label, whether it counts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import tqdm

from gptface_jax.core import perception_tasks
from gptface_jax.core.errors import UserError
from gptface_jax.data import augmentation, image, phrases, schemes
from gptface_jax.data.record import Record
from gptface_jax.data.tables import CELEBA_ATTRIBUTES

NO_CLASS = 255  # of a parsing map: does not count
# Scheme -> names of the answers in their order; of landmarks there are none.
NAMES: Mapping[str, tuple[str, ...]] = {
    "celeba": tuple(CELEBA_ATTRIBUTES),
    "seven": perception_tasks.EXPRESSIONS,
    **schemes.PARSING,
}


@dataclasses.dataclass(frozen=True)
class PerceptionExample:
    """{"image" float32 [S,S,3] in [-1,1], "label", "weight"}, and perhaps "box".

    The label is what `systems.faceptor.objective.label_spec` says; a record that does
    not have it gets weight 0.

    Attributes:
      task: "family_dataset".
      queries: answers of the task.
      size: S.
      augmentation: how pictures are varied; None: not.
      people: of recognition, who is which number; see `people_of`.
      boxes: also "box" float32 [4] (x0, y0, x1, y1) of the face, shares of the sides;
        NaN of a record that has none, or several.
    """

    task: str
    queries: int
    size: int
    augmentation: augmentation.Augmentation | None = None
    people: Mapping[int | str, int] = dataclasses.field(default_factory=dict)
    boxes: bool = False

    def __call__(self, record: Record, rng: np.random.Generator) -> dict:
        family = self.task.partition("_")[0]
        kept = {
            "landmarks": self._points(record) if family == "align" else None,
            "parsing": self._map(record) if family == "parsing" else None,
            "parsing_scheme": self._scheme(record)
            if family == "parsing"
            else record.parsing_scheme,
        }
        boxes = record.boxes if self.boxes else None
        view = dataclasses.replace(record, boxes=boxes, **kept)
        view = augmentation.shown(view, self.size, self.augmentation, rng)
        label, known = getattr(self, f"_{family}")(view)
        example = {
            "image": image.to_unit_range(view.image),
            "label": label,
            "weight": np.float32(known),
        }
        return {**example, "box": self._box(view)} if self.boxes else example

    def _box(self, view):
        one = view.boxes is not None and len(view.boxes) == 1
        return np.float32(view.boxes[0] / self.size if one else [np.nan] * 4)

    def _recog(self, view):
        number = self.people.get(view.identity, -1)
        return np.int32(number), number >= 0

    def _age(self, view):
        age = (view.labels or {}).get("Age")
        return np.float32(0 if age is None else age), age is not None

    def _biattr(self, view):
        names = NAMES["celeba"]
        if self.queries != len(names):
            raise UserError(
                f"task '{self.task}' has {self.queries} queries; attributes of records "
                f"are CelebA's {len(names)}: set its queries to that"
            )
        states = [phrases.known(view.labels or {}, name) for name in names]
        label = np.array([-1 if s is None else s for s in states], np.float32)
        return label, (label >= 0).any()

    def _affect(self, view):
        if self.queries < (words := len(NAMES["seven"])):
            raise UserError(
                f"task '{self.task}' has {self.queries} queries; expressions of "
                f"records are {words}: set its queries to that"
            )
        known = view.expression in NAMES["seven"]
        number = NAMES["seven"].index(view.expression) if known else -1
        return np.int32(number), known

    def _parsing(self, view):
        if view.parsing is None:
            return np.full((self.size, self.size), NO_CLASS, np.uint8), False
        label = np.uint8(view.parsing)
        if (odd := label[(label >= self.queries) & (label != NO_CLASS)]).size:
            raise UserError(
                f"record '{view.source}' shows class {odd.max()} and task "
                f"'{self.task}' has {self.queries} queries, for classes 0 to "
                f"{self.queries - 1}; give the task more queries, or the pixel "
                f"{NO_CLASS}, which does not count"
            )
        return label, True

    def _align(self, view):
        points = view.landmarks
        known = points is not None
        if not known:
            points = np.full((self.queries, 2), np.nan, np.float32)
        return np.float32((points + 0.5) / self.size), known

    def _points(self, record):
        points = record.landmarks
        if points is not None and len(points) != self.queries:
            raise UserError(
                f"record '{record.source}' has {len(points)} landmarks and task "
                f"'{self.task}' asks for {self.queries}; give the task other data, or "
                "other queries"
            )
        return points

    def _map(self, record):
        """The record's map in the classes of the task."""
        wanted, given = self._scheme(record), record.parsing_scheme
        if record.parsing is None or wanted == given:
            return record.parsing
        try:
            return schemes.classes_as(given, wanted)[record.parsing]
        except UserError as error:
            raise UserError(
                f"record '{record.source}' for task '{self.task}': {error}; give it "
                "other data"
            ) from None

    def _scheme(self, record):
        """Label scheme of the task; the record's where the task has none."""
        known = perception_tasks.scheme(self.task, self.queries)
        return known or record.parsing_scheme


def answer_names(task: str, queries: int) -> tuple[str, ...]:
    """What a task's answers are called, in their order; numbers if they have no names.

    Args:
      task: "family_dataset".
      queries: its answers.
    """
    known = NAMES.get(perception_tasks.scheme(task, queries))
    return known or tuple(map(str, range(queries)))


def people_of(source: Sequence[Record], most: int) -> dict[int | str, int]:
    """Who is which number, 0 .. , of the people in a source.

    Args:
      source: records with an identity.
      most: rows of the classifier.

    Raises:
      UserError: nobody, or more people than that.
    """
    if hasattr(source, "factors"):  # drawn faces: nothing need be drawn for it
        found = {source.factors(i).identity for i in range(len(source))}
    else:
        bar = tqdm.tqdm(range(len(source)), "reading identities", leave=False)
        found = {source[i].identity for i in bar} - {None}
    if not 1 <= len(found) <= most:
        raise UserError(
            f"the data of recognition show {len(found)} people and its task has "
            f"{most} identities; set identities of the task in model.tasks"
        )
    order = sorted(found, key=lambda x: (isinstance(x, str), x))
    return {who: number for number, who in enumerate(order)}
