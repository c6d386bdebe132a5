"""Masked image/language modelling and image-text matching (SPEC A.5)."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

from gptface_jax.core import trees
from gptface_jax.core.types import Metrics
from gptface_jax.nn import backbone
from gptface_jax.ops import losses, masking
from gptface_jax.systems.gptface import model as gptface_model
from gptface_jax.systems.gptface.corruption import (
    CorruptionConfig,
    Masked,
    budgets,
    corrupt,
    image_ratios,
)


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig(CorruptionConfig):
    """Options of what is scored, besides those of `CorruptionConfig`.

    Attributes:
      pooled: one (weighted) mean over image and text positions (preset `paper`)
        instead of separate means.
      image_weight, text_weight, itm_weight: of the three losses.
      contrastive_weight: of the image-text contrastive term.
      word_bag_weight: of the bag-of-words term: which words are true of the picture,
        from the picture alone (arXiv 1511.02251, 2411.03313).
      alignment_layers: these two terms see the first so many layers; those after
        them are free to compare the two sides. 0 for all.
      alignment_alone: fraction of the run, from its start, that trains these terms
        only ("align before fuse", arXiv 2107.07651). Such a step costs a fraction.
      alignment_until: fraction of the run after which these terms are zero.
      matching_alone: fraction of the run, after `alignment_alone`, in which nothing
        is masked and every match bit is hidden: matching is all there is to learn.
    """

    pooled: bool = False
    image_weight: float = 1.0
    text_weight: float = 1.0
    itm_weight: float = 1.0
    contrastive_weight: float = 0.0
    word_bag_weight: float = 0.0
    alignment_layers: int = 0
    alignment_alone: float = 0.0
    alignment_until: float = 1.0
    matching_alone: float = 0.0


def masked_metrics(
    module: gptface_model.GPTFace,
    params,
    hidden: jax.Array,
    corrupted: Masked,
    budget: tuple[int, int],
) -> Metrics:
    """NLL and accuracy of the shared softmax at masked positions, by modality."""
    metrics = {}
    layout = module.config.layout
    for name, where, slots in (
        ("image", layout.image_slice, budget[0]),
        ("text", layout.text_slice, budget[1]),
    ):
        states, targets, real = masking.gather_masked(
            hidden[:, where],
            corrupted.targets[:, where],
            corrupted.masked[:, where] & corrupted.scored[:, None],
            slots,
        )
        logits = module.apply({"params": params}, states, method="token_logits")
        nll = losses.cross_entropy(logits, targets)
        right = jnp.argmax(logits, -1) == targets
        metrics[f"{name}_nll"] = losses.masked_sum(nll, real)
        metrics[f"{name}_accuracy"] = losses.masked_sum(right, real)
    return metrics


def itm_metrics(logits: jax.Array, labels: jax.Array, scored: jax.Array) -> Metrics:
    """Loss and accuracy of image-text matching where `scored` [B]."""
    nll = losses.cross_entropy(logits, labels)
    right = jnp.argmax(logits, -1) == labels
    return {
        "itm_loss": losses.masked_sum(nll, scored),
        "itm_accuracy": losses.masked_sum(right, scored),
    }


def make_loss(
    module: gptface_model.GPTFace, objective: ObjectiveConfig, total_steps: int
):
    """The training loss of the single phase; see `core.types.LossFn`."""
    config = module.config
    if objective.contrastive_weight and not config.contrastive_width:
        raise ValueError("contrastive_weight needs model.contrastive_width > 0")
    if objective.word_bag_weight and not config.word_bag:
        raise ValueError("word_bag_weight needs model.word_bag = True")
    if objective.alignment_layers > config.transformer.num_layers:
        raise ValueError(
            f"alignment_layers is {objective.alignment_layers}; the model has "
            f"{config.transformer.num_layers} layers"
        )
    terms = [
        (objective.contrastive_weight, _contrastive),
        (objective.word_bag_weight, _word_bag),
    ]
    # A term of weight 0 is not traced: its head may not exist.
    terms = [(weight, term) for weight, term in terms if weight]
    # Without terms nothing can be aligned alone, and the run begins with the rest.
    joint_start = objective.alignment_alone * total_steps if terms else 0
    masking_start = joint_start + objective.matching_alone * total_steps
    alignment_end = objective.alignment_until * total_steps

    def loss_fn(params, state, constants, batches, key, step):
        del constants
        batch = batches["pairs"]

        def joint(params):
            size = batch["image_ids"].shape[0] * (2 if objective.paired else 1)
            ratios = image_ratios(objective, size, step, total_steps, key)
            matching_only = step < masking_start
            corrupted = corrupt(config, objective, batch, ratios, key, matching_only)
            return joint_loss(module, objective, params, corrupted, key)

        def alignment(params):
            stop = objective.alignment_layers or config.transformer.num_layers
            # The first layers alone: the gradient does not reach the others, and their
            # forward pass is not made.
            first = backbone.some_layers(module, params, 0, stop)
            loss, metrics = 0.0, {}
            for weight, term in terms:
                value, more = term(*first, batch, key)
                loss, metrics = loss + weight * value, {**metrics, **more}
            return loss, metrics

        if joint_start:
            loss, metrics = _during(step >= joint_start, joint, params)
        else:
            loss, metrics = joint(params)
        if terms:
            more = _during(step < alignment_end, alignment, params)
            loss, metrics = loss + more[0], {**metrics, **more[1]}
        return loss, (state, metrics)

    return loss_fn


def _during(active, fn, params):
    """Result of fn(params), or zeros for the cost of none while not active."""

    def zeros(params):
        shapes = jax.eval_shape(fn, params)
        return jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)

    return jax.lax.cond(active, fn, zeros, params)


def joint_loss(module, objective, params, corrupted, key):
    """Masked modelling and matching (paper equations 4-5).

    Args:
      module: the model.
      objective: weights of the losses.
      params: of the model.
      corrupted: a `Masked` batch.
      key: of dropout, where there is some.

    Returns:
      (loss float32 [], metrics).
    """
    config = module.config
    variables = {"params": params}
    hidden = module.apply(
        variables,
        corrupted.tokens,
        corrupted.match,
        **_dropping(config, key, "dropout"),
    )
    metrics = dict(
        masked_metrics(module, params, hidden, corrupted, budgets(config, objective))
    )
    words = corrupted.targets[:, config.layout.text_slice] != config.vocab.pad_id
    # An example without a text says nothing about matching.
    scored = (corrupted.match == gptface_model.UNKNOWN) & jnp.any(words, axis=1)
    itm_logits = module.apply(variables, hidden, method="itm_logits")
    metrics.update(itm_metrics(itm_logits, corrupted.itm_labels, scored))
    image, text = jnp.stack(metrics["image_nll"]), jnp.stack(metrics["text_nll"])
    if objective.pooled:
        loss = losses.mean(
            objective.image_weight * image + objective.text_weight * text
        )
    else:
        loss = objective.image_weight * losses.mean(image)
        loss += objective.text_weight * losses.mean(text)
    loss += objective.itm_weight * losses.mean(metrics["itm_loss"])
    ones = jnp.ones_like(corrupted.image_ratio)
    metrics["mask_ratio"] = losses.masked_sum(corrupted.image_ratio, ones)
    return loss, metrics


def _dropping(config, key, name: str) -> dict[str, Any]:
    """Options of `apply` for dropout by a key of this name, if the model has some."""
    layers = config.transformer
    if not layers.dropout and not layers.drop_path:
        return {"deterministic": True}
    return {"deterministic": False, "rngs": {"dropout": trees.stream(key, name)}}


def _contrastive(module, params, batch, key):
    """The image-text contrastive term: (loss, metrics)."""
    config = module.config
    tokens = gptface_model.assemble(batch["image_ids"], batch["text_ids"], config)
    features = module.apply(
        {"params": params},
        tokens,
        method="contrastive_features",
        **_dropping(config, key, "contrastive"),
    )
    # Without a text there is no feature to compare, and no gradient to trust.
    real = jnp.any(batch["text_ids"] != config.vocab.pad_id, axis=1)
    nll, right = losses.contrastive(*features, real)
    loss = losses.masked_sum(nll, real)
    accuracy = losses.masked_sum(right, real)
    return losses.mean(loss), {
        "contrastive_loss": loss,
        "contrastive_accuracy": accuracy,
    }


def _word_bag(module, params, batch, key):
    """The bag-of-words term, summed over the vocabulary: (loss, metrics)."""
    vocab = module.config.vocab
    logits = module.apply(
        {"params": params},
        batch["image_ids"],
        method="word_bag_logits",
        **_dropping(module.config, key, "word_bag"),
    )
    words = batch["word_ids"]
    there = jnp.zeros(logits.shape, bool)
    there = there.at[jnp.arange(len(words))[:, None], words].set(True)
    there = there.at[:, jnp.array(vocab.special_ids)].set(False)
    nll = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, there), axis=-1)
    loss = losses.masked_sum(nll, jnp.any(there, axis=1))
    return losses.mean(loss), {"word_bag_loss": loss}
