"""VQGAN, the full taming-transformers topology (SPEC A.2.1)."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.nn import conv as nn_conv
from gptface_jax.ops import pictures, quantize

QUANTIZERS = ("nearest", "gumbel")
PIXEL_MAPS = ("single", "double", "clip_then_map")
# Parameters that have no part in the codes of a picture.
DECODER = ("decoder", "post_quant_conv")


@dataclasses.dataclass(frozen=True)
class VQGANConfig:
    """The tokenizer; the defaults are taming's face configuration at f = 16.

    Attributes:
      resolution: side in pixels that the model is declared at. It only decides
        where `attn_resolutions` are met; the network runs at any multiple of f.
      channels, channel_multipliers: width of level i is their product.
      level_channels: explicit widths instead, one a level.
      patch: side in pixels of the squares that the network begins and ends with, as
        channels. 4 leaves out the two widest levels, so that the others can be wide.
      num_res_blocks: per level of the encoder; the decoder has one more.
      attn_resolutions: nominal sides at which attention follows each block, out
        of resolution / patch, half of that, ...; one that is never met is refused. (A
        model declared at 336 visits 336, 168, 84, 42, 21 and never 16.)
      z_channels: width of the encoder output.
      embed_dim: width of the codes.
      codebook_size: K.
      quantizer: "nearest" code by distance, or "gumbel": a 1x1 convolution gives
        each code a logit and the largest wins (taming's GumbelVQ, imported only).
      groups: of every GroupNorm (lowered until it divides the width).
      dropout: inside residual blocks.
      in_channels, out_channels: of the picture.
      condition_channels: width, at most that of a level, of the stem through which
        the decoder sees what is known of a photograph; 0 for a decoder that paints
        from codes alone (taming's topology).
      pixel_map: what the encoder is given of a picture in [-1,1]: "single", itself;
        "double", mapped once more, to [-3,1], as a released script does; or
        "clip_then_map", CLIP's normalisation mapped so (SPEC B.2). For networks that
        were trained or used with such codes.
      dtype: of the activations; the encoder's residual stream, its two ends and the
        code distances are always float32.
    """

    resolution: int = 256
    channels: int = 128
    channel_multipliers: tuple[int, ...] = (1, 1, 2, 2, 4)
    level_channels: tuple[int, ...] = ()
    patch: int = 1
    num_res_blocks: int = 2
    attn_resolutions: tuple[int, ...] = (16,)
    z_channels: int = 256
    embed_dim: int = 256
    codebook_size: int = 8192
    quantizer: str = "nearest"
    groups: int = 32
    dropout: float = 0.0
    in_channels: int = 3
    out_channels: int = 3
    condition_channels: int = 0
    dtype: str = "float32"
    pixel_map: str = "single"

    def __post_init__(self):
        if self.resolution % self.factor:
            raise ValueError(
                f"resolution {self.resolution} is no multiple of f = {self.factor}"
            )
        sides = [self.first_side >> i for i in range(len(self.widths))]
        for side in self.attn_resolutions:
            if side not in sides:
                raise ValueError(
                    f"attn_resolutions has {side}, but a model declared at resolution "
                    f"{self.resolution} visits {sides}; name one of these, or none"
                )
        for name, choices in (("quantizer", QUANTIZERS), ("pixel_map", PIXEL_MAPS)):
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} {value!r} is unknown; use one of {choices}")

    @property
    def widths(self) -> tuple[int, ...]:
        if self.level_channels:
            return self.level_channels
        return tuple(self.channels * m for m in self.channel_multipliers)

    @property
    def first_width(self) -> int:
        return self.level_channels[0] if self.level_channels else self.channels

    @property
    def factor(self) -> int:
        """Pixels a side of a token, f."""
        return self.patch * 2 ** (len(self.widths) - 1)

    @property
    def first_side(self) -> int:
        """Side in pixels of the level next to the pixels, at `resolution`."""
        return self.resolution // self.patch

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of the tokens of a picture at `resolution`."""
        side = self.resolution // self.factor
        return side, side


class _Middle(nn.Module):
    """Residual block, attention, residual block."""

    config: VQGANConfig

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool) -> jax.Array:
        c, width = self.config, x.shape[-1]

        def block(name):
            return nn_conv.ResidualBlock(width, c.groups, c.dropout, c.dtype, name=name)

        x = block("block_1")(x, deterministic)
        x = nn_conv.SpatialAttention(c.groups, c.dtype, name="attn_1")(x)
        return block("block_2")(x, deterministic)


class Encoder(nn.Module):
    """The encoder, [B,H,W,3] -> float32 [B,H/f,W/f,z_channels].

    What the blocks are added to stays float32: rounding it at every block is what
    turns a bfloat16 latent to another code.
    """

    config: VQGANConfig

    @nn.compact
    def __call__(self, x: jax.Array, deterministic: bool = True) -> jax.Array:
        c = self.config
        x = pictures.to_patches(x, c.patch)
        x = nn_conv.conv(c.first_width, 3, "conv_in", jnp.float32)(x)
        side = c.first_side
        for i, width in enumerate(c.widths):
            for j in range(c.num_res_blocks):
                name = f"down_{i}_block_{j}"
                x = nn_conv.ResidualBlock(
                    width, c.groups, c.dropout, c.dtype, name=name
                )(x, deterministic)
                if side in c.attn_resolutions:
                    name = f"down_{i}_attn_{j}"
                    x = nn_conv.SpatialAttention(c.groups, c.dtype, name=name)(x)
            if i < len(c.widths) - 1:
                x = nn_conv.Downsample(name=f"down_{i}_downsample")(x)
                side //= 2
        x = _Middle(c, name="mid")(x, deterministic)
        norm_out = nn_conv.group_norm(x.shape[-1], c.groups, "norm_out", jnp.float32)
        return nn_conv.conv(c.z_channels, 3, "conv_out", jnp.float32)(
            nn.swish(norm_out(x))
        )


def last_conv(config: VQGANConfig, name: str | None = None) -> nn.Conv:
    """The decoder's last convolution: -> [B,h,w,patch*patch*out_channels]."""
    channels = config.out_channels * config.patch**2
    return nn_conv.conv(channels, 3, name, config.dtype)


class Stem(nn.Module):
    """A feature map for each level of the decoder, of what is known of a photograph.

    They are zero at first, so that training starts at the plain decoder (SPEC E.12).
    """

    config: VQGANConfig

    @nn.compact
    def __call__(self, known: jax.Array) -> list[jax.Array]:
        """`ops.pictures.known_pixels` [B,H,W,4] -> what each level's blocks get."""
        c = self.config
        x, maps = pictures.to_patches(known, c.patch).astype(c.dtype), []
        # A level begins with the width of the one below it.
        for i, below in enumerate((*c.widths[1:], c.widths[-1])):
            width = min(c.condition_channels, c.widths[i])
            stride = 2 if i else 1
            x = nn.swish(nn_conv.conv(width, 3, f"conv_{i}", c.dtype, stride)(x))
            zeros = nn.initializers.zeros
            maps.append(nn_conv.conv(below, 1, f"out_{i}", c.dtype, init=zeros)(x))
        return maps


class Decoder(nn.Module):
    """The decoder, [B,h,w,z_channels] -> [B,h*f,w*f,3]."""

    config: VQGANConfig

    @nn.compact
    def __call__(
        self,
        z: jax.Array,
        deterministic: bool = True,
        known: jax.Array | None = None,
    ) -> jax.Array:
        c = self.config
        maps = Stem(c, name="stem")(known) if c.condition_channels else None
        x = nn_conv.conv(c.widths[-1], 3, "conv_in", c.dtype)(z)
        x = _Middle(c, name="mid")(x, deterministic)
        side = c.resolution // c.factor
        for i, width in reversed(list(enumerate(c.widths))):
            if maps:
                x += maps[i]
            for j in range(c.num_res_blocks + 1):
                x = nn_conv.ResidualBlock(
                    width, c.groups, c.dropout, c.dtype, name=f"up_{i}_block_{j}"
                )(x, deterministic)
                if side in c.attn_resolutions:
                    name = f"up_{i}_attn_{j}"
                    x = nn_conv.SpatialAttention(c.groups, c.dtype, name=name)(x)
            if i:
                x = nn_conv.Upsample(name=f"up_{i}_upsample")(x)
                side *= 2
        x = nn.swish(nn_conv.group_norm(x.shape[-1], c.groups, "norm_out", c.dtype)(x))
        # What the last convolution reads: the adaptive weight of the adversarial
        # loss is measured there. Kept only if "intermediates" is mutable.
        self.sow("intermediates", "last", x)
        return pictures.from_patches(last_conv(c, "conv_out")(x), c.patch)


class VQGAN(nn.Module):
    """Photographs to code indices and back."""

    config: VQGANConfig

    def setup(self):
        c = self.config
        self.encoder = Encoder(c)
        self.decoder = Decoder(c)
        self.quant_conv = nn_conv.conv(c.embed_dim, 1, "quant_conv", jnp.float32)
        self.post_quant_conv = nn_conv.conv(c.z_channels, 1, "post_quant_conv", c.dtype)

        def uniform(key, shape):
            bound = 1.0 / shape[0]
            return jax.random.uniform(key, shape, minval=-bound, maxval=bound)

        self.codebook = self.param(
            "codebook",
            nn.with_logical_partitioning(uniform, ("codes", None)),
            (c.codebook_size, c.embed_dim),
        )
        if c.quantizer == "gumbel":
            self.code_logits = nn_conv.conv(
                c.codebook_size, 1, "code_logits", jnp.float32
            )

    def latents(self, image: jax.Array, deterministic: bool = True) -> jax.Array:
        """Latents z_e [B,h,w,C], not quantised, of pictures [B,H,W,3] in [-1,1]."""
        image = pictures.mapped(image, self.config.pixel_map)
        return self.quant_conv(self.encoder(image, deterministic))

    def encode(self, image: jax.Array) -> jax.Array:
        """Tokenizes pictures.

        Args:
          image: float32 [B,H,W,3] in [-1,1], sides multiples of f.

        Returns:
          image_ids int32 [B,H/f,W/f].
        """
        return self.quantize(self.latents(image))

    def quantize(self, z_e: jax.Array) -> jax.Array:
        """The nearest codes, image_ids int32 [B,h,w], of latents z_e [B,h,w,C]."""
        z_e = jax.lax.stop_gradient(z_e.astype(jnp.float32))
        if self.config.quantizer == "gumbel":
            return jnp.argmax(self.code_logits(z_e), axis=-1).astype(jnp.int32)
        return quantize.nearest(z_e, self.codebook)

    def decode_latents(
        self,
        z_q: jax.Array,
        deterministic: bool = True,
        known: jax.Array | None = None,
    ) -> jax.Array:
        """Pictures float32 [B,H,W,3], about [-1,1], of code vectors [B,h,w,C].

        Args:
          z_q: the code vectors.
          deterministic: no dropout.
          known: float32 [B,H,W,4], `ops.pictures.known_pixels` of the photograph, for
            a decoder with `condition_channels`; by default nothing is known.
        """
        c, (b, h, w, _) = self.config, z_q.shape
        if c.condition_channels and known is None:
            image = jnp.zeros((b, h * c.factor, w * c.factor, c.in_channels))
            known = pictures.known_pixels(image, jnp.ones(image.shape[:3], bool))
        z = self.post_quant_conv(z_q)
        return self.decoder(z, deterministic, known).astype(jnp.float32)

    def decode(self, image_ids: jax.Array, known: jax.Array | None = None) -> jax.Array:
        """Pictures float32 [B,h*f,w*f,3], about [-1,1], of image_ids int [B,h,w].

        What is `known` of the photograph: see `decode_latents`.
        """
        z_q = jnp.take(self.codebook, image_ids, axis=0)
        return self.decode_latents(z_q, known=known)

    def __call__(
        self,
        image: jax.Array,
        deterministic: bool = True,
        code_gradient: str = "straight_through",
        known: jax.Array | None = None,
        image_ids: jax.Array | None = None,
    ):
        """Reconstruction with everything the losses need.

        Args:
          image: float32 [B,H,W,3] in [-1,1].
          deterministic: no dropout.
          code_gradient: how gradients pass the codes, of `ops.quantize.GRADIENTS`.
          known: of the photograph, see `decode_latents`.
          image_ids: int [B,h,w], decoded instead of the picture's own.

        Returns:
          (reconstruction [B,H,W,3], {"z_e" [B,h,w,C], "z_q" [B,h,w,C]
          differentiable in the codebook, "image_ids" [B,h,w]}).
        """
        z_e = self.latents(image, deterministic).astype(jnp.float32)
        image_ids = self.quantize(z_e) if image_ids is None else image_ids
        z_q = jnp.take(self.codebook, image_ids, axis=0)
        passed = quantize.GRADIENTS[code_gradient](z_e, z_q)
        reconstruction = self.decode_latents(passed, deterministic, known)
        return reconstruction, {"z_e": z_e, "z_q": z_q, "image_ids": image_ids}
