"""Vision transformer that gives the maps of its layers (SPEC C.2; Dosovitskiy 2021).

As CLIP and FaRL build it: patches without a bias, a class token, learned positions, a
norm before the layers. The class token is read by the layers and left out of the maps.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.nn import transformer as nn_transformer
from gptface_jax.nn.transformer import TransformerConfig
from gptface_jax.ops import pictures, resampling

# Of layers as CLIP has them; sizes are the caller's.
CLIP = {
    "feed_forward": "dense",
    "gate": "quick_gelu",
    "init": "fan_in",
    "norm_eps": 1e-5,
    "remat": "none",
}


@dataclasses.dataclass(frozen=True)
class ViTConfig:
    """Sizes; the defaults are FaRL's ViT-B/16 at 512 pixels.

    Attributes:
      transformer: the layers.
      patch: side of a patch in pixels.
      grid: side of the table of positions; other grids are resized from it.
      output_width: of the projection that released weights hold and nothing here
        reads; 0 for a network without it and without the norm before it.
    """

    transformer: TransformerConfig = TransformerConfig(**CLIP)
    patch: int = 16
    grid: int = 32
    output_width: int = 512


class ViT(nn.Module):
    """Patches, a class token and the layers: a picture to the maps of layers."""

    config: ViTConfig

    @nn.compact
    def __call__(
        self, image: jax.Array, layers: tuple[int, ...], deterministic: bool = True
    ) -> list[jax.Array]:
        """Maps of chosen layers, without a final norm.

        Args:
          image: float [B,H,W,3], normalised; the patch side divides H and W.
          layers: their numbers, from 0 on.
          deterministic: no layer's output is left out; else a "dropout" rng is needed.

        Returns:
          [B,H/patch,W/patch,D] of each.

        Raises:
          ValueError: a picture that the patches do not divide.
        """
        c, t = self.config, self.config.transformer
        if image.ndim != 4 or any(n % c.patch or not n for n in image.shape[1:3]):
            raise ValueError(
                f"the picture is {list(image.shape)}; its sides must be multiples of "
                f"{c.patch}: resize it"
            )
        patches = pictures.to_patches(image, c.patch)  # [B,h,w,patch*patch*3]
        batch, *grid, _ = patches.shape
        start = nn.initializers.normal(t.width**-0.5)

        def table(name, shape, axes):
            return self.param(name, nn.with_logical_partitioning(start, axes), shape)

        class_token = table("class_token", (t.width,), ("embed",))
        position = table("position", (1 + c.grid**2, t.width), (None, "embed"))
        embed = nn.Dense(
            t.width,
            use_bias=False,
            dtype=t.dtype,
            kernel_init=nn.with_logical_partitioning(
                nn.initializers.lecun_normal(), (None, "embed")
            ),
            name="patches",
        )
        x = embed(patches.reshape(batch, -1, patches.shape[-1]))  # [B,h*w,D]
        first = jnp.broadcast_to(class_token, (batch, 1, t.width))
        x = jnp.concatenate([first.astype(x.dtype), x], 1)
        x = x + resized_positions(position, tuple(grid)).astype(x.dtype)
        x = nn_transformer.layer_norm(t, "entry_norm")(x)
        x = nn.with_logical_constraint(x, ("batch", "length", "embed_act"))
        mask = jnp.ones((1, 1, 1, x.shape[1]), bool)
        numbers = tuple(layer + 1 for layer in layers)
        stack = nn_transformer.Transformer(t, name="transformer")
        _, states = stack(x, mask, deterministic, normalise=False, collect=numbers)
        if c.output_width:
            self._unused()
        return [s[:, 1:].reshape(batch, *grid, t.width) for s in states]

    def _unused(self) -> None:
        """Weights that released files hold and that no output depends on."""
        c, width = self.config, self.config.transformer.width
        nn_transformer.layer_norm(c.transformer, "output_norm")(jnp.zeros((1, width)))
        init = nn.with_logical_partitioning(
            nn.initializers.normal(width**-0.5), ("embed", None)
        )
        self.param("output_projection", init, (width, c.output_width))


def resized_positions(position: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Positions [1+h*w,D] of another grid, by cubic interpolation.

    Args:
      position: [1+n*n,D], the class token's first, which stays as it is.
      grid: (h, w).
    """
    side = round((len(position) - 1) ** 0.5)
    maps = position[1:].reshape(1, side, side, -1)
    maps = resampling.resize(maps, grid, "cubic")
    return jnp.concatenate([position[:1], maps.reshape(-1, maps.shape[-1])])
