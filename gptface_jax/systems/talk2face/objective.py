"""Next-token prediction of targets (SPEC B.5), and its held-out metrics by task."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.core import trees
from gptface_jax.nn.prefix_lm import (
    PADDING,
    PrefixLM,
    PrefixLMConfig,
    is_face,
    is_image,
)
from gptface_jax.ops import losses, masking

FEED = "sequences"
SCORED = ("target", "all")


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """Options of the loss.

    Attributes:
      scored: "target", its closing [SEP] among it; or "all", every position as the
        paper's equation 1 prints it, which gives the prefix away to itself.
      pooled: one mean over all scored tokens (the paper's); else separate means of
        image and text tokens: an image has twenty tokens for each of an answer.
      image_weight, text_weight, face_weight: of separate means, or of the tokens in one
        mean; the last of models with face tokens.
    """

    scored: str = "target"
    pooled: bool = True
    image_weight: float = 1.0
    text_weight: float = 1.0
    face_weight: float = 1.0

    def __post_init__(self):
        if self.scored not in SCORED:
            raise ValueError(f"scored {self.scored!r} is none of {', '.join(SCORED)}")


def slots(config: PrefixLMConfig, objective: ObjectiveConfig) -> int:
    """Most scored tokens of a sequence: of an image, or of a text after one."""
    if objective.scored == "all":
        return config.length - 1
    image = config.num_image_tokens + 1
    return min(config.length - 1, max(image, config.length - image - 3))


def token_metrics(
    module: PrefixLM,
    objective: ObjectiveConfig,
    params: Any,
    batch: Mapping[str, jax.Array],
    dropout_key: jax.Array | None = None,
) -> dict[str, tuple[jax.Array, jax.Array]]:
    """NLL and accuracy of the scored tokens by modality, [B,S] with what counts.

    Args:
      module: the model.
      objective: what is scored.
      params: of the model.
      batch: "tokens", "segment_ids" int32 [B,L], "loss_mask" bool [B,L], the tokens
        that are to be predicted; see `data.sequences.assemble`. Optional: "soft_ids"
        int32 and "soft_weights" float32 [B,W], what is to be predicted in place of the
        token at "soft_position" int32 [B] (SPEC B.7.2, ordinal ages). Of packed rows
        "sequence_ids" int32 [B,L], and soft targets [B,P] and [B,P,W].
      dropout_key: None for no dropout.

    Returns:
      "image_nll", "text_nll", "image_accuracy", "text_accuracy": (values, mask); also
      "face_nll" and "face_accuracy" of models with face tokens, and "head_missed": 1
      where an answer ends in a head and another token than [F_ID] is likelier there.
    """
    config = module.config
    tokens, segments = batch["tokens"], batch["segment_ids"]
    scored = batch["loss_mask"] if objective.scored == "target" else segments != PADDING
    scored, sequence_ids = scored[:, 1:], batch.get("sequence_ids")
    budget = slots(config, objective)
    if sequence_ids is not None:
        # What ends a sequence does not predict what begins the next one.
        scored &= sequence_ids[:, 1:] == sequence_ids[:, :-1]
        budget = tokens.shape[1] - 1
    variables = {"params": params}
    hidden = module.apply(
        variables,
        tokens,
        segments,
        dropout_key is None,
        sequence_ids,
        method="sequence",
        rngs=None if dropout_key is None else {"dropout": dropout_key},
    )
    # Position t predicts token t + 1.
    gather = functools.partial(
        masking.gather_masked,
        hidden[:, :-1],
        masked=scored,
        budget=budget,
    )
    states, targets, real = gather(targets=tokens[:, 1:])
    logits = module.apply(variables, states, method="token_logits")
    nll = losses.cross_entropy(logits, targets)
    if "soft_ids" in batch:
        places = jnp.broadcast_to(jnp.arange(1, tokens.shape[1]), scored.shape)
        nll = _softened(nll, logits, gather(targets=places)[1], batch)
    found = {"nll": nll, "accuracy": jnp.argmax(logits, -1) == targets}
    return _by_modality(found, targets, real, config)


def _by_modality(found, targets, real, config: PrefixLMConfig):
    """Values [B,S] by name of the modality and of the value, with what counts."""
    image, face = (of(targets, config.vocab) for of in (is_image, is_face))
    kinds = {"image": image, "text": ~(image | face)}
    if config.vocab.face_tokens:
        kinds["face"] = face
    by_name = {
        f"{name}_{metric}": (values, real & where)
        for name, where in kinds.items()
        for metric, values in found.items()
    }
    if config.vocab.face_tokens:
        begins = targets == config.vocab.size  # [F_ID]
        by_name["head_missed"] = ~found["accuracy"], real & begins
    return by_name


def _softened(nll, logits, places, batch):
    """NLL [B,S], at the places of soft targets the cross-entropy with these."""
    rows, width = len(nll), batch["soft_ids"].shape[-1]
    at = batch["soft_position"].reshape(rows, -1)  # [B,P]
    ids = batch["soft_ids"].reshape(rows, -1, width)
    weights = batch["soft_weights"].reshape(rows, -1, width)
    for number in range(at.shape[1]):
        soft = _soft_cross_entropy(logits, ids[:, number], weights[:, number])
        nll = jnp.where(places == at[:, number, None], soft, nll)
    return nll


def _soft_cross_entropy(
    logits: jax.Array, ids: jax.Array, weights: jax.Array
) -> jax.Array:
    """-sum_w weight * log softmax(logits)[id], [B,S], of ids and weights [B,W]."""
    wanted = jnp.broadcast_to(ids[:, None], (*logits.shape[:2], ids.shape[1]))
    log_probs = jnp.take_along_axis(logits, wanted, -1)
    log_probs -= jax.nn.logsumexp(logits, -1, keepdims=True)
    return -jnp.sum(weights[:, None] * log_probs, -1)


def make_loss(module: PrefixLM, objective: ObjectiveConfig):
    """The training loss of a phase with the feed FEED; see `core.types.LossFn`."""
    layers = module.config.transformer
    with_dropout = layers.dropout > 0 or layers.drop_path > 0

    def loss_fn(params, state, constants, batches, key, step):
        del constants, step
        dropout_key = trees.stream(key, "dropout") if with_dropout else None
        found = token_metrics(module, objective, params, batches[FEED], dropout_key)
        metrics = {name: losses.masked_sum(*pair) for name, pair in found.items()}
        loss = combined(objective, metrics)
        if objective.pooled:
            # With its count, by which microbatches are weighed.
            _, count = _pooled(objective, metrics)
            metrics["loss"] = (loss * count, count)
        if "sequence_ids" in batches[FEED]:
            held = jnp.max(batches[FEED]["sequence_ids"], axis=1) + 1
            metrics["sequences_per_row"] = (jnp.sum(held), jnp.float32(len(held)))
        return loss, (state, metrics)

    return loss_fn


def combined(objective: ObjectiveConfig, metrics: Mapping[str, Any]) -> jax.Array:
    """The loss, of the sums and counts of all modalities."""
    if objective.pooled:
        return losses.mean(_pooled(objective, metrics))
    return sum(
        weight * losses.mean(pair) for weight, pair in _weighted(objective, metrics)
    )


def _weighted(objective: ObjectiveConfig, metrics: Mapping[str, Any]):
    """(weight, [sum, count]) of the NLL of each modality that there is."""
    weights = {
        "image_nll": objective.image_weight,
        "text_nll": objective.text_weight,
        "face_nll": objective.face_weight,
    }
    return [(w, jnp.stack(metrics[n])) for n, w in weights.items() if n in metrics]


def _pooled(objective: ObjectiveConfig, metrics: Mapping[str, Any]) -> jax.Array:
    """[sum, count] of the NLL of all modalities together."""
    return sum(weight * pair for weight, pair in _weighted(objective, metrics))


def make_eval(
    module: PrefixLM, objective: ObjectiveConfig, tasks: tuple[str, ...] = ()
):
    """Held-out metrics: NLL and accuracy by modality, and NLL by task.

    Args:
      module, objective: see `token_metrics`.
      tasks: names that "task" int32 [B] of a batch counts; none: not by task.
    """

    def eval_fn(params, state, constants, batch, key):
        del state, constants, key
        found = token_metrics(module, objective, params, batch)
        metrics = {name: losses.masked_sum(*pair) for name, pair in found.items()}
        size = jnp.float32(len(batch["tokens"]))
        metrics["loss"] = (combined(objective, metrics) * size, size)
        for number, task in enumerate(tasks):
            asked = (batch["task"] == number)[:, None]
            parts = [
                losses.masked_sum(values, mask & asked)
                for name, (values, mask) in found.items()
                if name.endswith("_nll")
            ]
            metrics[f"{task}_nll"] = jax.tree.map(lambda *x: sum(x), *parts)
        return metrics

    return eval_fn
