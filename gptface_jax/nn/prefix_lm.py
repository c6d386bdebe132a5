"""Prefix language model: reads a prefix both ways, writes a target from left to right.

A sequence of joint ids has segments: 1 the prefix, 2 the target, 0 padding. The
defaults are Talk2Face's (SPEC B.3, B.4, B.6); parameters are those of the backbone.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from gptface_jax.core.vocab import JointVocab
from gptface_jax.nn import backbone
from gptface_jax.nn.transformer import TransformerConfig, on_any_device
from gptface_jax.ops.attention_mask import attention_mask

PADDING, PREFIX, TARGET = 0, 1, 2
VISIBILITY = ("prefix", "full", "causal")
POSITIONS = ("absolute", "by_modality")


@dataclasses.dataclass(frozen=True)
class PrefixLMConfig(backbone.BackboneConfig):
    """The model: besides what the backbone has

    Attributes:
      grid: (h, w) of the image tokens; n = h * w, raster order.
      length: L, most positions of a sequence.
      visibility: "prefix"; "full", all see all; or "causal".
      positions: "absolute", position t is row t; or "by_modality", image tokens have
        rows of their own wherever the image stands, see `position_rows`.
      cross_modal_heads: heads of every layer that see, from one modality of a prefix
        with an image, the other only. Target positions see everything.
    """

    transformer: TransformerConfig = TransformerConfig(feed_forward="dense")
    vocab: JointVocab = JointVocab(codebook_size=1024)
    max_positions: int = 1024
    segments: int = 3
    output_bias: bool = False
    output_transform: bool = False
    grid: tuple[int, int] = (16, 16)
    length: int = 334
    visibility: str = "prefix"
    positions: str = "absolute"
    cross_modal_heads: int = 0

    def __post_init__(self):
        for name, choices in (("visibility", VISIBILITY), ("positions", POSITIONS)):
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} {value!r} is none of {', '.join(choices)}")
        if self.length > self.max_positions:
            raise ValueError(
                f"sequence length {self.length} exceeds max_positions "
                f"{self.max_positions}"
            )
        if not 0 <= self.cross_modal_heads < self.transformer.num_heads:
            raise ValueError(
                f"cross_modal_heads is {self.cross_modal_heads}; it must leave one of "
                f"the {self.transformer.num_heads} heads"
            )

    @property
    def predicted_ids(self) -> int:
        """See `BackboneConfig`; a sequence may have face tokens in its target."""
        return self.vocab.size + self.vocab.face_tokens

    @property
    def num_image_tokens(self) -> int:
        return self.grid[0] * self.grid[1]


def for_generation(config: PrefixLMConfig) -> PrefixLMConfig:
    """The config for prefixes and targets of any length, on any device."""
    return dataclasses.replace(config, transformer=on_any_device(config.transformer))


class PrefixLM(backbone.Backbone):
    """The backbone, whose sequences have segments.

    Its parameters may be part of another model's on the same backbone.
    """

    config: PrefixLMConfig

    def sequence(
        self, tokens: jax.Array, segments: jax.Array, deterministic: bool = True,
        sequence_ids: jax.Array | None = None,
    ) -> jax.Array:  # fmt: skip
        """Final hidden states [B,L,D].

        Args:
          tokens: int32 [B,L] joint ids.
          segments: int32 [B,L] of PADDING, PREFIX, TARGET.
          deterministic: no dropout.
          sequence_ids: int32 [B,L], equal within each sequence of a packed row (see
            `data.packing`); None for one sequence a row.
        """
        return self(
            tokens,
            attn_mask=sequence_mask(tokens, segments, self.config, sequence_ids),
            deterministic=deterministic,
            segment_ids=segments if self.config.segments else None,
            positions=position_rows(tokens, self.config, sequence_ids),
        )

    def init_all(self, tokens: jax.Array):
        """Touches every parameter; pass as `method` to `init`."""
        return self.token_logits(self(tokens)[:, :1])


def sequence_mask(
    tokens: jax.Array, segments: jax.Array, config: PrefixLMConfig,
    sequence_ids: jax.Array | None = None,
) -> jax.Array:  # fmt: skip
    """Attention mask (SPEC B.4), bool [B,1|N,1|Q,K], True = may attend.

    Args:
      tokens: int32 [B,L] joint ids.
      segments: int32 [B,L].
      config: of the model.
      sequence_ids: int32 [B,L] of packed rows, in which no sequence sees another.
    """
    valid, prefix = segments != PADDING, segments == PREFIX
    same = None
    if sequence_ids is not None:
        same = sequence_ids[:, :, None] == sequence_ids[:, None, :]  # [B,Q,K]
    if config.visibility != "prefix":
        prefix = None if config.visibility == "full" else jnp.zeros_like(prefix)
    if not (crossed := config.cross_modal_heads):
        return _within(attention_mask(valid, prefix), same)
    image = is_image(tokens, config.vocab) & (segments == PREFIX)
    # Without an image there is no other side, and a head that sees nothing would get
    # the mean of all positions, the target's too.
    if same is None:
        with_image = jnp.any(image, axis=1, keepdims=True)
    else:
        with_image = jnp.any(same & image[:, None], axis=-1)
    sided = (segments == PREFIX) & with_image
    side = jnp.where(sided, image, -1)
    heads = ["other"] * crossed + ["all"] * (config.transformer.num_heads - crossed)
    return _within(attention_mask(valid, prefix, side, heads), same)


def _within(mask: jax.Array, same: jax.Array | None) -> jax.Array:
    return mask if same is None else mask & same[:, None]


def is_image(tokens: jax.Array, vocab: JointVocab) -> jax.Array:
    """bool [...]: joint ids of image codes."""
    return (tokens >= vocab.text_size) & (tokens < vocab.size)


def is_face(tokens: jax.Array, vocab: JointVocab) -> jax.Array:
    """bool [...]: joint ids of face tokens."""
    return tokens >= vocab.size


def position_rows(
    tokens: jax.Array, config: PrefixLMConfig, sequence_ids: jax.Array | None = None
) -> jax.Array | None:
    """Row of the position table for each token, int32 [B,L]; None for row t at t.

    "by_modality" (SPEC E.16): the j-th image token has row 1 + j; the others are
    counted by themselves, the first has row 0 and number c row n + c:

        [CLS] to image [SEP] smiling [SEP] i_1 i_2 [SEP]      n = 2
          0   3    4     5      6      7    1   2    8

    Of `[CLS] i_1 ... i_n [SEP] w_1 ...` that is row t at t, as GPTFace has it.

    Args:
      tokens: int32 [B,L] joint ids.
      config: of the model.
      sequence_ids: int32 [B,L] of packed rows: each sequence is counted by itself.
    """
    starts = None
    if sequence_ids is not None:
        changed = sequence_ids[:, 1:] != sequence_ids[:, :-1]
        starts = jnp.pad(changed, ((0, 0), (1, 0)), constant_values=True)
    if config.positions == "absolute":
        if starts is None:
            return None
        rows = _counted(jnp.ones_like(starts), starts)
        return jnp.minimum(rows, config.max_positions - 1)
    image = is_image(tokens, config.vocab)
    images, others = (_counted(x, starts) for x in (image, ~image))
    return rows_of(image, images, others, config)


def _counted(kind: jax.Array, starts: jax.Array | None) -> jax.Array:
    """How many of a kind stand before each token of it in its sequence, int [B,L]."""
    counts = jnp.cumsum(kind, axis=1)
    if starts is None:
        return counts - 1
    earlier = jnp.where(starts, counts - kind, 0)
    return counts - 1 - jax.lax.cummax(earlier, axis=1)


def rows_of(
    image: jax.Array, images: jax.Array, others: jax.Array, config: PrefixLMConfig
) -> jax.Array:
    """Rows "by_modality" of tokens before which so many of either kind stand."""
    n = config.num_image_tokens
    rows = jnp.where(image, 1 + images % n, jnp.where(others > 0, n + others, 0))
    return jnp.minimum(rows, config.max_positions - 1)  # padding may count too far
