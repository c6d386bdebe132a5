"""Held-out metrics: masked modelling of true pairs, and the matching probe."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gptface_jax.core import trees
from gptface_jax.ops import losses
from gptface_jax.systems.gptface import model as gptface_model
from gptface_jax.systems.gptface.corruption import budgets, corrupt, image_mask
from gptface_jax.systems.gptface.objective import (
    ObjectiveConfig,
    itm_metrics,
    masked_metrics,
)


def make_eval(
    module: gptface_model.GPTFace,
    objective: ObjectiveConfig,
    ratios: tuple[float, ...] = (0.0, 0.15, 0.4, 0.65),
    attributes: tuple[str, ...] = (),
    span_fraction: float = 1.0,
):
    """Held-out metrics: MILM on true pairs, and the matching probe.

    Image NLL is measured with span masks at 40 %, text NLL at the objective's
    ratio. `image_text_gain` is what the own text saves, in nats a masked code,
    against the replaced one: a model whose gain is 0 paints without reading.
    `image_nll_RATIO` is that of masks over so many per cent, a `span_fraction` of them
    spans, with the whole own text, the match hidden. The probe scores every pair with
    its own and with the replaced text (balanced by construction) at each image mask
    ratio, text unmasked. Of a batch with `data.probe.attribute_probe`, whose numbers
    count `attributes`, it also says how often the true sentence about an attribute
    scores higher than the false one.
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
    probe = dataclasses.replace(objective, span_fraction=span_fraction)
    budget = budgets(config, objective)
    is_image = jnp.arange(config.layout.length) < config.layout.sep_index
    told, hidden = gptface_model.MATCHED, gptface_model.UNKNOWN

    def eval_fn(params, state, constants, batch, key):
        del state, constants
        variables = {"params": params}
        size = batch["image_ids"].shape[0]
        corrupted = corrupt(config, true_pairs, batch, jnp.full((size,), 0.4), key)
        pair = {1: batch["text_ids"], 0: batch["negative_ids"]}
        different = jnp.any(pair[1] != pair[0], axis=1)
        nothing = jnp.zeros(corrupted.masked.shape, bool)

        spans = image_mask(
            probe,
            config.layout.grid,
            jnp.repeat(jnp.array(ratios), size),
            trees.stream(key, "probe"),
        ).reshape(len(ratios), size, -1)

        # name -> (text, masked, match), each a forward pass.
        image_only = is_image & corrupted.masked
        passes = {
            "all": (pair[1], corrupted.masked, told),
            "own": (pair[1], image_only, told),
            "other": (pair[0], image_only, told),
        }
        for ratio, span in zip(ratios, spans):
            masked = nothing.at[:, config.layout.image_slice].set(span)
            passes |= {(ratio, q): (pair[q], masked, hidden) for q in (1, 0)}
        if "probe_ids" in batch:
            sentences = batch["probe_ids"]
            passes |= {("probe", i): (sentences[:, i], nothing, hidden) for i in (0, 1)}

        def forward(given):
            text, masked, match = given
            targets = gptface_model.assemble(batch["image_ids"], text, config)
            tokens = jnp.where(masked, config.vocab.mask_id, targets)
            states = module.apply(variables, tokens, jnp.full((size,), match))
            seen = dataclasses.replace(
                corrupted,
                targets=targets,
                masked=masked,
                scored=jnp.ones((size,), bool),
            )
            logits = module.apply(variables, states, method="itm_logits")
            return masked_metrics(module, params, states, seen, budget), logits

        # A loop: unrolled they would take long to compile.
        stacked = [
            jnp.stack([jnp.asarray(x) for x in xs]) for xs in zip(*passes.values())
        ]
        looped = jax.lax.map(forward, tuple(stacked))
        found = {
            name: jax.tree.map(lambda x, i=i: x[i], looped)
            for i, name in enumerate(passes)
        }
        metrics = dict(found["all"][0])
        total = losses.mean(metrics["image_nll"]) + losses.mean(metrics["text_nll"])
        (own, codes), (other, _) = (found[n][0]["image_nll"] for n in ("own", "other"))
        metrics["image_text_gain"] = (other - own, codes)
        for ratio in ratios:
            percent = round(100 * ratio)
            for name in ("image_nll", "image_accuracy") if ratio else ():
                metrics[f"{name}_{percent}"] = found[ratio, 1][0][name]
            matched, other = (
                itm_metrics(found[ratio, q][1], jnp.full((size,), q), different)
                for q in (1, 0)
            )
            both = jax.tree.map(jnp.add, matched, other)
            metrics[f"itm_accuracy_{percent}"] = both["itm_accuracy"]
            if ratio == 0.0:
                total += losses.mean(both["itm_loss"])
        if "probe_ids" in batch:
            first, second = (
                logits[:, 1] - logits[:, 0]
                for logits in (found["probe", i][1] for i in (0, 1))
            )
            for number, name in enumerate(attributes):
                asked = batch["probe_attribute"] == number
                weight = jnp.where(asked, batch["probe_weight"], 0.0)
                metrics[f"itm_accuracy_{name}"] = (
                    jnp.sum((first > second) * weight),
                    jnp.sum(weight),
                )
        metrics["loss"] = (total * size, jnp.float32(size))
        return metrics

    return eval_fn
