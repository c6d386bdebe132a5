"""Joint token embedding with learned positions, and logits by it (SPEC A.3-4, B.6)."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.core.vocab import JointVocab
from gptface_jax.nn import products


class JointEmbedding(nn.Module):
    """One table for words and image codes, one for positions, and what is added.

    Attributes:
      vocab_size: V, text entries first, image codes after them.
      max_length: rows of the position table.
      width: D.
      init_scale: standard deviation of both tables at the start.
      control: (name, rows) of a table one row of which is added to the first
        position, as GPTFace's match bit is (SPEC A.5.2).
      multiplier: factor on what enters the backbone, not on the logits.
      dtype: of the activations.
      padding: rows of the table beyond V, see `core.vocab.JointVocab.multiple_of`.
      segments: rows of the table one of which is added to every position (SPEC B.3),
        zeros at the start; 0 for none.
      tied: logits by the table of embeddings; else by a table "output" of their own.
      bias: whether logits have one.
      matmul_dtype: of the products that logits are, see `nn.products`.
    """

    vocab_size: int
    max_length: int
    width: int
    init_scale: float = 0.02
    control: tuple[str, int] | None = None
    multiplier: float = 1.0
    dtype: jnp.dtype = jnp.float32
    padding: int = 0
    segments: int = 0
    tied: bool = True
    bias: bool = True
    matmul_dtype: str = "float32"

    def setup(self):
        def table(name, rows, axes):
            init = nn.with_logical_partitioning(
                nn.initializers.normal(self.init_scale), axes
            )
            return self.param(name, init, (rows, self.width))

        self.rows = self.vocab_size + self.padding
        self.embedding = table("embedding", self.rows, ("vocab", "embed"))
        self.position = table("position", self.max_length, (None, "embed"))
        if self.control:
            name, rows = self.control
            self.control_rows = table(name, rows, (None, "embed"))
        zeros = nn.initializers.zeros
        if self.bias:
            self.output_bias = self.param(
                "output_bias",
                nn.with_logical_partitioning(zeros, ("vocab",)),
                (self.rows,),
            )
        if self.segments:
            self.segment = self.param(
                "segment",
                nn.with_logical_partitioning(zeros, (None, "embed")),
                (self.segments, self.width),
            )
        if not self.tied:
            self.output = table("output", self.rows, ("vocab", "embed"))

    def __call__(
        self,
        tokens: jax.Array,
        control: jax.Array | None = None,
        segment_ids: jax.Array | None = None,
        positions: jax.Array | None = None,
    ) -> jax.Array:
        """Embeds joint ids.

        Args:
          tokens: int32 [B,L], L <= max_length.
          control: int32 [B] row of the control table added to position 0.
          segment_ids: int32 [B,L] rows of the segment table; default row 0 of it.
          positions: int32 [B,L] rows of the position table; default 0 to L - 1.

        Returns:
          [B,L,D] of `dtype`.
        """
        length = tokens.shape[1]
        # Rows are looked up where they are, in a table whose width is whole; else the
        # partitioner may gather all the rows.
        table = nn.with_logical_constraint(self.embedding, ("vocab", "embed_act"))
        position = nn.with_logical_constraint(self.position, (None, "embed_act"))
        x = jnp.take(table, tokens, axis=0)
        x += position[:length] if positions is None else position[positions]
        x = nn.with_logical_constraint(x, ("batch", None, "embed_act"))
        if control is not None:
            x = x.at[:, 0].add(jnp.take(self.control_rows, control, axis=0))
        if self.segments:
            first = self.segment[0]
            x += first if segment_ids is None else self.segment[segment_ids]
        return (self.multiplier * x).astype(self.dtype)

    def attend(self, x: jax.Array, start: int = 0, stop: int | None = None):
        """Logits of the ids [start, stop) by the output table: [...,D] -> [...,S].

        Without `stop` to the last row of the table: slicing would move the shards
        of a table that is split. Logits of rows without an id are -1e30.
        """
        table = self.embedding if self.tied else self.output
        table = table[start:stop].astype(self.dtype)
        logits = products.multiply(x, table.T, self.matmul_dtype)
        ids = jnp.arange(start, self.rows if stop is None else stop)
        bias = self.output_bias[start:stop] if self.bias else 0.0
        bias = jnp.where(ids < self.vocab_size, bias, -1e30)
        return logits.astype(jnp.float32) + bias


def with_codebook(
    embedding: jax.Array, codebook: jax.Array, text_size: int, key
) -> jax.Array:
    """The table of embeddings, with image codes that start from the codebook.

    Similar codes then have similar embeddings from the first step on, which a
    short run would otherwise have to find out from the data.

    Args:
      embedding: float [V or more rows,D], as initialised.
      codebook: float [K,C].
      text_size: first row of the image codes.
      key: of the random projection C -> D.

    Returns:
      The same shape; image rows are 3/4 projected code, 1/4 their own noise (in
      variance) at the old scale.
    """
    where = slice(text_size, text_size + codebook.shape[0])
    rows = embedding[where]
    codes = codebook - jnp.mean(codebook, axis=0)
    projection = jax.random.normal(key, (codes.shape[1], embedding.shape[1]))
    projected = codes @ projection
    projected *= jnp.std(rows) / jnp.maximum(jnp.std(projected), 1e-9)
    mixed = 0.75**0.5 * projected + 0.25**0.5 * rows
    return embedding.at[where].set(mixed)


def from_codebook(tables: Any, codebook: Any, vocab: JointVocab, key: jax.Array) -> Any:
    """The (boxed) parameters of a `JointEmbedding`, begun `with_codebook`."""
    boxed = tables["embedding"]
    codebook = jnp.asarray(codebook, jnp.float32)
    table = with_codebook(nn.meta.unbox(boxed), codebook, vocab.text_size, key)
    return {**tables, "embedding": boxed.replace_boxed(table)}
