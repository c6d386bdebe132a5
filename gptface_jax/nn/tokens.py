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
    """

    vocab_size: int
    max_length: int
    width: int
    init_scale: float = 0.02
    num_match: int = 0
    multiplier: float = 1.0
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        def table(name, rows, axes):
            init = nn.with_logical_partitioning(
                nn.initializers.normal(self.init_scale), axes
            )
            return self.param(name, init, (rows, self.width))

        self.embedding = table("embedding", self.vocab_size, ("vocab", "embed"))
        self.position = table("position", self.max_length, ("length", "embed"))
        if self.num_match:
            self.match = table("match", self.num_match, (None, "embed"))
        self.output_bias = self.param(
            "output_bias",
            nn.with_logical_partitioning(nn.initializers.zeros, ("vocab",)),
            (self.vocab_size,),
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
        x = jnp.take(self.embedding, tokens, axis=0) + self.position[:length]
        if match is not None:
            x = x.at[:, 0].add(jnp.take(self.match, match, axis=0))
        return (self.multiplier * x).astype(self.dtype)

    def attend(self, x: jax.Array, start: int = 0, stop: int | None = None):
        """Logits of the ids [start, stop) by the tied table: [...,D] -> [...,S]."""
        table = self.embedding[start:stop].astype(self.dtype)
        logits = jnp.einsum("...d,vd->...v", x, table)
        return logits.astype(jnp.float32) + self.output_bias[start:stop]
