"""What GPTFace sees in training: texts replaced, positions masked (SPEC A.6).

All of it is drawn on the device inside the step.
"""

from __future__ import annotations

import dataclasses

import flax
import jax
import jax.numpy as jnp

from gptface_jax.core import trees
from gptface_jax.core.types import Batch
from gptface_jax.nn import sequence
from gptface_jax.ops import masking
from gptface_jax.systems.gptface import model as gptface_model

RATIO_SCHEDULES = ("paper", "rescaled", "wide", "uniform")
WIDE_TEXT_RATIO = 0.6


@dataclasses.dataclass(frozen=True)
class CorruptionConfig:
    """Options of what is masked, replaced and hidden; by default preset `control`.

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
        common. They say nothing about matching.
      paired: every picture comes twice, with its own and with another text, instead
        of a coin for each example. Neither the picture nor the text alone then says
        anything about matching. Doubles the sequences of a batch.
      unknown_fraction: with the match token, examples that do not see their
        match bit; only these are scored by image-text matching.
      told_negatives: share of the mismatched examples whose match bit says so that
        stay mismatched; the others get their own text back, for only a text that
        belongs teaches how a picture follows it.
      hidden_negatives: masked modelling also scores examples whose text is replaced
        and whose match bit is hidden (paper). They teach to distrust every text: a
        code then moves by no more than the odds of a replaced text. Without them
        masked modelling sees true pairs and known mismatches only (arXiv 2107.07651).
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
    corruption: CorruptionConfig, batch: int, step, total_steps: int, key
) -> jax.Array:
    """Mask ratio of every example at this step; float32 [B]."""
    low, high = corruption.wide_range
    uniform = jax.random.uniform(
        trees.stream(key, "ratio"), (batch,), minval=low, maxval=high
    )
    step = jnp.asarray(step)
    stage_total = None if corruption.ratio_schedule == "paper" else total_steps
    staged = jnp.full((batch,), masking.curriculum_ratio(step, stage_total))
    # All are traced and one is used; XLA drops the others.
    ratios = {
        "paper": staged,
        "rescaled": staged,
        "wide": jnp.where(step >= 0.8 * total_steps, uniform, staged),
        "uniform": uniform,
    }[corruption.ratio_schedule]
    clean = jax.random.uniform(trees.stream(key, "clean"), (batch,))
    return jnp.where(clean < corruption.clean_fraction, 0.0, ratios)


def image_mask(
    corruption: CorruptionConfig, grid: tuple[int, int], ratios: jax.Array, key
) -> jax.Array:
    """Span or random masks at the given ratios [B]; bool [B,n]."""
    n = grid[0] * grid[1]
    budget = jnp.round(ratios * n).astype(jnp.int32)
    shape = (ratios.shape[0], n)
    span = masking.span_mask(grid, budget, trees.stream(key, "span"), corruption.spans)
    scattered = masking.random_mask(shape, budget, trees.stream(key, "random"))
    choice = jax.random.uniform(trees.stream(key, "kind"), (ratios.shape[0], 1))
    # Both are drawn for every row: under jit a choice by row saves nothing.
    return jnp.where(choice < corruption.span_fraction, span, scattered)


def text_mask(corruption: CorruptionConfig, valid: jax.Array, key) -> jax.Array:
    """Random, contiguous or wide word masks; bool [B,m], a subset of `valid`."""
    random_key, span_key = trees.stream(key, "words"), trees.stream(key, "run")
    ratio = corruption.text_ratio
    mask = jnp.where(
        _coin(trees.stream(key, "text_kind"), valid, corruption.text_span_fraction),
        masking.text_span_mask(valid, ratio, span_key),
        masking.text_random_mask(valid, ratio, random_key),
    )
    if corruption.text_wide_fraction:
        wide = _coin(
            trees.stream(key, "text_wide"), valid, corruption.text_wide_fraction
        )
        scattered = masking.text_random_mask(valid, WIDE_TEXT_RATIO, random_key)
        mask = jnp.where(wide, scattered, mask)
    if corruption.text_fraction < 1:
        mask &= _coin(trees.stream(key, "text_any"), valid, corruption.text_fraction)
    return mask


def _coin(key, like: jax.Array, probability: float) -> jax.Array:
    """Independent coins bool [B,1], True with the given probability."""
    return jax.random.uniform(key, (like.shape[0], 1)) < probability


def corrupt(
    config: gptface_model.GPTFaceConfig,
    corruption: CorruptionConfig,
    batch: Batch,
    ratios: jax.Array,
    key: jax.Array,
    matching_only: jax.Array | bool = False,
) -> Masked:
    """A batch as training shows it: texts replaced, positions masked, match bits drawn.

    Args:
      config: the model's.
      corruption: what is masked, replaced and hidden.
      batch: image_ids int [B,n], text_ids int [B,m], negative_ids int [B,m].
      ratios: float [B] image mask ratio; [2B] with `paired`.
      key: random key.
      matching_only: bool scalar, masks nothing and hides all match bits.

    Returns:
      The corrupted batch of B (2B) examples. A text equal to its replacement
      counts as matched.
    """
    image, text, swap, hidden = _replace_texts(
        config, corruption, batch, key, matching_only
    )
    labels = 1 - swap[:, 0].astype(jnp.int32)

    targets = gptface_model.assemble(image, text, config)
    valid = text != config.vocab.pad_id
    masked = sequence.sequence_mask(
        config.layout,
        image_mask(corruption, config.layout.grid, ratios, key),
        text_mask(corruption, valid, key),
    )
    masked &= ~jnp.asarray(matching_only)
    true_match = jnp.where(labels == 1, gptface_model.MATCHED, gptface_model.MISMATCHED)
    match = jnp.where(hidden[:, 0], gptface_model.UNKNOWN, true_match)
    return Masked(
        tokens=jnp.where(masked, config.vocab.mask_id, targets),
        targets=targets,
        masked=masked,
        itm_labels=labels,
        match=match,
        # A replaced text whose mismatch is hidden is all that this option takes away.
        scored=corruption.hidden_negatives | ~(swap & hidden)[:, 0],
        image_ratio=jnp.mean(masked[:, config.layout.image_slice], axis=1),
    )


def _replace_texts(
    config: gptface_model.GPTFaceConfig,
    corruption: CorruptionConfig,
    batch: Batch,
    key: jax.Array,
    matching_only: jax.Array | bool,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """Pairs in which some texts are replaced or removed; arguments as of `corrupt`.

    Returns:
      (image ids int [B,n], text ids int [B,m], whether the text is replaced bool
      [B,1], whether the match bit is hidden bool [B,1]), 2B of each with `paired`.
    """
    image, text = batch["image_ids"], batch["text_ids"]
    negative = batch["negative_ids"]
    if corruption.paired:
        swap = jnp.arange(2 * text.shape[0])[:, None] >= text.shape[0]
        image, text, negative = (
            jnp.concatenate([x, x]) for x in (image, text, negative)
        )
    else:
        swap = _coin(trees.stream(key, "negative"), text, corruption.negative_fraction)
    swap &= jnp.any(text != negative, axis=1, keepdims=True)
    if corruption.null_fraction:
        null = _coin(trees.stream(key, "null"), text, corruption.null_fraction)
        # Without a text there is nothing to mismatch: the pair stays as it is.
        text, swap = jnp.where(null, config.vocab.pad_id, text), swap & ~null
    hidden = jnp.ones((text.shape[0], 1), bool)
    if config.match_token:
        hidden = _coin(trees.stream(key, "match"), text, corruption.unknown_fraction)
        hidden |= matching_only
        # Last, for only what sees its mismatch may get its own text back.
        stays = _coin(trees.stream(key, "told"), text, corruption.told_negatives)
        swap &= hidden | stays
    return image, jnp.where(swap, negative, text), swap, hidden


def budgets(
    config: gptface_model.GPTFaceConfig, corruption: CorruptionConfig
) -> tuple[int, int]:
    """Most image and most text positions that can be masked in one example."""
    n, m = config.layout.num_image_tokens, config.layout.max_text_tokens
    image = min(n, round(corruption.max_image_ratio * n) + 1)
    return image, max(1, min(m, round(corruption.max_text_ratio * m) + 1))
