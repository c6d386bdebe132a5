"""Masked image/language modelling and image-text matching (SPEC A.5, A.6).

Masks, negatives and match bits are drawn on the device inside the step.
"""

from __future__ import annotations

import dataclasses

import flax
import jax
import jax.numpy as jnp
import optax

from gptface_jax.core import trees
from gptface_jax.core.types import Batch, Metrics
from gptface_jax.core.vocab import SequenceLayout
from gptface_jax.ops import losses, masking
from gptface_jax.systems.gptface import model as gptface_model

RATIO_SCHEDULES = ("paper", "rescaled", "wide", "uniform")
WIDE_TEXT_RATIO = 0.6


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """What is masked, what is scored. The defaults are preset `control`.

    Attributes:
      ratio_schedule: "paper" (1 % every 20,000 steps), "rescaled" (50 stages
        over the run), "wide" (rescaled, then uniform in `wide_range` after 80 %
        of the run), "uniform" (in `wide_range` from the start).
      wide_range: lowest and highest ratio of the uniform part.
      clean_fraction: examples whose image stays unmasked, so that matching is
        calibrated on whole pictures too.
      span_fraction: examples with span masks; the rest get random masks.
      spans: seeds of a span mask.
      text_fraction: examples whose text is masked (paper: all). In the others the
        codes see every word.
      text_ratio: fraction of the words masked (paper: 0.2).
      text_wide_fraction: examples whose text is masked at WIDE_TEXT_RATIO,
        a denser signal from picture to word (0 in preset `paper`).
      text_span_fraction: examples with one contiguous run of masked words.
      negative_fraction: examples whose text is replaced (paper: 0.5).
      null_fraction: examples without a text, for classifier-free guidance: 0.1 is
        usual. They say nothing about matching.
      paired: every picture comes twice, with its own and with another text, instead
        of a coin for each example. Neither the picture nor the text alone then says
        anything about matching. Doubles the sequences of a batch.
      unknown_fraction: with the match token, examples that do not see their
        match bit; only these are scored by image-text matching.
      told_negatives: share of the examples that are told of their mismatch which
        stay so; the others get their own text back, for only a text that belongs
        teaches how a picture follows it.
      hidden_negatives: masked modelling also scores examples whose text is replaced
        and whose match bit is hidden (paper). They teach to distrust every text: a
        code then moves by no more than the odds of a replaced text. Without them
        masked modelling sees true pairs and told negatives only (arXiv 2107.07651).
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

    ratio_schedule: str = "wide"
    wide_range: tuple[float, float] = (0.1, 1.0)
    clean_fraction: float = 0.1
    span_fraction: float = 0.8
    spans: int = 1
    text_fraction: float = 1.0
    text_ratio: float = 0.2
    text_wide_fraction: float = 0.0
    text_span_fraction: float = 0.5
    negative_fraction: float = 0.5
    null_fraction: float = 0.0
    paired: bool = False
    unknown_fraction: float = 0.5
    told_negatives: float = 1.0
    hidden_negatives: bool = True
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

    def __post_init__(self):
        if self.ratio_schedule not in RATIO_SCHEDULES:
            raise ValueError(
                f"ratio_schedule {self.ratio_schedule!r} is none of "
                + ", ".join(RATIO_SCHEDULES)
            )

    @property
    def max_image_ratio(self) -> float:
        wide = self.ratio_schedule in ("wide", "uniform")
        return max(0.65, self.wide_range[1]) if wide else 0.65

    @property
    def max_text_ratio(self) -> float:
        wide = WIDE_TEXT_RATIO if self.text_wide_fraction else 0.0
        return max(self.text_ratio, wide)


@flax.struct.dataclass
class Masked:
    """One corrupted batch.

    Attributes:
      tokens: int32 [B,L] with [MASK] at masked positions.
      targets: int32 [B,L] what stood there.
      masked: bool [B,L].
      itm_labels: int32 [B], 1 = matched.
      match: int32 [B] match control row (UNKNOWN for all without the token).
      scored: bool [B], masked modelling is scored.
      image_ratio: float32 [B] fraction of the image that is masked.
    """

    tokens: jax.Array
    targets: jax.Array
    masked: jax.Array
    itm_labels: jax.Array
    match: jax.Array
    scored: jax.Array
    image_ratio: jax.Array


def image_ratios(
    objective: ObjectiveConfig, batch: int, step, total_steps: int, key
) -> jax.Array:
    """Mask ratio of every example at this step; float32 [B]."""
    low, high = objective.wide_range
    uniform = jax.random.uniform(
        trees.stream(key, "ratio"), (batch,), minval=low, maxval=high
    )
    step = jnp.asarray(step)
    stage_total = None if objective.ratio_schedule == "paper" else total_steps
    staged = jnp.full((batch,), masking.curriculum_ratio(step, stage_total))
    ratios = {
        "paper": staged,
        "rescaled": staged,
        "wide": jnp.where(step >= 0.8 * total_steps, uniform, staged),
        "uniform": uniform,
    }[objective.ratio_schedule]
    clean = jax.random.uniform(trees.stream(key, "clean"), (batch,))
    return jnp.where(clean < objective.clean_fraction, 0.0, ratios)


def image_mask(
    objective: ObjectiveConfig, grid: tuple[int, int], ratios: jax.Array, key
) -> jax.Array:
    """Span or random masks at the given ratios [B]; bool [B,n]."""
    n = grid[0] * grid[1]
    budget = jnp.round(ratios * n).astype(jnp.int32)
    shape = (ratios.shape[0], n)
    span = masking.span_mask(grid, budget, trees.stream(key, "span"), objective.spans)
    scattered = masking.random_mask(shape, budget, trees.stream(key, "random"))
    choice = jax.random.uniform(trees.stream(key, "kind"), (ratios.shape[0], 1))
    return jnp.where(choice < objective.span_fraction, span, scattered)


def text_mask(objective: ObjectiveConfig, valid: jax.Array, key) -> jax.Array:
    """Random, contiguous or wide word masks; bool [B,m], a subset of `valid`."""
    random_key, span_key = trees.stream(key, "words"), trees.stream(key, "run")
    ratio = objective.text_ratio
    mask = jnp.where(
        _coin(trees.stream(key, "text_kind"), valid, objective.text_span_fraction),
        masking.text_span_mask(valid, ratio, span_key),
        masking.text_random_mask(valid, ratio, random_key),
    )
    if objective.text_wide_fraction:
        wide = _coin(
            trees.stream(key, "text_wide"), valid, objective.text_wide_fraction
        )
        scattered = masking.text_random_mask(valid, WIDE_TEXT_RATIO, random_key)
        mask = jnp.where(wide, scattered, mask)
    if objective.text_fraction < 1:
        mask &= _coin(trees.stream(key, "text_any"), valid, objective.text_fraction)
    return mask


def _coin(key, like: jax.Array, probability: float) -> jax.Array:
    """bool [B,1], True with the given probability."""
    return jax.random.uniform(key, (like.shape[0], 1)) < probability


def corrupt(
    config: gptface_model.GPTFaceConfig,
    objective: ObjectiveConfig,
    batch: Batch,
    ratios: jax.Array,
    key: jax.Array,
    matching_only: jax.Array | bool = False,
) -> Masked:
    """Replaces texts, masks positions, draws match bits.

    Args:
      config: the model's.
      objective: the objective's.
      batch: image_ids int [B,n], text_ids int [B,m], negative_ids int [B,m].
      ratios: float [B] image mask ratio; [2B] with `objective.paired`.
      key: random key.
      matching_only: bool scalar, masks nothing and hides all match bits.

    Returns:
      The corrupted batch of B (2B) examples. A text equal to its replacement
      counts as matched.
    """
    image, text = batch["image_ids"], batch["text_ids"]
    negative = batch["negative_ids"]
    if objective.paired:
        swap = jnp.arange(2 * text.shape[0])[:, None] >= text.shape[0]
        image, text, negative = (
            jnp.concatenate([x, x]) for x in (image, text, negative)
        )
    else:
        swap = _coin(trees.stream(key, "negative"), text, objective.negative_fraction)
    swap &= jnp.any(text != negative, axis=1, keepdims=True)
    if objective.null_fraction:
        null = _coin(trees.stream(key, "null"), text, objective.null_fraction)
        text, swap = jnp.where(null, config.vocab.pad_id, text), swap & ~null
    size = text.shape[0]
    hidden = jnp.ones((size, 1), bool)
    if config.match_token:
        hidden = _coin(trees.stream(key, "match"), text, objective.unknown_fraction)
        hidden |= matching_only
        stays = _coin(trees.stream(key, "told"), text, objective.told_negatives)
        swap &= hidden | stays
    text = jnp.where(swap, negative, text)
    labels = 1 - swap[:, 0].astype(jnp.int32)

    targets = gptface_model.assemble(image, text, config)
    valid = text != config.vocab.pad_id
    masked = _place(
        config.layout,
        image_mask(objective, config.layout.grid, ratios, key),
        text_mask(objective, valid, key),
    )
    masked &= ~jnp.asarray(matching_only)
    told = jnp.where(labels == 1, gptface_model.MATCHED, gptface_model.MISMATCHED)
    match = jnp.where(hidden[:, 0], gptface_model.UNKNOWN, told)
    return Masked(
        tokens=jnp.where(masked, config.vocab.mask_id, targets),
        targets=targets,
        masked=masked,
        itm_labels=labels,
        match=match,
        scored=objective.hidden_negatives | ~(swap & hidden)[:, 0],
        image_ratio=jnp.mean(masked[:, config.layout.image_slice], axis=1),
    )


def _place(layout: SequenceLayout, image: jax.Array, text: jax.Array) -> jax.Array:
    """Masks of the codes [B,n] and the words [B,m] -> of the sequence, bool [B,L]."""
    masked = jnp.zeros((image.shape[0], layout.length), bool)
    return (
        masked.at[:, layout.image_slice].set(image).at[:, layout.text_slice].set(text)
    )


def gather_masked(
    hidden: jax.Array, targets: jax.Array, masked: jax.Array, budget: int
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Brings masked positions to the front of a static budget of S slots.

    Args:
      hidden: [B,P,D] states of one modality.
      targets: int [B,P].
      masked: bool [B,P], at most S True in a row.
      budget: S.

    Returns:
      (hidden [B,S,D], targets [B,S], real bool [B,S]).
    """
    order = jnp.argsort(~masked, axis=1, stable=True)[:, :budget]  # [B,S]
    return (
        jnp.take_along_axis(hidden, order[..., None], axis=1),
        jnp.take_along_axis(targets, order, axis=1),
        jnp.take_along_axis(masked, order, axis=1),
    )


def budgets(
    config: gptface_model.GPTFaceConfig, objective: ObjectiveConfig
) -> tuple[int, int]:
    """Most image and most text positions that can be masked in one example."""
    n, m = config.layout.num_image_tokens, config.layout.max_text_tokens
    image = min(n, round(objective.max_image_ratio * n) + 1)
    return image, max(1, min(m, round(objective.max_text_ratio * m) + 1))


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
        states, targets, real = gather_masked(
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
    terms = [(weight, term) for weight, term in terms if weight]
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
            first = gptface_model.some_layers(module, params, 0, stop)
            loss, metrics = 0.0, {}
            for weight, term in terms:
                value, more = term(*first, batch)
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
    """fn(params), or zeros for the cost of none while not active."""

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
    deterministic = config.transformer.dropout == 0.0
    rngs = None if deterministic else {"dropout": trees.stream(key, "dropout")}
    variables = {"params": params}
    hidden = module.apply(
        variables,
        corrupted.tokens,
        corrupted.match,
        deterministic=deterministic,
        rngs=rngs,
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


def _contrastive(module, params, batch):
    """The image-text contrastive term: (loss, metrics)."""
    config = module.config
    tokens = gptface_model.assemble(batch["image_ids"], batch["text_ids"], config)
    features = module.apply({"params": params}, tokens, method="contrastive_features")
    # Without a text there is no feature to compare, and no gradient to trust.
    real = jnp.any(batch["text_ids"] != config.vocab.pad_id, axis=1)
    nll, right = losses.contrastive(*features, real)
    loss = losses.masked_sum(nll, real)
    accuracy = losses.masked_sum(right, real)
    return losses.mean(loss), {
        "contrastive_loss": loss,
        "contrastive_accuracy": accuracy,
    }


def _word_bag(module, params, batch):
    """The bag-of-words term, summed over the vocabulary: (loss, metrics)."""
    vocab = module.config.vocab
    logits = module.apply(
        {"params": params}, batch["image_ids"], method="word_bag_logits"
    )
    words = batch["word_ids"]
    there = jnp.zeros(logits.shape, bool)
    there = there.at[jnp.arange(len(words))[:, None], words].set(True)
    there = there.at[:, jnp.array(vocab.special_ids)].set(False)
    nll = jnp.sum(optax.sigmoid_binary_cross_entropy(logits, there), axis=-1)
    loss = losses.masked_sum(nll, jnp.any(there, axis=1))
    return losses.mean(loss), {"word_bag_loss": loss}


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
