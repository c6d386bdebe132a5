"""What edits change beside what was asked for, and how natural they look.

Figures of `SideEffects.figures`, of those measures that are wanted:

kept_distance: mean distance to the photographs, in a feature space, outside the regions
points_moved: mean distance that points of the face mesh outside the regions move, as a
    share of that between the eyes
faces_lost: share of the photographs with a face in which none is found after the edit
kid: kernel inception distance of edits to the photographs, mean over tasks
seam_auc: how well a detector that was trained on all edits of the first half of the
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
class _Seen:
    """Features [B,D] of pictures and points [B,68,2] of their faces, if wanted."""

    features: np.ndarray | None
    points: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class _Task:
    """What is known of the edits of one task."""

    kind: str
    regions: np.ndarray
    groups: Sequence[int]
    before: _Seen
    after: _Seen
    distance: np.ndarray | None
    borders: tuple[seams.Bordered, seams.Bordered] | None  # after, before


class SideEffects:
    """Collects edits task by task; see the module's docstring.

    Attributes:
      space: in whose features pictures are compared.
      landmarks: uint8 [B,H,W,3] -> 68 points [B,68,2] of their faces, or NaN.
      detect: train a detector of seams.
    """

    def __init__(
        self,
        space: FeatureSpace | None = None,
        landmarks: Landmarks | None = None,
        detect: bool = False,
    ):
        self.space, self.landmarks, self.detect = space, landmarks, detect
        self._tasks: list[_Task] = []
        self._photos: np.ndarray | None = None

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
        if self._photos is not photos:  # most tasks are about the same
            self._photos, self._before = photos, self._seen(photos)
        distance = borders = None
        if self.space:
            distance = self.space.outside(images, photos, regions)
        if self.detect:
            edited = seams.bordered(images, regions)
            borders = edited, dataclasses.replace(edited, images=photos)
        groups = range(len(photos)) if groups is None else groups
        seen = self._before, self._seen(images)
        self._tasks.append(_Task(kind, regions, groups, *seen, distance, borders))

    def _seen(self, images: np.ndarray) -> _Seen:
        features = self.space.of_photos(images) if self.space else None
        return _Seen(features, self.landmarks(images) if self.landmarks else None)

    def features(self) -> tuple[list[np.ndarray], np.ndarray]:
        """Features [B,D] of each task's edits, and of the last one's photographs."""
        return [task.after.features for task in self._tasks], self._before.features

    def figures(self) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
        """Figures of all edits, and of each kind's."""
        scores = self._scores()
        pairs = list(zip(self._tasks, scores or self._tasks))

        def of(kind: str | None) -> dict[str, float]:
            own = [pair for pair in pairs if kind in (None, pair[0].kind)]
            tasks, found = zip(*own)
            return _figures(tasks, found if scores else None)

        return of(None), {task.kind: of(task.kind) for task in self._tasks}

    def _scores(self) -> list[tuple[np.ndarray, np.ndarray]] | None:
        """The detector's scores of (edits, photographs) of each task's second half."""
        if not self.detect:
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


def _figures(
    tasks: Sequence[_Task], scores: Sequence[tuple[np.ndarray, np.ndarray]] | None
) -> dict[str, float]:
    found = {}
    if tasks[0].distance is not None:
        distances = np.concatenate([t.distance for t in tasks])
        found["kept_distance"] = np.nanmean(distances)  # NaN: nothing is outside
        found["kid"] = np.mean([
            distributions.kernel_distance(t.after.features, t.before.features, t.groups)
            for t in tasks
        ])  # fmt: skip
    if tasks[0].before.points is not None:
        moved = [
            landmarks.moved_outside(t.before.points, t.after.points, t.regions)
            for t in tasks
        ]
        before, after = (
            ~np.isnan(np.concatenate(points)).any((1, 2))
            for points in zip(*((t.before.points, t.after.points) for t in tasks))
        )
        if (known := ~np.isnan(moved := np.concatenate(moved))).any():
            found["points_moved"] = np.mean(moved[known])
        if before.any():
            found["faces_lost"] = 1 - np.mean(after[before])
    if scores:
        pairs = map(np.concatenate, zip(*scores))
        found["seam_auc"] = edits.area_under_curve(*pairs)
    return {name: float(value) for name, value in found.items()}
