"""GPTFace: one bidirectional transformer over image and text tokens (SPEC A.2.3-A.4).

Sequence: [CLS] i_1 ... i_n [SEP] w_1 ... w_m, padded; see `nn.sequence`. Embedding,
layers and the shared softmax are those of `nn.backbone`.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.nn import backbone, products, sequence
from gptface_jax.nn import transformer as nn_transformer
from gptface_jax.ops.attention_mask import attention_mask

# Rows of the match control table (SPEC A.5.2).
UNKNOWN, MATCHED, MISMATCHED = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class GPTFaceConfig(backbone.BackboneConfig):
    """The model: besides what the backbone has

    Attributes:
      layout: token grid and text slots; no longer than `max_positions`.
      match_token: add the match control embedding to [CLS] (preset `control`).
      cross_modal_heads: attention heads of every layer that see the other modality
        only (paper: 0). Words are a minority of the sequence, and heads that see
        everything take long to notice them.
      contrastive_width: width of the image-text contrastive projections used
        by the optional alignment term; 0 for none.
      word_bag: a head for the optional bag-of-words term.
    """

    layout: sequence.SequenceLayout = sequence.SequenceLayout(grid=(21, 21))
    match_token: bool = False
    cross_modal_heads: int = 0
    contrastive_width: int = 0
    word_bag: bool = False

    def __post_init__(self):
        if self.layout.length > self.max_positions:
            raise ValueError(
                f"sequence length {self.layout.length} exceeds max_positions "
                f"{self.max_positions}"
            )
        if not 0 <= self.cross_modal_heads < self.transformer.num_heads:
            raise ValueError(
                f"cross_modal_heads is {self.cross_modal_heads}; it must leave one of "
                f"the {self.transformer.num_heads} heads"
            )

    @property
    def control(self) -> tuple[str, int] | None:
        """The match bit."""
        return ("match", 3) if self.match_token else None


def assemble(
    image_ids: jax.Array, text_ids: jax.Array, config: GPTFaceConfig
) -> jax.Array:
    """Codes [B,n] and words [B,m] as joint ids [B,L], see `nn.sequence.assemble`."""
    return sequence.assemble(image_ids, text_ids, config.vocab, config.layout)


def unimodal_mask(tokens: jax.Array, config: GPTFaceConfig) -> jax.Array:
    """Attention mask bool [B,1,Q,K]: image sees only image, text only text, no padding.

    [CLS] i i [SEP] w w
      1   1 1   0   0 0
      1   1 1   0   0 0
      0   0 0   1   1 1
    """
    valid = tokens != config.vocab.pad_id
    return attention_mask(valid, modality=_modality(tokens, config), heads=("own",))


def joint_mask(tokens: jax.Array, config: GPTFaceConfig) -> jax.Array:
    """Attention mask bool [B,1|N,1|Q,K]; cross-modal heads see the other side only."""
    valid, crossed = tokens != config.vocab.pad_id, config.cross_modal_heads
    if not crossed:
        return attention_mask(valid)
    heads = ["other"] * crossed + ["all"] * (config.transformer.num_heads - crossed)
    return attention_mask(valid, modality=_modality(tokens, config), heads=heads)


def _modality(tokens: jax.Array, config: GPTFaceConfig) -> jax.Array:
    """Side of each position, int [L]: [CLS] is the image's, [SEP] the text's."""
    is_text = jnp.arange(tokens.shape[1]) >= config.layout.sep_index
    return is_text.astype(jnp.int32)


class GPTFace(backbone.Backbone):
    """The backbone, the image-text matching head and those of the alignment terms."""

    config: GPTFaceConfig

    def setup(self):
        super().setup()
        c = self.config
        t = c.transformer
        self.itm = nn_transformer.dense(t, 2, ("embed", None), "itm")
        if c.contrastive_width:
            self.image_projection = nn_transformer.dense(
                t, c.contrastive_width, ("embed", None), "image_projection"
            )
            self.text_projection = nn_transformer.dense(
                t, c.contrastive_width, ("embed", None), "text_projection"
            )
            # log(1 / 0.07), CLIP's first temperature.
            self.contrastive_log_scale = self.param(
                "contrastive_log_scale", nn.initializers.constant(2.66), ()
            )

        if c.word_bag:
            # About one word in a hundred is true of a picture.
            axes = ("embed", "vocab")
            self.word_bag = nn.Dense(
                c.vocab.text_rows,
                dtype=t.dtype,
                kernel_init=nn.with_logical_partitioning(
                    nn.initializers.lecun_normal(), axes
                ),
                dot_general=functools.partial(
                    products.dense_product, axes, t.matmul_dtype
                ),
                bias_init=nn.with_logical_partitioning(
                    nn.initializers.constant(-4.6), ("vocab",)
                ),
            )

    def attn_mask(self, tokens: jax.Array) -> jax.Array:
        """`joint_mask`."""
        return joint_mask(tokens, self.config)

    def entering(
        self,
        tokens,
        control=None,
        hidden_states=None,
        segment_ids=None,
        positions=None,
    ):
        """The input of the layers; the match bit is ignored by models that have none.

        Args:
          tokens: int32 [B,L].
          control: int32 [B] of UNKNOWN (default), MATCHED, MISMATCHED.
          hidden_states, segment_ids, positions: see `Backbone.__call__`.
        """
        if not self.config.match_token:
            control = None
        elif control is None:
            control = jnp.full(tokens.shape[:1], UNKNOWN, jnp.int32)
        return super().entering(tokens, control, hidden_states, segment_ids, positions)

    def itm_logits(self, hidden: jax.Array) -> jax.Array:
        """Matching logits float32 [B,2] of the [CLS] in [B,L,D]; index 1 = matched."""
        return self.itm(hidden[:, :1])[:, 0].astype(jnp.float32)

    def match_logits(
        self, tokens: jax.Array, hidden_states: jax.Array | None = None
    ) -> jax.Array:
        """`itm_logits`, match bit unknown, of one layer that computes [CLS] only.

        Args:
          tokens: int32 [B,L].
          hidden_states: [B,L,D], see `Backbone.__call__`.

        Returns:
          float32 [B,2].

        Raises:
          ValueError: of several layers each needs all positions of the last.
        """
        if (depth := self.config.transformer.num_layers) > 1:
            raise ValueError(f"match_logits needs one layer; here are {depth}")
        mask = self.attn_mask(tokens)[:, :, :1]
        x = self.entering(tokens, hidden_states=hidden_states)
        return self.itm_logits(self.transformer(x[:, :1], mask, memory=x))

    def contrastive_features(self, tokens: jax.Array, deterministic: bool = True):
        """Image and text features that have not seen each other.

        Returns:
          (image [B,P], text [B,P], log inverse temperature), the two means over
          their own positions, from one pass with `unimodal_mask`.
        """
        layout = self.config.layout
        hidden = self(
            tokens,
            attn_mask=unimodal_mask(tokens, self.config),
            deterministic=deterministic,
        )
        image = jnp.mean(hidden[:, layout.image_slice], axis=1)
        text, words = hidden[:, layout.text_slice], tokens[:, layout.text_slice]
        real = (words != self.config.vocab.pad_id)[..., None].astype(text.dtype)
        text = jnp.sum(text * real, 1) / jnp.maximum(jnp.sum(real, 1), 1.0)
        return (
            self.image_projection(image),
            self.text_projection(text),
            self.contrastive_log_scale,
        )

    def word_bag_logits(
        self, image_ids: jax.Array, deterministic: bool = True
    ) -> jax.Array:
        """Logits of the words that are true of a picture, from the picture alone.

        Args:
          image_ids: int [B,n].
          deterministic: no dropout.

        Returns:
          float32 [B,|V|], logits of independent words.
        """
        none = jnp.zeros((image_ids.shape[0], 0), jnp.int32)
        tokens = assemble(image_ids, none, self.config)
        # Nothing of the text, not even its padding: [CLS] and the codes alone.
        tokens = tokens[:, : self.config.layout.sep_index]
        # Every head sees the picture, for there is no other side.
        valid = tokens != self.config.vocab.pad_id
        hidden = self(
            tokens, attn_mask=attention_mask(valid), deterministic=deterministic
        )
        logits = self.word_bag(hidden[:, 0]).astype(jnp.float32)
        return logits[:, : self.config.vocab.text_size]

    def init_all(self, tokens: jax.Array):
        """Touches every parameter; pass as `method` to `init`."""
        hidden = self(tokens)
        outputs = [self.token_logits(hidden[:, :1]), self.itm_logits(hidden)]
        if self.config.contrastive_width:
            outputs.append(self.contrastive_features(tokens))
        if self.config.word_bag:
            outputs.append(self.word_bag(hidden[:, 0]))
        return outputs
