"""Edits of pictures, judged by a classifier: did they do what the text says?"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tqdm

from gptface_jax.core.errors import UserError
from gptface_jax.data import (
    blending,
    captions,
    image,
    regions,
    sources,
    synthetic,
)
from gptface_jax.data.record import Record
from gptface_jax.evaluate import agreement, distributions, edits
from gptface_jax.protocols.judge import Judge
from gptface_jax.protocols.model import Model
from gptface_jax.protocols.records import pictures_of
from gptface_jax.systems.gptface.options import DecodeConfig


def judge_edits(
    model: Model,
    judge: Judge,
    records: Sequence[Record],
    attributes: Sequence[str],
    config: DecodeConfig,
    seed: int = 0,
    *,
    samples: int = 1,
    borders: int = 0,
    batch_size: int = 32,
    truth: Callable[[int, str, bool], np.ndarray] | None = None,
    features: Callable[[np.ndarray], np.ndarray] | None = None,
    people: np.ndarray | None = None,
    progress: bool = True,
) -> dict[str, Any]:
    """Edits every picture twice an attribute: text for it, text against it.

    The named region of the attribute is masked, the result composited into the
    picture, and the judge says whether the attribute is there.

    Args:
      model, judge: what edits and what judges.
      records: pictures with labels.
      attributes: to ask for.
      config: of the decoder.
      seed: of the decoding.
      samples: candidates an edit; the best by the model's own match is judged.
      borders: levels, see `Model.edit`; by default what the model drew is judged.
      batch_size: edits decoded at once.
      truth: (number of the picture, attribute, present) -> the picture as it ought
        to look, uint8 [S,S,3].
      features: uint8 [B,S,S,3] -> [B,D] of a network trained apart.
      people: [N], who is shown; only of drawn faces.
      progress: show a bar.

    Returns:
      {"attributes": name -> `edits.Rates` as dict, "mean": of all edits,
      "outside_psnr", "outside_psnr_raw" in dB, "examples": uint8
      [A,3,S,S,3] first picture before, asked, opposite,
      "others_kept": share of the judge's other verdicts that the edits leave alone,
      "seconds": an edit, without compilation; with `truth` "inside_psnr": dB within
      the region; with `features` "frechet": distance of edits to unedited pictures;
      with `people` too "same_person": share of edits to which, of all other pictures
      before, the nearest in features is one of the same person, and
      "same_person_before": that of the pictures before}.
    """
    missing = [a for a in attributes if a not in judge.attributes]
    if missing:
        raise UserError(
            f"the judge does not know '{missing[0]}'; it knows "
            + ", ".join(judge.attributes)
        )
    nowhere = [a for a in attributes if a not in regions.OF_ATTRIBUTE]
    if nowhere:
        raise UserError(
            f"no region is known where '{nowhere[0]}' shows; use "
            + ", ".join(a for a in judge.attributes if a in regions.OF_ATTRIBUTE)
        )
    size = model.editor.size
    photos = pictures_of(records, size)
    before = judge(_sized(photos, judge.size))
    table, verdicts, examples = {}, {True: [], False: []}, []
    kept, raw, inside, others, drawn_features, seconds = [], [], [], [], [], []
    bar = tqdm.tqdm(total=2 * len(attributes) * len(records), disable=not progress)
    for place, name in enumerate(attributes):
        column = judge.attributes.index(name)
        region = regions.region_mask(regions.OF_ATTRIBUTE[name], size)
        grid = model.editor.gptface.config.layout.grid
        drawn = image.tokens_to_pixels(
            image.pixels_to_tokens(region, grid), region.shape
        )
        seen = {}
        for present in (True, False):
            texts = [
                captions.edit_text(
                    name, present, r.labels, np.random.default_rng([seed, i, place])
                )
                for i, r in enumerate(records)
            ]
            key = jax.random.fold_in(jax.random.key(seed), place)
            decoded, spent = _edit_all(
                model, photos, region, texts, config, key, samples, batch_size, bar
            )
            seconds += spent
            pasted = []
            for a, b in zip(photos, decoded):
                b = blending.continue_colours(a, b, drawn)
                b = blending.meet_borders(a, b, region, borders)
                pasted.append(blending.composite(a, b, region, max(1, size // 32)))
            pasted = np.stack(pasted)
            masks = np.broadcast_to(region, photos.shape[:3])
            kept.append(edits.outside_psnr(pasted, photos, masks))
            raw.append(edits.outside_psnr(decoded, photos, masks))
            said = judge(_sized(pasted, judge.size))
            seen[present] = (pasted, said[:, column])
            verdicts[present].append(said[:, column])
            others.append(np.delete(said == before, column, axis=1).mean())
            if truth:
                wanted = [
                    image.fit(truth(i, name, present), size) for i in range(len(photos))
                ]
                inside.append(edits.outside_psnr(pasted, np.stack(wanted), ~masks))
            if features:
                drawn_features.append(features(pasted))
        rates = edits.rates(seen[True][1], seen[False][1], before[:, column])
        table[name] = rates.to_dict()
        examples.append([photos[0], seen[True][0][0], seen[False][0][0]])
    bar.close()
    everything = edits.rates(
        np.concatenate(verdicts[True]),
        np.concatenate(verdicts[False]),
        np.concatenate([before[:, judge.attributes.index(a)] for a in attributes]),
    )
    figures = {
        "attributes": table,
        "mean": everything.to_dict(),
        "outside_psnr": float(np.min(kept)),
        "outside_psnr_raw": float(np.mean(raw)),
        "others_kept": float(np.mean(others)),
        # The first batch of each shape was compiled.
        "seconds": float(np.median(seconds)) / batch_size,
        "examples": np.array(examples),
    }
    if truth:
        # A region that is as it ought to be counts as 60 dB.
        figures["inside_psnr"] = float(np.mean(np.minimum(np.concatenate(inside), 60)))
    if features:
        originals = features(photos)
        figures["frechet"] = distributions.frechet_distance(
            np.concatenate(drawn_features), originals
        )
        if people is not None:
            parts = ("same_person", drawn_features), ("same_person_before", [originals])
            for name, sets in parts:
                sums = [agreement.identity_sums(x, originals, people) for x in sets]
                hits, count = np.sum(sums, axis=0)
                figures[name] = float(hits / count) if count else float("nan")
    return figures


# Figure of `judge_edits` -> column, digits.
_COLUMNS = {
    "asked": ("asked", 3),
    "opposite": ("opposite", 3),
    "gap": ("gap", 3),
    "others_kept": ("others kept", 3),
    "same_person": ("same person", 3),
    "inside_psnr": ("inside, dB", 2),
    "frechet": ("Frechet", 2),
    "seconds": ("s/edit", 3),
}


def edits_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Markdown: what `gptface evaluate edits` found, a line for each method.

    Args:
      rows: "method", "seed", "forwards" and the figures of `judge_edits`.

    Returns:
      Means over the seeds, of the gap with the lowest and the highest one.
    """
    flat = [{**row, **row["mean"]} for row in rows]
    shown = {k: c for k, c in _COLUMNS.items() if any(k in row for row in flat)}
    lines = [["method", "forwards", *(column for column, _ in shown.values())]]
    lines.append(["---"] * len(lines[0]))
    for method in dict.fromkeys(row["method"] for row in flat):
        same = [row for row in flat if row["method"] == method]
        line = [method, str(same[0]["forwards"])]
        for name, (_, digits) in shown.items():
            values = [row[name] for row in same if name in row]
            text = f"{np.mean(values):.{digits}f}" if values else ""
            if name == "gap" and len(values) > 1:
                text += f" ({min(values):.{digits}f} to {max(values):.{digits}f})"
            line.append(text)
        lines.append(line)
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def counterfactuals(
    spec: Mapping[str, Any],
) -> Callable[[int, str, bool], np.ndarray]:
    """`truth` of `judge_edits` for the drawn faces of a spec."""
    faces = sources.open_source(spec)

    def truth(number: int, name: str, present: bool) -> np.ndarray:
        wanted = synthetic.set_attribute(faces.factors(number), name, present)
        return synthetic.render(wanted, faces.size).image

    return truth


def _sized(photos: np.ndarray, size: int) -> np.ndarray:
    if photos.shape[1] == size:
        return photos
    return np.stack([image.resize(p, (size, size)) for p in photos])


def _edit_all(
    model, photos, region, texts, config, key, samples, batch_size, bar
) -> tuple[np.ndarray, list[float]]:
    """Raw decodes uint8 [B,S,S,3], best of `samples` by the model's own match.

    And the seconds of every batch.
    """
    results, seconds = [], []
    for start in range(0, len(photos), batch_size):
        numbers = np.arange(start, start + batch_size) % len(photos)
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(numbers)
        begin = time.perf_counter()
        batch = model.editor.edit(
            photos[numbers],
            np.repeat(region[None], batch_size, 0),
            [texts[i] for i in numbers],
            config,
            keys,
            samples=samples,
        )
        count = min(batch_size, len(photos) - start)
        results.append(batch.images[:count])
        seconds.append(time.perf_counter() - begin)
        bar.update(count)
    return np.concatenate(results), seconds
