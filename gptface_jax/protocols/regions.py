"""Regions of a face as its mesh has them and as a perception model sees them (E.11)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tqdm

from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io, regions, schemes
from gptface_jax.data.record import Record
from gptface_jax.evaluate import perception
from gptface_jax.pipelines import faces, framing, perceived_regions
from gptface_jax.pipelines.perception import PerceptionModel

NAMES = tuple(name for name in regions.CLASSES if name in regions.REGIONS)


def evaluate(
    model: PerceptionModel, records: Sequence[Record], progress: bool = True
) -> dict[str, Any]:
    """Both regions of every name that `edit` may take, against the true pixels.

    The face is found as an edit finds it; where none is, the picture's middle square
    is taken for an upright face. What the model does not see is the usual region, as in
    an edit.

    Args:
      model: with a task of parsing.
      records: with parsing maps; others are left out.
      progress: show a bar.

    Returns:
      "count" of pictures, "faces_found", and "regions": name -> {"count": pictures in
      which the truth shows it, "unseen": of these without it for the model, "mesh" and
      "perceived": means over these pictures of `evaluate.perception.overlap`}.

    Raises:
      UserError: no record has a parsing map, or the model tells no parts.
    """
    kept = [r for r in records if r.parsing is not None]
    if not kept:
        raise UserError(f"none of the {len(records)} pictures has a parsing map")
    rows: dict[str, list[tuple[bool, dict, dict]]] = {name: [] for name in NAMES}
    found = 0
    for record in tqdm.tqdm(kept, unit="image", disable=not progress):
        photo = image_io.decode(record.image)
        face = faces.largest(faces.find(photo))
        found += face is not None
        for name, row in _compared(model, record, photo, face).items():
            rows[name].append(row)
    return {
        "count": len(kept),
        "faces_found": found,
        "regions": {name: _summary(row) for name, row in rows.items() if row},
    }


def _compared(model, record, photo, face):
    """Name -> (whether it was seen, overlap by mesh, overlap as perceived)."""
    size = photo.shape[:2]
    _, view = model.seen(photo, face, align=face is not None)[0]
    covered = view.covered(size)
    classes = schemes.PARSING[record.parsing_scheme]
    truths = {
        name: regions.parsed_region(name, record.parsing, classes) for name in NAMES
    }
    seen, _ = perceived_regions.seen(model, "+".join(NAMES), photo, face, view)
    result = {}
    for name, truth in truths.items():
        if truth is None or not (truth & covered).any():
            continue
        usual = framing.default_region(name, size, face, view) & covered
        other = seen.get(name, usual) & covered
        result[name] = (
            name in seen,
            perception.overlap(usual, truth),
            perception.overlap(other, truth),
        )
    return result


def _summary(rows: Sequence[tuple[bool, dict, dict]]) -> dict[str, Any]:
    means = [
        {key: float(np.mean([row[i][key] for row in rows])) for key in rows[0][i]}
        for i in (1, 2)
    ]
    unseen = sum(not row[0] for row in rows)
    return {
        "count": len(rows), "unseen": unseen, "mesh": means[0], "perceived": means[1]
    }  # fmt: skip


def table(figures: dict[str, Any]) -> str:
    """Figures of `evaluate` as lines of a table, in the order of the regions."""
    head = "| region | pictures | unseen | IoU mesh | perceived | share of it mesh | "
    lines = [head + "perceived | of others mesh | perceived |", "| --- " * 9 + "|"]
    for name, row in figures["regions"].items():
        pairs = [
            f"{row[by][key]:.2f}"
            for key in ("iou", "covered", "beside")
            for by in ("mesh", "perceived")
        ]
        cells = [name, str(row["count"]), str(row["unseen"]), *pairs]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)
