"""What a perception model says of pictures, before and after reconstruction."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from gptface_jax.evaluate import perception


@dataclasses.dataclass(frozen=True)
class Perceiver:
    """A perception model as a function.

    Attributes:
      read: uint8 [B,H,W,3] -> "classes" int [B,S,S] and "points" float32 [B,P,2], or
        one of them.
      classes: names of the classes.
      scheme: of the points, see `perception.landmark_normalisers`.
    """

    read: Callable[[np.ndarray], Mapping[str, np.ndarray]]
    classes: tuple[str, ...] = ()
    scheme: str = ""


class Perceived:
    """Agreement of what it says of pictures and of their reconstructions, added up."""

    def __init__(self, perceiver: Perceiver):
        self.perceiver = perceiver
        self.matrix = np.zeros((len(perceiver.classes),) * 2, np.int64)
        self.errors: list[np.ndarray] = []

    def add(self, image: np.ndarray, again: np.ndarray) -> None:
        """Adds pictures uint8 [B,H,W,3] and their reconstructions."""
        before, after = map(self.perceiver.read, (image, again))
        if "classes" in before:
            maps = before["classes"], after["classes"]
            self.matrix += perception.confusion(*maps, len(self.perceiver.classes))
        if "points" in before:
            points, scheme = before["points"], self.perceiver.scheme
            apart = perception.landmark_normalisers(points, scheme)["inter_ocular"]
            error = perception.landmark_error(after["points"], points, apart)
            self.errors.append(error[np.isfinite(error)])

    def figures(self) -> dict[str, float]:
        """Figures of all that was added; of what the model does not say there are none.

        Returns:
          parsing_agreement: mean F1 of the classes but the background, of the maps of
            the reconstructions against those of the pictures; parsing_agreement/CLASS
            of each that any shows.
          landmark_shift: mean distance between the points of both, in distances of the
            outer eye corners.
        """
        found = perception.parsing(self.matrix)
        result = {"parsing_agreement": found.mean}
        for name, f1 in zip(self.perceiver.classes, found.f1):
            result[f"parsing_agreement/{name}"] = float(f1)
        if moved := np.concatenate([[], *self.errors]).tolist():
            result["landmark_shift"] = float(np.mean(moved))
        return {name: x for name, x in result.items() if np.isfinite(x)}
