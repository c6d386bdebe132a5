"""Embedding, layers and output over joint ids: what language models of faces share.

Parameter paths: tokens/..., transformer/..., output_dense/..., output_norm/...
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.core.types import Params
from gptface_jax.core.vocab import JointVocab
from gptface_jax.nn import tokens as nn_tokens
from gptface_jax.nn import transformer as nn_transformer
from gptface_jax.ops.attention_mask import attention_mask


@dataclasses.dataclass(frozen=True)
class BackboneConfig:
    """Sizes and variants; the defaults are GPTFace's.

    Attributes:
      transformer: the layers.
      vocab: joint id space.
      max_positions: rows of the position table.
      embedding_init: standard deviation of the embedding tables at the start.
      embedding_multiplier: factor on the embeddings that enter the layers (paper:
        1). With init "fan_in" every layer writes values of order 1, in which
        embeddings of order `embedding_init` are lost; sqrt(width) brings them level.
      segments: rows of the segment table, 0 for none.
      tied_output: logits by the table of embeddings; else by one of their own.
      output_bias: of the logits.
      output_transform: a dense layer, GELU and LayerNorm before the output table.
    """

    transformer: nn_transformer.TransformerConfig = nn_transformer.TransformerConfig()
    vocab: JointVocab = JointVocab()
    max_positions: int = 512
    embedding_init: float = 0.02
    embedding_multiplier: float = 1.0
    segments: int = 0
    tied_output: bool = True
    output_bias: bool = True
    output_transform: bool = True

    @property
    def control(self) -> tuple[str, int] | None:
        """Name and rows of the table added to the first position, if there is one."""
        return None

    @property
    def predicted_ids(self) -> int:
        """Ids from 0 on that logits are of: words and codes, and no face tokens."""
        return self.vocab.size


class Backbone(nn.Module):
    """Tokens to hidden states to logits."""

    config: BackboneConfig

    def setup(self):
        c = self.config
        t = c.transformer
        self.tokens = nn_tokens.JointEmbedding(
            c.predicted_ids,
            c.max_positions,
            t.width,
            c.embedding_init,
            c.control,
            c.embedding_multiplier,
            t.dtype,
            c.vocab.rows - c.predicted_ids,
            c.segments,
            c.tied_output,
            c.output_bias,
            t.matmul_dtype,
        )
        self.transformer = nn_transformer.Transformer(t)
        if c.output_transform:
            self.output_dense = nn_transformer.dense(
                t, t.width, ("embed", "embed_out"), "output_dense"
            )
            self.output_norm = nn_transformer.layer_norm(t, "output_norm")

    def __call__(
        self,
        tokens: jax.Array,
        control: jax.Array | None = None,
        attn_mask: jax.Array | None = None,
        deterministic: bool = True,
        hidden_states: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> jax.Array:
        """Final hidden states.

        Args:
          tokens: int32 [B,L] joint ids.
          control: int32 [B] rows of the control table, for models that have one.
          attn_mask: bool [B,1|N,1|Q,K], True = may attend; default `attn_mask(tokens)`.
          deterministic: no dropout.
          hidden_states: [B,L,D] what enters the layers in place of the embeddings.
          segment_ids: int32 [B,L], for models with segments.
          positions: int32 [B,L] rows of the position table; default 0 to L - 1.

        Returns:
          [B,L,D].
        """
        if attn_mask is None:
            attn_mask = self.attn_mask(tokens)
        x = self.entering(tokens, control, hidden_states, segment_ids, positions)
        return self.transformer(x, attn_mask, deterministic)

    def states(
        self,
        tokens: jax.Array,
        control: jax.Array | None = None,
        hidden_states: jax.Array | None = None,
    ) -> jax.Array:
        """Hidden states [B,L,D] without the final norm, for further layers to enter."""
        mask = self.attn_mask(tokens)
        x = self.entering(tokens, control, hidden_states)
        return self.transformer(x, mask, normalise=False)

    def layer_states(
        self, tokens: jax.Array, layers: tuple[int, ...] = ()
    ) -> list[jax.Array]:
        """Hidden states [B,L,D] after chosen layers, numbers from 1 on; none: all."""
        layers = layers or tuple(range(1, self.config.transformer.num_layers + 1))
        x = self.entering(tokens)
        return self.transformer(x, self.attn_mask(tokens), collect=layers)[1]

    def attn_mask(self, tokens: jax.Array) -> jax.Array:
        """The default attention mask: everything may be seen but padding."""
        return attention_mask(tokens != self.config.vocab.pad_id)

    def entering(
        self,
        tokens,
        control=None,
        hidden_states=None,
        segment_ids=None,
        positions=None,
    ):
        """The input of the layers [B,L,D]: see `__call__`."""
        if hidden_states is not None:
            return hidden_states
        x = self.tokens(tokens, control, segment_ids, positions)
        return nn.with_logical_constraint(x, ("batch", "length", "embed_act"))

    def token_logits(
        self, hidden: jax.Array, start: int = 0, stop: int | None = None
    ) -> jax.Array:
        """Logits float32 of joint ids [start, stop), of hidden states [...,D].

        Without `stop` of all rows of the table, see `JointEmbedding.attend`.
        """
        whole = ("batch", *[None] * (hidden.ndim - 1))
        x = nn.with_logical_constraint(hidden, whole)
        if self.config.output_transform:
            x = nn.with_logical_constraint(self.output_dense(x), whole)
            x = self.output_norm(jax.nn.gelu(x, approximate=True))
        return self.tokens.attend(x, start, stop)

    def image_logits(self, hidden: jax.Array) -> jax.Array:
        """Logits [...,C] of the image codes alone, of hidden states [...,D]."""
        vocab = self.config.vocab
        return self.token_logits(hidden, vocab.text_size, vocab.size)

    # Called by its name, as `image_logits` is: systems/gptface/predict.py, side_logits.
    def text_logits(self, hidden: jax.Array) -> jax.Array:
        """Logits [...,|V|] of the words, special ids -inf, of hidden states [...,D]."""
        logits = self.token_logits(hidden, 0, self.config.vocab.text_size)
        special = jnp.array(self.config.vocab.special_ids)
        return logits.at[..., special].set(-jnp.inf)


def some_layers(
    module: nn.Module, params: Params, start: int, stop: int
) -> tuple[nn.Module, Params]:
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
    return type(module)(config), share_of_layers(params, start, stop)


def share_of_layers(params: Params, start: int, stop: int) -> Params:
    """The tree with layers [start, stop) of the stack, where it has a stack."""
    stack = params.get("transformer", {})
    if "layers" not in stack:
        return params
    layers = jax.tree.map(lambda x: x[start:stop], stack["layers"])
    return {**params, "transformer": {**stack, "layers": layers}}
