"""Likelihoods of held-out tokens under a training run."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tqdm

from gptface_jax.core.config import config_dict, from_mapping
from gptface_jax.core.errors import Missing, UserError
from gptface_jax.data import sources
from gptface_jax.experiments import base, opening, training
from gptface_jax.systems.gptface.held_out import make_eval
from gptface_jax.systems.gptface.objective import ObjectiveConfig


def likelihood(
    run: str | os.PathLike,
    eval_spec: Mapping[str, Any] | None = None,
    *,
    records: int = 1024,
    max_phrases: int | None = None,
    progress: bool = False,
) -> dict[str, float]:
    """Masked likelihoods, matching accuracy and their unigram baselines.

    Args:
      run: GPTFace training run.
      eval_spec: token cache to evaluate on; default the run's own.
      records: held-out records used.
      max_phrases: of the captions; default as trained.
      progress: show a bar.

    Returns:
      The metrics of `systems.gptface.held_out.make_eval`, and
      image_unigram_nll, text_unigram_nll: of the training set's token
      frequencies, add-one smoothed, on the same held-out tokens.
    """
    network = opening.open_network(run, "gptface")
    config = config_dict(network.meta["config"])
    if eval_spec:
        sources.open_source(eval_spec)  # what is wrong with it, in its own words
        config.data.eval = dict(eval_spec)
    config.data.eval_records = records
    if max_phrases:
        config.data.eval_captions = {
            **dict(config.data.get("eval_captions", {})),
            "max_phrases": max_phrases,
        }
    experiment = _experiment(config, run, "give held-out records by --tokens")
    held_out = experiment.system.evaluations["eval"]
    batches = held_out.batches
    shown = tqdm.tqdm(batches, str(run), unit="batch", disable=not progress)
    figures = _means(held_out.metrics, network.params, shown)
    figures |= _unigrams(experiment, network.config.vocab, batches)
    return figures


def _experiment(config: Any, run: str | os.PathLike, instead: str) -> base.Experiment:
    """The experiment of a run, with its data.

    Raises:
      UserError: the data are not where they were, or none are held out; `instead` says
        what helps as well.
    """
    for key in ("train", "eval"):
        spec = config.data.get(key)
        try:
            if spec and "kind" in spec:
                sources.open_source(spec)
        except Missing as error:
            other = f", or {instead}" if key == "eval" else ""
            raise UserError(
                f"data.{key} of '{run}' moved: {str(error).partition(';')[0]}; put "
                f"them, or a link to them, back there{other}"
            ) from None
    if not config.data.get("eval"):
        raise UserError(f"'{run}' was trained without data.eval; {instead}")
    return training.build(config, run)


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
    progress: bool = False,
) -> dict[str, float]:
    """Likelihood of codes behind spans and behind random masks (claims G1, G2).

    Args:
      run: GPTFace training run.
      ratios: shares of the codes that are masked.
      records: of its held-out ones.
      progress: show a bar.

    Returns:
      {"span_40": nats a masked code, the own text seen, ..., "random_40": ...}.

    Raises:
      UserError: a ratio that masks nothing or more than everything.
    """
    if not ratios or not all(0 < ratio <= 1 for ratio in ratios):
        raise UserError(f"ratios are {list(ratios)}; use shares above 0, at most 1")
    network = opening.open_network(run, "gptface")
    count = network.config.layout.num_image_tokens
    percents = [round(100 * ratio) for ratio in ratios]
    if len(set(percents)) < len(percents) or any(round(r * count) < 1 for r in ratios):
        raise UserError(
            f"ratios are {list(ratios)}; each has to mask at least one of {count} "
            "codes and to differ from the others by a percent"
        )
    config = config_dict(network.meta["config"])
    config.data.eval_records = records
    experiment = _experiment(config, run, "give a run that has some")
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
        shown = tqdm.tqdm(batches, f"{run}, {kind}", unit="batch", disable=not progress)
        found = _means(eval_fn, network.params, shown)
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
