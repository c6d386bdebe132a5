"""GPTFace: one bidirectional transformer over image and text tokens (SPEC A.2.3-A.4).

Sequence: [CLS] i_1 ... i_n [SEP] w_1 ... w_m, padded; see `core.vocab`.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.core.types import Params
from gptface_jax.core.vocab import JointVocab, SequenceLayout
from gptface_jax.nn import tokens as nn_tokens
from gptface_jax.nn import transformer as nn_transformer

# Rows of the match control table (SPEC A.5.2).
UNKNOWN, MATCHED, MISMATCHED = 0, 1, 2


@dataclasses.dataclass(frozen=True)
class GPTFaceConfig:
    """The model.

    Attributes:
      transformer: the backbone.
      vocab: joint id space.
      layout: token grid and text slots.
      max_positions: rows of the position table (>= layout.length).
      match_token: add the match control embedding to [CLS] (preset `control`).
      embedding_init: standard deviation of the embedding tables at the start.
      embedding_multiplier: factor on the embeddings that enter the backbone (paper:
        1). With init "fan_in" every layer writes values of order 1, in which
        embeddings of order `embedding_init` are lost; sqrt(width) brings them level.
      cross_modal_heads: attention heads of every layer that see the other modality
        only (paper: 0). Words are a minority of the sequence, and heads that see
        everything take long to notice them.
      contrastive_width: width of the image-text contrastive projections used
        by the optional alignment term; 0 for none.
      word_bag: a head for the optional bag-of-words term.
    """

    transformer: nn_transformer.TransformerConfig = nn_transformer.TransformerConfig()
    vocab: JointVocab = JointVocab()
    layout: SequenceLayout = SequenceLayout(grid=(21, 21))
    max_positions: int = 512
    match_token: bool = False
    embedding_init: float = 0.02
    embedding_multiplier: float = 1.0
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


def assemble(
    image_ids: jax.Array, text_ids: jax.Array, config: GPTFaceConfig
) -> jax.Array:
    """Joins codes and words into one sequence of joint ids.

    Args:
      image_ids: int [B,n] codes 0..C-1 in raster order.
      text_ids: int [B,m] text ids, padded with [PAD]; what the layout adds to the
        length follows here.
      config: the model's.

    Returns:
      tokens int32 [B,L].
    """
    vocab = config.vocab
    column = jnp.ones((image_ids.shape[0], 1), jnp.int32)
    layout = config.layout
    padding = jnp.tile(column * vocab.pad_id, layout.length - layout.text_slice.stop)
    return jnp.concatenate(
        [
            column * vocab.cls_id,
            vocab.image_to_joint(image_ids).astype(jnp.int32),
            column * vocab.sep_id,
            text_ids.astype(jnp.int32),
            padding,
        ],
        axis=1,
    )


def padding_mask(tokens: jax.Array, vocab: JointVocab) -> jax.Array:
    """bool [B,1,1,K]: padding is never attended."""
    return (tokens != vocab.pad_id)[:, None, None, :]


def unimodal_mask(tokens: jax.Array, config: GPTFaceConfig) -> jax.Array:
    """bool [B,1,Q,K]: image sees only image, text only text, no padding.

    [CLS] i i [SEP] w w
      1   1 1   0   0 0
      1   1 1   0   0 0
      0   0 0   1   1 1
    """
    same = _same_modality(tokens.shape[1], config)
    return same[None, None] & padding_mask(tokens, config.vocab)


def joint_mask(tokens: jax.Array, config: GPTFaceConfig) -> jax.Array:
    """bool [B,1|N,1|Q,K]: all but padding; the cross-modal heads, the other side."""
    visible = padding_mask(tokens, config.vocab)
    if not config.cross_modal_heads:
        return visible
    same = _same_modality(tokens.shape[1], config)
    head = jnp.arange(config.transformer.num_heads)[:, None, None]
    return visible & ((head >= config.cross_modal_heads) | ~same)[None]


def _same_modality(length: int, config: GPTFaceConfig) -> jax.Array:
    """bool [Q,K]; [CLS] goes with the image, [SEP] with the text."""
    is_text = jnp.arange(length) >= config.layout.sep_index
    return is_text[:, None] == is_text[None, :]


class GPTFace(nn.Module):
    """Embedding, backbone, shared softmax and the image-text matching head."""

    config: GPTFaceConfig

    def setup(self):
        c = self.config
        t = c.transformer
        self.tokens = nn_tokens.JointEmbedding(
            c.vocab.size,
            c.max_positions,
            t.width,
            c.embedding_init,
            3 if c.match_token else 0,
            c.embedding_multiplier,
            t.dtype,
            c.vocab.rows - c.vocab.size,
        )
        self.transformer = nn_transformer.Transformer(t)
        self.output_dense = nn_transformer.dense(
            t, t.width, ("embed", "embed_out"), "output_dense"
        )
        self.output_norm = nn_transformer.layer_norm(t, "output_norm")
        self.itm = nn_transformer.dense(t, 2, ("embed", None), "itm")
        if c.contrastive_width:
            self.image_projection = nn_transformer.dense(
                t, c.contrastive_width, ("embed", None), "image_projection"
            )
            self.text_projection = nn_transformer.dense(
                t, c.contrastive_width, ("embed", None), "text_projection"
            )
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
                dot_general=functools.partial(nn_transformer.gathered_dot, axes),
                bias_init=nn.with_logical_partitioning(
                    nn.initializers.constant(-4.6), ("vocab",)
                ),
            )

    def __call__(
        self,
        tokens: jax.Array,
        match: jax.Array | None = None,
        attn_mask: jax.Array | None = None,
        deterministic: bool = True,
        below: jax.Array | None = None,
    ) -> jax.Array:
        """Final hidden states.

        Args:
          tokens: int32 [B,L] joint ids.
          match: int32 [B] of UNKNOWN, MATCHED, MISMATCHED; ignored by models
            without the match token.
          attn_mask: bool [B,1|N,1|Q,K], True = may attend; default `joint_mask`.
          deterministic: no dropout.
          below: [B,L,D] what enters the layers in place of the embeddings.

        Returns:
          [B,L,D].
        """
        if attn_mask is None:
            attn_mask = joint_mask(tokens, self.config)
        x = self._embed(tokens, match) if below is None else below
        return self.transformer(x, attn_mask, deterministic)

    def states(
        self,
        tokens: jax.Array,
        match: jax.Array | None = None,
        below: jax.Array | None = None,
    ) -> jax.Array:
        """Hidden states [B,L,D] without the final norm: `below` of further layers."""
        mask = joint_mask(tokens, self.config)
        x = self._embed(tokens, match) if below is None else below
        return self.transformer(x, mask, normalise=False)

    def _embed(self, tokens, match):
        if not self.config.match_token:
            match = None
        elif match is None:
            match = jnp.full(tokens.shape[:1], UNKNOWN, jnp.int32)
        x = self.tokens(tokens, match)
        return nn.with_logical_constraint(x, ("batch", "length", "embed_act"))

    def token_logits(
        self, hidden: jax.Array, start: int = 0, stop: int | None = None
    ) -> jax.Array:
        """Shared softmax: [...,D] -> float32 logits of joint ids [start, stop).

        Without `stop` of all rows of the table, see `JointEmbedding.attend`.
        """
        whole = ("batch", *[None] * (hidden.ndim - 1))
        hidden = nn.with_logical_constraint(hidden, whole)
        x = nn.with_logical_constraint(self.output_dense(hidden), whole)
        x = jax.nn.gelu(x, approximate=True)
        return self.tokens.attend(self.output_norm(x), start, stop)

    def image_logits(self, hidden: jax.Array) -> jax.Array:
        """[...,D] -> [...,C], image codes only."""
        vocab = self.config.vocab
        return self.token_logits(hidden, vocab.text_size, vocab.size)

    def text_logits(self, hidden: jax.Array) -> jax.Array:
        """[...,D] -> [...,|V|], words only; special ids are -inf."""
        logits = self.token_logits(hidden, 0, self.config.vocab.text_size)
        special = jnp.array(self.config.vocab.special_ids)
        return logits.at[..., special].set(-jnp.inf)

    def itm_logits(self, hidden: jax.Array) -> jax.Array:
        """[B,L,D] -> float32 [B,2] from the last [CLS] state; index 1 = matched."""
        return self.itm(hidden[:, :1])[:, 0].astype(jnp.float32)

    def match_logits(
        self, tokens: jax.Array, below: jax.Array | None = None
    ) -> jax.Array:
        """`itm_logits`, match bit unknown, of one layer that computes [CLS] only.

        Args:
          tokens: int32 [B,L].
          below: [B,L,D], see `__call__`.

        Returns:
          float32 [B,2].
        """
        mask = joint_mask(tokens, self.config)
        x = self._embed(tokens, None) if below is None else below
        return self.itm_logits(self.transformer(x, mask, rows=1))

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

    def word_bag_logits(self, image_ids: jax.Array) -> jax.Array:
        """Which words are true of a picture, from the picture alone.

        Args:
          image_ids: int [B,n].

        Returns:
          float32 [B,|V|], logits of independent words.
        """
        none = jnp.zeros((image_ids.shape[0], 0), jnp.int32)
        tokens = assemble(image_ids, none, self.config)
        tokens = tokens[:, : self.config.layout.sep_index]
        # Every head sees the picture, for there is no other side.
        hidden = self(tokens, attn_mask=padding_mask(tokens, self.config.vocab))
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


def some_layers(
    module: GPTFace, params: Params, start: int, stop: int
) -> tuple[GPTFace, Params]:
    """The same network with its layers [start, stop) only, and its share of the params.

    Raises:
      ValueError: layers that it does not have.
    """
    transformer = module.config.transformer
    if not 0 <= start < stop <= transformer.num_layers:
        raise ValueError(
            f"layers {start} to {stop} asked for; the model has "
            f"{transformer.num_layers}"
        )
    transformer = dataclasses.replace(transformer, num_layers=stop - start)
    config = dataclasses.replace(module.config, transformer=transformer)
    return GPTFace(config), share_of_layers(params, start, stop)


def share_of_layers(params: Params, start: int, stop: int) -> Params:
    """The tree with layers [start, stop) of the stack, where it has a stack."""
    stack = params.get("transformer", {})
    if "layers" not in stack:
        return params
    layers = jax.tree.map(lambda x: x[start:stop], stack["layers"])
    return {**params, "transformer": {**stack, "layers": layers}}


def layer_states(module: GPTFace, params: Params, tokens: jax.Array) -> list[jax.Array]:
    """Hidden states after every layer, [B,L,D] each, without the final norm.

    Args:
      module, params: the model.
      tokens: int32 [B,L] joint ids; L may be shorter than the layout's.
    """
    found, below = [], None
    for i in range(module.config.transformer.num_layers):
        layer, share = some_layers(module, params, i, i + 1)
        variables = {"params": share}
        below = layer.apply(variables, tokens, below=below, method="states")
        found.append(below)
    return found
