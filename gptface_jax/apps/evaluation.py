"""Figures of trained models: likelihoods, matching, edits judged by a classifier."""

from __future__ import annotations

import dataclasses
import functools
import os
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tqdm
from ml_collections import ConfigDict

from gptface_jax.apps import reconstructing
from gptface_jax.apps.api import Model
from gptface_jax.core.config import from_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.data import (
    blending,
    captions,
    image,
    image_io,
    phrases,
    probe,
    regions,
    sources,
    synthetic,
    transforms,
)
from gptface_jax.data.record import Record
from gptface_jax.evaluate import agreement, distributions, edits
from gptface_jax.experiments import opening, training
from gptface_jax.pipelines import networks
from gptface_jax.pipelines import region_proposal as proposing
from gptface_jax.systems.gptface.held_out import make_eval
from gptface_jax.systems.gptface.objective import ObjectiveConfig
from gptface_jax.systems.gptface.options import DecodeConfig

# Attributes that change a part of a drawn face.
SHOWN = (
    "Smiling", "Eyeglasses", "Wearing_Hat", "Black_Hair", "Blond_Hair", "No_Beard",
    "Mustache", "Wearing_Lipstick",
)  # fmt: skip


class Judge:
    """The classifier on uint8 pictures, in batches."""

    def __init__(self, network: networks.Network, batch_size: int = 64):
        self.attributes = tuple(network.config.attributes)
        self.size, self.batch_size = network.config.resolution, batch_size
        apply = functools.partial(network.module.apply, {"params": network.params})
        self._logits = jax.jit(apply)

    def __call__(self, images: np.ndarray) -> np.ndarray:
        """uint8 [B,S,S,3] -> bool [B,A], what is present."""
        results = []
        for start in range(0, len(images), self.batch_size):
            part = images[start : start + self.batch_size]
            short = self.batch_size - len(part)
            padded = np.concatenate([part, np.repeat(part[-1:], short, 0)])
            logits = self._logits(image.to_unit_range(padded))
            results.append(np.asarray(logits)[: len(part)] > 0)
        return np.concatenate(results)

    def balanced_accuracy(self, records: Sequence[Record]) -> dict[str, float]:
        """By attribute, on records with confident labels."""
        said = self(pictures_of(records, self.size))
        result = {}
        for i, name in enumerate(self.attributes):
            truth = [phrases.known(r.labels or {}, name) for r in records]
            sure = np.array([t is not None for t in truth])
            right = np.array([bool(t) for t in truth])
            result[name] = edits.balanced_accuracy(said[sure, i], right[sure])
        return result


def pictures_of(records: Sequence[Record], size: int) -> np.ndarray:
    """uint8 [B,S,S,3]."""
    return np.stack([image.fit(image_io.decode(r.image), size) for r in records])


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
                b = blending.blend_border(a, b, region, borders)
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


def features_of(judge: str | os.PathLike) -> Callable[[np.ndarray], np.ndarray]:
    """`features` of `judge_edits`: what a classifier sees before its last layer."""
    network = opening.open_network(judge, "judge")
    embed = reconstructing.on_pictures(network, "embed")

    def features(photos: np.ndarray) -> np.ndarray:
        parts = np.split(photos, range(64, len(photos), 64))
        return np.concatenate([embed(image.to_unit_range(part)) for part in parts])

    return features


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


def likelihood(
    run: str | os.PathLike,
    eval_spec: Mapping[str, Any] | None = None,
    *,
    records: int = 1024,
    max_phrases: int | None = None,
) -> dict[str, float]:
    """Masked likelihoods, matching accuracy and their unigram baselines.

    Args:
      run: GPTFace training run.
      eval_spec: token cache to evaluate on; default the run's own.
      records: held-out records used.
      max_phrases: of the captions; default as trained.

    Returns:
      The metrics of `systems.gptface.held_out.make_eval`, and
      image_unigram_nll, text_unigram_nll: of the training set's token
      frequencies, add-one smoothed, on the same held-out tokens.
    """
    network = opening.open_network(run, "gptface")
    config = ConfigDict(network.meta["config"])
    if eval_spec:
        config.data.eval = dict(eval_spec)
    config.data.eval_records = records
    if max_phrases:
        config.data.eval_captions = {
            **dict(config.data.get("eval_captions", {})),
            "max_phrases": max_phrases,
        }
    experiment = training.build(config, run)
    held_out = experiment.system.evaluations["eval"]
    batches = held_out.batches or []
    figures = _means(held_out.metrics, network.params, batches)
    figures |= _unigrams(experiment, network.config.vocab, batches)
    return figures


def _means(eval_fn, params, batches) -> dict[str, float]:
    evaluate = jax.jit(eval_fn)
    totals: dict[str, list[float]] = {}
    for index, batch in enumerate(batches):
        key = jax.random.fold_in(jax.random.key(0), index)
        for name, (total, count) in evaluate(params, {}, {}, batch, key).items():
            sums = totals.setdefault(name, [0.0, 0.0])
            sums[0], sums[1] = sums[0] + float(total), sums[1] + float(count)
    return {k: a / b for k, (a, b) in totals.items() if b}


def masked(
    run: str | os.PathLike,
    ratios: Sequence[float] = (0.15, 0.4, 0.65, 0.85),
    *,
    records: int = 512,
) -> dict[str, float]:
    """Likelihood of codes behind spans and behind random masks (claims G1, G2).

    Args:
      run: GPTFace training run.
      ratios: shares of the codes that are masked.
      records: of its held-out ones.

    Returns:
      {"span_40": nats a masked code, the own text seen, ..., "random_40": ...}.

    Raises:
      UserError: a ratio that masks nothing or more than everything.
    """
    if not ratios or not all(0 < ratio <= 1 for ratio in ratios):
        raise UserError(f"ratios are {list(ratios)}; use shares above 0, at most 1")
    network = opening.open_network(run, "gptface")
    config = ConfigDict(network.meta["config"])
    config.data.eval_records = records
    experiment = training.build(config, run)
    objective = from_mapping(ObjectiveConfig, network.meta["config"]["objective"])
    widest = max(objective.max_image_ratio, *ratios)
    # As many slots as the widest mask needs.
    objective = dataclasses.replace(
        objective, ratio_schedule="uniform", wide_range=(0.0, widest)
    )
    figures = {}
    for kind, share in (("span", 1.0), ("random", 0.0)):
        eval_fn = make_eval(
            network.module, objective, tuple(ratios), span_fraction=share
        )
        batches = experiment.system.evaluations["eval"].batches
        found = _means(eval_fn, network.params, batches)
        for ratio in ratios:
            percent = round(100 * ratio)
            figures[f"{kind}_{percent}"] = found[f"image_nll_{percent}"]
    return figures


def _unigrams(experiment, vocab, batches) -> dict[str, float]:
    """Mean negative log frequency of the held-out tokens, in nats."""
    feed = experiment.batches_fn(0)
    drawn = [next(feed)["pairs"] for _ in range(100)]
    feed.close()
    figures = {}
    for name, key, size in (
        ("image", "image_ids", vocab.codebook_size),
        ("text", "text_ids", vocab.text_size),
    ):
        seen = np.concatenate([b[key].ravel() for b in drawn])
        held = np.concatenate([b[key].ravel() for b in batches])
        if name == "text":
            seen, held = seen[seen != vocab.pad_id], held[held != vocab.pad_id]
        counts = np.bincount(seen, minlength=size) + 1.0
        log_share = np.log(counts / counts.sum())
        figures[f"{name}_unigram_nll"] = float(-np.mean(log_share[held]))
    return figures


def matching(
    model: Model,
    records: Sequence[Record],
    *,
    max_phrases: int = 10,
    seed: int = 0,
    attributes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Image-text matching on balanced held-out pairs, and by attribute.

    Every picture meets its own caption and that of another picture; then, an
    attribute at a time, the sentence that is true of it and the one that is not.

    Returns:
      {"accuracy": of p(q=1) > 1/2 on the pairs, "count", "by_attribute": name ->
      share of pictures whose true sentence scores higher than the false one}.
    """
    options = transforms.CaptionOptions(
        max_phrases=max_phrases, attributes=tuple(attributes or ())
    )
    photos = pictures_of(records, model.editor.size)
    rng = np.random.default_rng(seed)
    own = [options.text(r, rng) for r in records]
    if len(set(own)) < 2:
        raise UserError(
            f"{len(records)} pictures have one and the same text; matching needs more"
        )
    other = []
    for text in own:
        candidate = text
        while candidate == text:
            candidate = options.text(records[int(rng.integers(len(records)))], rng)
        other.append(candidate)
    matched = _scores(model, photos, own) > np.log(0.5)
    mismatched = _scores(model, photos, other) > np.log(0.5)
    by_attribute = {}
    for name in attributes or probe.ATTRIBUTES:
        truth = [phrases.known(r.labels or {}, name) for r in records]
        sure = [i for i, t in enumerate(truth) if t is not None]
        try:
            texts = {
                s: [
                    captions.edit_text(name, bool(truth[i]) == s, records[i].labels)
                    for i in sure
                ]
                for s in (True, False)
            }
        except UserError:
            continue  # no words for the absence
        if not sure:
            continue
        wins = _scores(model, photos[sure], texts[True]) > _scores(
            model, photos[sure], texts[False]
        )
        states = np.array([bool(truth[i]) for i in sure])
        by_attribute[name] = edits.balanced_accuracy(wins == states, states)
    return {
        "accuracy": float((matched.mean() + (~mismatched).mean()) / 2),
        "count": 2 * len(records),
        "by_attribute": by_attribute,
    }


def _scores(model: Model, photos, texts, batch_size: int = 64) -> np.ndarray:
    results = []
    for start in range(0, len(photos), batch_size):
        numbers = np.arange(start, start + batch_size) % len(photos)
        score = model.editor.match_log_prob(
            photos[numbers], [texts[i] for i in numbers]
        )
        results.append(score[: len(photos) - start])
    return np.concatenate(results)


def open_records(spec: Mapping[str, Any], limit: int) -> list[Record]:
    """The first `limit` records of a source."""
    source = sources.open_source(spec, tell=True)
    return [source[i] for i in range(min(limit, len(source)))]


def proposals(
    model: Model,
    attributes: Sequence[str],
    count: int,
    *,
    method: str = "likelihood",
    seed: int = 0,
    progress: bool = True,
) -> dict[str, Any]:
    """How well proposed masks meet the pixels that an edit of a drawn face changes.

    The truth is that of two drawings that differ in one attribute. "proposed" is what
    `proposing.propose` makes of the sentence alone. "saliency" knows the sentence that
    is true now; like the others it takes the share of tokens that the attribute changes
    on average in other faces, from which the average map comes too.

    Args:
      model: the networks.
      attributes: names of `synthetic.ATTRIBUTES`.
      count: faces of each.
      method: of `proposing.saliency`.
      seed: of the faces and of the random blobs.
      progress: show a bar.

    Returns:
      {"attributes": name -> {mask: mean IoU over tokens}, "mean": {mask: ...}} of the
      masks proposed, saliency, saliency x average, average, centre, random.
    """
    grid = model.editor.gptface.config.layout.grid
    size = model.editor.size
    faces = synthetic.SyntheticFaces(size=size, count=4000, seed=1000 + seed)
    rng = np.random.default_rng(seed)
    rows, columns = np.indices(grid)
    centre = -np.hypot(rows - (grid[0] - 1) / 2, columns - (grid[1] - 1) / 2)
    bar = tqdm.tqdm(total=len(attributes) * count, disable=not progress)
    table = {}
    for name in attributes:
        average = proposing.attribute_prior(name, grid)
        area = float(average.mean())
        found: dict[str, list[float]] = {}
        number = -1
        for _ in range(count):
            truth = np.zeros(grid, bool)
            while not truth.any():
                number += 1
                before = faces.factors(number)
                present, truth = proposing.changed_tokens(before, name, grid)
            record = faces[number]
            wanted, now = (
                captions.edit_text(
                    name, p, record.labels, np.random.default_rng(number)
                )
                for p in (present, not present)
            )
            salience = proposing.saliency(
                model.editor, record.image[None], wanted, now, method
            )
            masks = {
                "proposed": proposing.propose(
                    model.editor, record.image, wanted, method=method
                ),
                "saliency": proposing.mask_tokens(salience, area),
                "saliency x average": proposing.mask_tokens(salience, area, average),
                "average": _highest(average, area),
                "centre": _highest(centre, area),
                "random": _highest(_from(rng.integers(grid), grid), area),
            }
            for kind, mask in masks.items():
                iou = (mask & truth).sum() / (mask | truth).sum()
                found.setdefault(kind, []).append(iou)
            bar.update(1)
        table[name] = {kind: float(np.mean(x)) for kind, x in found.items()}
    bar.close()
    kinds = list(table[attributes[0]])
    mean = {k: float(np.mean([row[k] for row in table.values()])) for k in kinds}
    return {"attributes": table, "mean": mean}


def _highest(values: np.ndarray, area: float) -> np.ndarray:
    count = max(1, round(area * values.size))
    return values >= np.sort(values.ravel())[-count]


def _from(point: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Minus the distance of each cell to a point: its highest are a blob."""
    rows, columns = np.indices(grid)
    return -np.hypot(rows - point[0], columns - point[1])
