"""Proposed masks against the pixels that an edit of a drawn face changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tqdm

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import captions, synthetic
from gptface_jax.pipelines import region_proposal
from gptface_jax.protocols.model import Model

# Attributes that change a part of a drawn face.
SHOWN = (
    "Smiling", "Eyeglasses", "Wearing_Hat", "Black_Hair", "Blond_Hair", "No_Beard",
    "Mustache", "Wearing_Lipstick",
)  # fmt: skip


def proposals(
    model: Model,
    attributes: Sequence[str],
    count: int,
    *,
    method: str = "likelihood",
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """Overlap of proposed masks with the pixels that an edit of a drawn face changes.

    The truth is that of two drawings that differ in one attribute. "proposed" is what
    `region_proposal.propose` makes of the sentence alone. "saliency" knows the sentence
    that is true now; like the others it takes the share of tokens that the attribute
    changes on average in other faces, from which the average map comes too.

    Args:
      model: the networks.
      attributes: names of `synthetic.ATTRIBUTES`.
      count: faces of each.
      method: of `region_proposal.saliency`.
      seed: of the faces and of the random blobs.
      progress: show a bar.

    Returns:
      {"attributes": name -> {mask: mean IoU over tokens}, "mean": {mask: ...}} of the
      masks proposed, saliency, saliency x average, average, centre, random.

    Raises:
      UserError: an attribute that drawn faces do not have.
    """
    for name in attributes:
        if name not in synthetic.ATTRIBUTES:
            hint = nearest(name, synthetic.ATTRIBUTES)
            raise UserError(
                f"drawn faces have no attribute '{name}'{hint}; they have "
                + ", ".join(synthetic.ATTRIBUTES)
            )
    grid = model.grid
    size = model.editor.size
    faces = synthetic.SyntheticFaces(size=size, count=4000, seed=1000 + seed)
    rng = np.random.default_rng(seed)
    bar = tqdm.tqdm(total=len(attributes) * count, disable=not progress)
    table = {}
    for name in attributes:
        found: dict[str, list[float]] = {}
        number = -1
        for _ in range(count):
            truth = np.zeros(grid, bool)
            while not truth.any():
                number += 1
                before = faces.factors(number)
                present, truth = region_proposal.changed_tokens(before, name, grid)
            record = faces[number]
            texts = [
                captions.edit_text(
                    name, p, record.labels, np.random.default_rng(number)
                )
                for p in (present, not present)
            ]
            masks = _masks(model, record.image, name, texts, method, rng)
            for kind, mask in masks.items():
                iou = (mask & truth).sum() / (mask | truth).sum()
                found.setdefault(kind, []).append(iou)
            bar.update(1)
        table[name] = {kind: float(np.mean(x)) for kind, x in found.items()}
    bar.close()
    kinds = list(table[attributes[0]])
    mean = {k: float(np.mean([row[k] for row in table.values()])) for k in kinds}
    return {"attributes": table, "mean": mean}


def _masks(model, picture, name, texts, method, rng) -> dict[str, np.ndarray]:
    """Every kind of mask, bool [h,w], of a picture uint8 [S,S,3].

    `texts` are the sentence that is wanted and the one that is true now.
    """
    grid = model.grid
    average = region_proposal.attribute_prior(name, grid)
    area = float(average.mean())
    wanted, now = texts
    salience = region_proposal.saliency(
        model.editor, picture[None], wanted, now, method
    )
    middle = (np.array(grid) - 1) / 2
    return {
        "proposed": region_proposal.propose(
            model.editor, picture, wanted, method=method
        ),
        "saliency": region_proposal.mask_tokens(salience, area),
        "saliency x average": region_proposal.mask_tokens(salience, area, average),
        "average": _highest(average, area),
        "centre": _highest(_from(middle, grid), area),
        "random": _highest(_from(rng.integers(grid), grid), area),
    }


def _highest(values: np.ndarray, area: float) -> np.ndarray:
    """The highest cells, exactly as many as the share says; the first of equal ones."""
    count = max(1, round(area * values.size))
    chosen = np.zeros(values.size, bool)
    chosen[np.argsort(-values.ravel(), kind="stable")[:count]] = True
    return chosen.reshape(values.shape)


def _from(point: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Minus the distance of each cell to a point: its highest are a blob."""
    rows, columns = np.indices(grid)
    return -np.hypot(rows - point[0], columns - point[1])
