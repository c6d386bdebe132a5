"""What edits change beside what was asked for, and how natural they look.

Figures of `SideEffects.figures`, of those measures that are wanted:

kept_distance: mean distance to the photographs, in a feature space, outside the regions
points_moved: mean distance that points of the face mesh outside the regions move, as a
    share of that between the eyes
faces_lost: share of the photographs with a face in which none is found after the edit
kid: kernel inception distance of the edits to their photographs, mean of its tasks
seam_auc: how well a detector that was trained on the edits of the first half of the
    photographs tells those of the second half by their borders (`seams`); .5 is chance
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np

from gptface_jax.evaluate import distributions, edits, landmarks
from gptface_jax.protocols import seams
from gptface_jax.protocols.feature_space import FeatureSpace

Landmarks = Callable[[np.ndarray], np.ndarray]


@dataclasses.dataclass(frozen=True)
class _Task:
    """What is known of the edits of one task."""

    kind: str
    regions: np.ndarray
    groups: Sequence[int]
    features: tuple[np.ndarray, np.ndarray] | None
    distance: np.ndarray | None
    points: tuple[np.ndarray, np.ndarray] | None
    borders: tuple[seams.Bordered, seams.Bordered] | None


class SideEffects:
    """Collects edits task by task; see the module's docstring.

    Attributes:
      space: in whose features pictures are compared.
      landmarks: uint8 [B,H,W,3] -> 68 points [B,68,2] of their faces, or NaN.
      seams: train a detector of seams.
    """

    def __init__(
        self,
        space: FeatureSpace | None = None,
        landmarks: Landmarks | None = None,
        seams: bool = False,
    ):
        self.space, self.landmarks, self.seams = space, landmarks, seams
        self._tasks: list[_Task] = []
        self._known: tuple[np.ndarray, dict] = np.zeros(0), {}

    def add(
        self,
        kind: str,
        photos: np.ndarray,
        images: np.ndarray,
        regions: np.ndarray,
        groups: Sequence[int] | None = None,
    ) -> None:
        """Looks at edits of photographs.

        Args:
          kind: of the edits.
          photos, images: uint8 [B,S,S,3], before and after.
          regions: bool [B,S,S], what might change.
          groups: [B], which of them have to do with one another; by default none.
        """
        if self._known[0] is not photos:  # most tasks are about the same
            self._known = photos, self._seen(photos)
        before, after = self._known[1], self._seen(images)
        distance = borders = None
        if self.space:
            distance = self.space.outside(images, photos, regions)
        if self.seams:
            borders = tuple(seams.bordered(x, regions) for x in (images, photos))
        pairs = [(after[k], before[k]) if k in after else None for k in _SEEN]
        features, points = pairs
        groups = range(len(photos)) if groups is None else groups
        seen = features, distance, points, borders
        self._tasks.append(_Task(kind, regions, groups, *seen))

    def _seen(self, images: np.ndarray) -> dict[str, np.ndarray]:
        found = {}
        if self.space:
            found["features"] = self.space.of_photos(images)
        if self.landmarks:
            found["points"] = self.landmarks(images)
        return found

    def features(self) -> list[np.ndarray]:
        """Features [B,D] of the edits of each task."""
        return [task.features[0] for task in self._tasks]

    def figures(self) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Figures of all edits, and of each kind's."""
        scores = self._scores()
        kinds = list(dict.fromkeys(task.kind for task in self._tasks))

        def of(numbers: Sequence[int]) -> dict[str, float]:
            return _figures(
                [self._tasks[i] for i in numbers],
                [scores[i] for i in numbers] if scores else None,
            )

        every = range(len(self._tasks))
        return of(every), {
            kind: of([i for i in every if self._tasks[i].kind == kind])
            for kind in kinds
        }

    def _scores(self) -> list[tuple[np.ndarray, np.ndarray]] | None:
        """The detector's scores of (edits, photographs) of each task's second half."""
        if not self.seams:
            return None
        halves = [len(task.regions) // 2 for task in self._tasks]
        first = [
            [task.borders[side][:half] for task, half in zip(self._tasks, halves)]
            for side in (0, 1)
        ]
        score = seams.detector(*map(seams.joined, first))
        return [
            tuple(score(side[half:]) for side in task.borders)
            for task, half in zip(self._tasks, halves)
        ]


_SEEN = ("features", "points")


def _figures(
    tasks: Sequence[_Task], scores: Sequence[tuple[np.ndarray, np.ndarray]] | None
) -> dict[str, float]:
    found = {}
    if tasks[0].distance is not None:
        found["kept_distance"] = np.mean(np.concatenate([t.distance for t in tasks]))
        kids = [distributions.kernel_distance(*t.features, t.groups) for t in tasks]
        found["kid"] = np.mean(kids)
    if tasks[0].points is not None:
        moved = [landmarks.moved_outside(*t.points[::-1], t.regions) for t in tasks]
        after, before = (
            ~np.isnan(np.concatenate([t.points[side] for t in tasks])).any((1, 2))
            for side in (0, 1)
        )
        if (known := ~np.isnan(moved := np.concatenate(moved))).any():
            found["points_moved"] = np.mean(moved[known])
        if before.any():
            found["faces_lost"] = 1 - np.mean(after[before])
    if scores:
        pairs = map(np.concatenate, zip(*scores))
        found["seam_auc"] = edits.area_under_curve(*pairs)
    return {name: float(value) for name, value in found.items()}
