"""Held-out metrics: masked modelling of true pairs, and image-text matching."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.core import trees
from gptface_jax.core.types import Batch, Metrics
from gptface_jax.ops import losses
from gptface_jax.systems.gptface import model as gptface_model
from gptface_jax.systems.gptface.corruption import (
    CorruptionConfig,
    Masked,
    budgets,
    corrupt,
    image_mask,
)
from gptface_jax.systems.gptface.objective import (
    ObjectiveConfig,
    itm_metrics,
    masked_metrics,
)

# Name of a forward pass -> (text ids [B,m], bool [B,L] what is masked, match bit).
Passes = dict[Hashable, tuple[jax.Array, jax.Array, int]]
# Name of a forward pass -> (metrics of masked modelling, matching logits [B,2]).
Results = dict[Hashable, tuple[Metrics, jax.Array]]


def make_eval(
    module: gptface_model.GPTFace,
    objective: ObjectiveConfig,
    ratios: tuple[float, ...] = (0.0, 0.15, 0.4, 0.65),
    attributes: tuple[str, ...] = (),
    span_fraction: float = 1.0,
):
    """The evaluation of held-out batches, a `core.types.EvalFn`, for the loop to jit.

    Image NLL is measured with span masks at 40 %, text NLL at the objective's
    ratio. `image_text_gain` is what the own text saves, in nats a masked code,
    against the replaced one: a model whose gain is 0 paints without reading.
    `image_nll_RATIO` is that of masks over so many per cent, a `span_fraction` of them
    spans, with the whole own text, the match hidden. Matching scores every pair with
    its own and with the replaced text (balanced by construction) at each image mask
    ratio, text unmasked. Of a batch with `data.attribute_questions`, whose
    numbers count `attributes`, it also says how often the true sentence about an
    attribute scores higher than the false one.
    """
    config = module.config
    true_pairs = dataclasses.replace(
        objective,
        negative_fraction=0.0,
        null_fraction=0.0,
        paired=False,
        span_fraction=1.0,
        text_fraction=1.0,
        text_wide_fraction=0.0,
    )
    by_ratio = dataclasses.replace(objective, span_fraction=span_fraction)
    budget = budgets(config, objective)
    is_image = jnp.arange(config.layout.length) < config.layout.sep_index

    def eval_fn(params, state, constants, batch, key):
        del state, constants
        size = batch["image_ids"].shape[0]
        corrupted = corrupt(config, true_pairs, batch, jnp.full((size,), 0.4), key)
        # A text that equals its replacement says nothing about matching.
        different = jnp.any(batch["text_ids"] != batch["negative_ids"], axis=1)
        passes = _passes(
            config, by_ratio, batch, corrupted.masked, is_image, ratios, key
        )
        results = _run(module, params, batch["image_ids"], corrupted, passes, budget)
        metrics = dict(results["all"][0])
        total = losses.mean(metrics["image_nll"]) + losses.mean(metrics["text_nll"])
        metrics["image_text_gain"] = _image_text_gain(results)
        for ratio in ratios:
            more, itm_loss = _at_ratio(results, ratio, different)
            metrics |= more
            if ratio == 0.0:
                total += itm_loss
        if "question_ids" in batch:
            metrics |= _by_attribute(results, batch, attributes)
        metrics["loss"] = (total * size, jnp.float32(size))
        return metrics

    return eval_fn


def _passes(
    config: gptface_model.GPTFaceConfig,
    corruption: CorruptionConfig,
    batch: Batch,
    masked: jax.Array,
    is_image: jax.Array,
    ratios: tuple[float, ...],
    key: jax.Array,
) -> Passes:
    """The forward passes that the metrics need.

    Args:
      config, corruption: of the model, and of the masks at each ratio.
      batch: image_ids, text_ids, negative_ids and, it may be, questions.
      masked: bool [B,L], what masked modelling of true pairs hides.
      is_image: bool [L].
      ratios: of the image that is masked, for matching.
      key: of the masks.

    Returns:
      "all", "own" and "other" (masked codes and words; codes alone, with the own and
      with the replaced text), (ratio, 1 = own text) and ("question", number).
    """
    size, layout = len(masked), config.layout
    text = {1: batch["text_ids"], 0: batch["negative_ids"]}
    nothing = jnp.zeros(masked.shape, bool)
    # The stream keeps the name of its first days: another one would draw other masks,
    # and runs could no longer be compared.
    spans = image_mask(
        corruption,
        layout.grid,
        jnp.repeat(jnp.array(ratios), size),
        trees.stream(key, "probe"),
    ).reshape(len(ratios), size, -1)
    image_only = is_image & masked
    matched, unknown = gptface_model.MATCHED, gptface_model.UNKNOWN
    passes: Passes = {
        "all": (text[1], masked, matched),
        "own": (text[1], image_only, matched),
        "other": (text[0], image_only, matched),
    }
    for ratio, span in zip(ratios, spans):
        hidden = nothing.at[:, layout.image_slice].set(span)
        passes |= {(ratio, q): (text[q], hidden, unknown) for q in (1, 0)}
    if "question_ids" in batch:
        ids = batch["question_ids"]
        passes |= {("question", i): (ids[:, i], nothing, unknown) for i in (0, 1)}
    return passes


def _run(
    module, params, image_ids, corrupted: Masked, passes: Passes, budget: Any
) -> Results:
    """The results of all passes, in a loop: unrolled they would take long to compile.

    Args:
      module, params: the model.
      image_ids: int [B,n].
      corrupted: gives what masked modelling needs besides, see `masked_metrics`.
      passes, budget: see `_passes`, `budgets`.
    """
    config, size = module.config, len(image_ids)
    variables = {"params": params}

    def forward(given):
        text, masked, match = given
        targets = gptface_model.assemble(image_ids, text, config)
        tokens = jnp.where(masked, config.vocab.mask_id, targets)
        states = module.apply(variables, tokens, jnp.full((size,), match))
        seen = dataclasses.replace(
            corrupted, targets=targets, masked=masked, scored=jnp.ones((size,), bool)
        )
        logits = module.apply(variables, states, method="itm_logits")
        return masked_metrics(module, params, states, seen, budget), logits

    stacked = [jnp.stack([jnp.asarray(x) for x in xs]) for xs in zip(*passes.values())]
    looped = jax.lax.map(forward, tuple(stacked))
    return {
        name: jax.tree.map(lambda x, i=i: x[i], looped) for i, name in enumerate(passes)
    }


def _image_text_gain(results: Results) -> tuple[jax.Array, jax.Array]:
    """NLL of the masked codes with the replaced text less that with the own one."""
    (own, codes), (other, _) = (
        results[name][0]["image_nll"] for name in ("own", "other")
    )
    return other - own, codes


def _at_ratio(
    results: Results, ratio: float, different: jax.Array
) -> tuple[Metrics, jax.Array]:
    """(metrics at one image mask ratio, mean loss of matching at it).

    Args:
      results: of the passes.
      ratio: of the image that is masked.
      different: bool [B], pairs that count for matching.
    """
    percent, size = round(100 * ratio), len(different)
    metrics = {
        f"{name}_{percent}": results[ratio, 1][0][name]
        for name in (("image_nll", "image_accuracy") if ratio else ())
    }
    matched, other = (
        itm_metrics(results[ratio, q][1], jnp.full((size,), q), different)
        for q in (1, 0)
    )
    both = jax.tree.map(jnp.add, matched, other)
    metrics[f"itm_accuracy_{percent}"] = both["itm_accuracy"]
    return metrics, losses.mean(both["itm_loss"])


def _by_attribute(
    results: Results, batch: Batch, attributes: tuple[str, ...]
) -> Metrics:
    """How often the true sentence about each attribute scores higher than the false."""
    true, false = (
        logits[:, 1] - logits[:, 0]
        for logits in (results["question", i][1] for i in (0, 1))
    )
    metrics = {}
    for number, name in enumerate(attributes):
        asked = batch["question_attribute"] == number
        weight = jnp.where(asked, batch["question_weight"], 0.0)
        metrics[f"itm_accuracy_{name}"] = (
            jnp.sum((true > false) * weight),
            jnp.sum(weight),
        )
    return metrics
