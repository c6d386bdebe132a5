"""Strength as a slider: edits at nine settings, scored by a judge (SPEC E.15).

Figures of `sweep`, by attribute:

settings: the strengths
scores: mean of the judge's logit at each; above 0 it sees the attribute
present: share of the pictures in which it does
before: that of the pictures before
rho: Spearman's, of settings and means
picture_rho: mean over the pictures of that of each
lowest_rho: of all pictures
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np
import tqdm

from gptface_jax.core.errors import UserError
from gptface_jax.data import regions
from gptface_jax.evaluate import strength as metrics
from gptface_jax.pipelines import strength
from gptface_jax.pipelines.compositing import BORDERS
from gptface_jax.protocols.editors import Task, by_model
from gptface_jax.protocols.judge import Judge
from gptface_jax.protocols.model import Model


def settings(most: float = strength.LIMIT) -> tuple[float, ...]:
    """Nine strengths, evenly from -`most` to `most`.

    Raises:
      UserError: the largest is not above 0.
    """
    if not most > 0:
        raise UserError(f"the largest strength is {most:g}; use more than 0, at most 4")
    return tuple(float(s) for s in np.linspace(-most, most, 9))


def sweep(
    model: Model,
    judge: Judge,
    photos: np.ndarray,
    attributes: Sequence[str],
    seeds: Sequence[int] = (0,),
    *,
    most: float = strength.LIMIT,
    num_candidates: int = 1,
    borders: int = BORDERS,
    batch_size: int = 16,
    progress: bool = True,
) -> tuple[dict[str, dict[str, Any]], dict[str, np.ndarray]]:
    """Judged share of an attribute at each setting of its slider.

    There is no text; the region in which the attribute shows is drawn anew, with the
    same random numbers at every setting.

    Args:
      model, judge: who edits and who judges.
      photos: uint8 [N,S,S,3].
      attributes: of `pipelines.strength.ATTRIBUTES`.
      seeds: of the decoding; each edits all the pictures.
      most: the largest of the settings.
      num_candidates: of each edit, chosen by the model's own matching.
      borders: levels, see `Model.edit`.
      batch_size: edits decoded at once.
      progress: show a bar.

    Returns:
      (attribute -> figures of the module's docstring; attribute -> pictures of the
      first seed, uint8 [9,N,S,S,3]).

    Raises:
      UserError: an attribute that the judge, the regions or the sentences do not know.
    """
    judge.check(attributes)
    strength.directions(dict.fromkeys(attributes, most))  # or it says which
    config, side = model.unsteered_config({}), photos.shape[1]
    edits = len(attributes) * len(settings(most)) * len(seeds) * len(photos)
    bar = tqdm.tqdm(total=edits, unit="edit", disable=not progress)
    figures, pictures = {}, {}
    for stream, name in enumerate(attributes):
        mask = regions.region_mask(strength.region([name]), side)
        masks = np.broadcast_to(mask, (len(photos), side, side))
        task = Task(name, True, masks, [""] * len(photos), stream)
        column, drawn, scores = judge.attributes.index(name), [], []
        for weight in settings(most):
            edit = functools.partial(
                by_model, model, config, num_candidates=num_candidates, borders=borders,
                batch_size=batch_size, strength=strength.directions({name: weight}),
            )  # fmt: skip
            found = [edit(seed)(photos, task, bar.update).images for seed in seeds]
            drawn.append(found[0])
            scores.append(judge.logits(np.concatenate(found))[:, column])
        before = judge.logits(photos)[:, column]
        figures[name] = _figures(settings(most), np.stack(scores), before)
        pictures[name] = np.stack(drawn)
    bar.close()
    return figures, pictures


def _figures(
    of: Sequence[float], scores: np.ndarray, before: np.ndarray
) -> dict[str, Any]:
    """Figures of an attribute from logits [9,N] and those of the pictures before."""
    rho, of_pictures = metrics.monotonicity(of, scores)
    return {
        "settings": [float(s) for s in of],
        "scores": [round(float(s), 4) for s in scores.mean(axis=1)],
        "present": [round(float(s), 4) for s in (scores > 0).mean(axis=1)],
        "before": round(float((before > 0).mean()), 4),
        "rho": round(rho, 4),
        "picture_rho": round(float(of_pictures.mean()), 4),
        "lowest_rho": round(float(of_pictures.min()), 4),
    }


def table(figures: dict[str, dict[str, Any]]) -> str:
    """Markdown: share present and mean score at each setting, and the correlations."""
    shown = [f"{s:+g}" for s in next(iter(figures.values()))["settings"]]
    lines = [["attribute", "before", *shown, "rho", "of each picture", "lowest"]]
    lines.append(["---"] * len(lines[0]))
    for name, row in figures.items():
        cells = [f"{p:.2f} ({s:+.1f})" for p, s in zip(row["present"], row["scores"])]
        ends = [f"{row[k]:.2f}" for k in ("rho", "picture_rho", "lowest_rho")]
        lines.append([name, f"{row['before']:.2f}", *cells, *ends])
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)
