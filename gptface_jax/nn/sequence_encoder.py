"""GPTFace's layers as an encoder of faces: maps of its hidden states (SPEC C.11).

[CLS] i_1 ... i_n [SEP], where i are the tokens of a picture, or its patches projected
to their width. Parameters are those of `nn.backbone`, and with patches "stem".
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.nn import backbone
from gptface_jax.ops import pictures


@dataclasses.dataclass(frozen=True)
class SequenceEncoderConfig(backbone.BackboneConfig):
    """The layers: besides what the backbone has

    Attributes:
      patch: side in pixels of what stands for a token; 0: tokens do.
    """

    output_bias: bool = False
    output_transform: bool = False
    patch: int = 0


class SequenceEncoder(backbone.Backbone):
    """Image tokens or a picture to the maps of layers."""

    config: SequenceEncoderConfig

    def setup(self):
        super().setup()
        c = self.config
        if c.patch:
            init = nn.initializers.lecun_normal()
            # Its bias is what tells a patch from a token.
            self.stem = nn.Dense(
                c.transformer.width,
                dtype=c.transformer.dtype,
                kernel_init=nn.with_logical_partitioning(init, (None, "embed")),
                bias_init=nn.with_logical_partitioning(
                    nn.initializers.zeros, ("embed",)
                ),
            )

    def maps(
        self, inputs: jax.Array, layers: tuple[int, ...], deterministic: bool = True
    ) -> list[jax.Array]:
        """Maps [B,h,w,D] of chosen layers, without a final norm.

        Args:
          inputs: int [B,h,w] codes; or float [B,H,W,3], where `patch` divides H and W.
          layers: their numbers, from 0 on.
          deterministic: no dropout.

        Raises:
          ValueError: inputs of the other kind, or too many.
        """
        c = self.config
        if inputs.ndim != (4 if c.patch else 3):
            wanted = "pictures [B,H,W,3]" if c.patch else "image tokens [B,h,w]"
            raise ValueError(f"the encoder reads {wanted}, not {list(inputs.shape)}")
        cells = pictures.to_patches(inputs, c.patch) if c.patch else inputs
        batch, *grid = cells.shape[:3]
        count = grid[0] * grid[1]
        if count + 2 > c.max_positions:
            raise ValueError(
                f"{count} tokens of a picture are more than max_positions "
                f"{c.max_positions} allows"
            )
        x = self._entering(cells.reshape(batch, count, *cells.shape[3:]))
        mask = jnp.ones((1, 1, 1, count + 2), bool)
        numbers = tuple(layer + 1 for layer in layers)
        states = self.transformer(
            x, mask, deterministic, normalise=False, collect=numbers
        )[1]
        return [s[:, 1:-1].reshape(batch, *grid, s.shape[-1]) for s in states]

    def _entering(self, cells):
        """The input of the layers [B,n+2,D], of codes [B,n] or patches [B,n,P]."""
        vocab, patches = self.config.vocab, self.config.patch > 0
        codes = jnp.zeros(cells.shape[:2], jnp.int32) if patches else cells
        ends = [(0, 0), (1, 1)]
        tokens = jnp.pad(vocab.image_to_joint(codes).astype(jnp.int32), ends)
        tokens = tokens.at[:, 0].set(vocab.cls_id).at[:, -1].set(vocab.sep_id)
        x = self.entering(tokens)
        if not patches:
            return x
        placed = self.stem(cells) + self.tokens.position[1 : cells.shape[1] + 1]
        placed = self.config.embedding_multiplier * placed
        return x.at[:, 1:-1].set(placed.astype(x.dtype))
