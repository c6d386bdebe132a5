"""Joint token embedding with learned positions, and logits tied to it (SPEC A.3-4)."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from flax import linen as nn


class JointEmbedding(nn.Module):
    """One table for words and image codes, one for positions.

    Attributes:
      vocab_size: V, text entries first, image codes after them.
      max_length: rows of the position table.
      width: D.
      init_scale: standard deviation of both tables at the start.
      num_match: rows of the match control table added to [CLS] (SPEC A.5.2);
        0 for none.
      multiplier: factor on what enters the backbone, not on the logits.
      dtype: of the activations.
      padding: rows of the table beyond V, see `core.vocab.JointVocab.multiple_of`.
    """

    vocab_size: int
    max_length: int
    width: int
    init_scale: float = 0.02
    num_match: int = 0
    multiplier: float = 1.0
    dtype: jnp.dtype = jnp.float32
    padding: int = 0

    def setup(self):
        def table(name, rows, axes):
            init = nn.with_logical_partitioning(
                nn.initializers.normal(self.init_scale), axes
            )
            return self.param(name, init, (rows, self.width))

        self.rows = self.vocab_size + self.padding
        self.embedding = table("embedding", self.rows, ("vocab", "embed"))
        self.position = table("position", self.max_length, (None, "embed"))
        if self.num_match:
            self.match = table("match", self.num_match, (None, "embed"))
        self.output_bias = self.param(
            "output_bias",
            nn.with_logical_partitioning(nn.initializers.zeros, ("vocab",)),
            (self.rows,),
        )

    def __call__(self, tokens: jax.Array, match: jax.Array | None = None) -> jax.Array:
        """Embeds joint ids.

        Args:
          tokens: int32 [B,L], L <= max_length.
          match: int32 [B] row of the match table added to position 0.

        Returns:
          [B,L,D] of `dtype`.
        """
        length = tokens.shape[1]
        # Rows are looked up where they are, in a table whose width is whole; else the
        # partitioner may gather all the rows.
        table = nn.with_logical_constraint(self.embedding, ("vocab", "embed_act"))
        position = nn.with_logical_constraint(self.position, (None, "embed_act"))
        x = jnp.take(table, tokens, axis=0) + position[:length]
        x = nn.with_logical_constraint(x, ("batch", None, "embed_act"))
        if match is not None:
            x = x.at[:, 0].add(jnp.take(self.match, match, axis=0))
        return (self.multiplier * x).astype(self.dtype)

    def attend(self, x: jax.Array, start: int = 0, stop: int | None = None):
        """Logits of the ids [start, stop) by the tied table: [...,D] -> [...,S].

        Without `stop` to the last row of the table: slicing would move the shards
        of a table that is split. Logits of rows without an id are -1e30.
        """
        table = self.embedding[start:stop].astype(self.dtype)
        logits = jnp.einsum("...d,vd->...v", x, table)
        ids = jnp.arange(start, self.rows if stop is None else stop)
        bias = jnp.where(ids < self.vocab_size, self.output_bias[start:stop], -1e30)
        return logits.astype(jnp.float32) + bias
