"""FaceGPT: tokens of 3D faces after a sequence of image and text tokens (SPEC D.3).

    [CLS] i_1 ... i_n [SEP] w_1 ... w_m  [F_ID] [F_EXP] [F_ALB] [F_SH] [F_CAM]

Face tokens see everything and nothing but they sees them, so that all other tasks of
the same weights stay what they were. Without a picture or without a text its places are
padding. A head on each face token's state gives mean and variance of its coefficients.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.nn import backbone, sequence
from gptface_jax.nn import transformer as nn_transformer
from gptface_jax.ops.attention_mask import attention_mask, with_listeners
from gptface_jax.systems.facegpt import coefficients
from gptface_jax.systems.facegpt.codes import CoefficientCodes
from gptface_jax.systems.facegpt.coefficients import GROUPS, FacesConfig

_LOG_VARIANCE = (-6.0, 3.0)


@dataclasses.dataclass(frozen=True)
class FaceGPTConfig(backbone.BackboneConfig):
    """The model: besides what the backbone has

    Attributes:
      layout: token grid and text slots before the face tokens.
      faces: the face tokens. The vocabulary has as many `face_tokens`.
    """

    layout: sequence.SequenceLayout = sequence.SequenceLayout(grid=(16, 16))
    faces: FacesConfig = FacesConfig()

    def __post_init__(self):
        needed = self.layout.length + self.faces.positions
        if needed > self.max_positions:
            raise ValueError(
                f"sequence length {needed} with face tokens exceeds max_positions "
                f"{self.max_positions}"
            )
        if self.vocab.face_tokens != self.faces.vocabulary:
            raise ValueError(
                f"vocab.face_tokens is {self.vocab.face_tokens}; scheme "
                f"'{self.faces.scheme}' needs {self.faces.vocabulary}"
            )


class FaceHead(nn.Module):
    """States of face tokens to coefficients: [...,D] -> (mean, log variance).

    Starts at 0 and a variance of 1: at the mean head.

    Attributes:
      config: of the layers.
      outputs: coefficients.
    """

    config: nn_transformer.TransformerConfig
    outputs: int

    @nn.compact
    def __call__(self, states: jax.Array) -> tuple[jax.Array, jax.Array]:
        width = self.config.width
        x = nn_transformer.layer_norm(self.config, "norm")(states)
        x = nn_transformer.dense(self.config, width, ("embed", "embed_out"), "dense")(x)
        zeros = nn.with_logical_partitioning(nn.initializers.zeros, ("embed", None))
        output = nn.Dense(2 * self.outputs, kernel_init=zeros, name="output")
        found = output(jax.nn.gelu(x, approximate=True).astype(jnp.float32))
        mean, log_variance = jnp.split(found, 2, axis=-1)
        return mean, jnp.clip(log_variance, *_LOG_VARIANCE)


class FaceGPT(backbone.Backbone):
    """The backbone with heads on face tokens."""

    config: FaceGPTConfig

    def setup(self):
        super().setup()
        c, faces = self.config, self.config.faces
        sizes = faces.sizes
        if faces.scheme == "single":
            self.face = {"all": FaceHead(c.transformer, sum(sizes.values()))}
        elif faces.scheme == "grouped":
            self.face = {g: FaceHead(c.transformer, n) for g, n in sizes.items()}
        else:
            self.face_codes = CoefficientCodes(faces)

    def face_ids(self, batch: int) -> jax.Array:
        """Ids int32 [B,F] of face tokens of which nothing is known yet."""
        faces, start = self.config.faces, self.config.vocab.size
        each = faces.slots if faces.scheme == "discrete" else 1
        count = 1 if faces.scheme == "single" else len(GROUPS)
        ids = start + jnp.repeat(jnp.arange(count, dtype=jnp.int32), each)
        return jnp.broadcast_to(ids, (batch, len(ids)))

    def face_states(
        self,
        image_ids: jax.Array | None,
        text_ids: jax.Array | None,
        face_ids: jax.Array | None = None,
        deterministic: bool = True,
    ) -> jax.Array:
        """Final hidden states [B,F,D] of the face tokens after a picture, text or both.

        Args:
          image_ids: int [B,n] codes; None for no picture.
          text_ids: int [B,m] text ids with [PAD]; None for no text.
          face_ids: int32 [B,F]; default unknown ones.
          deterministic: no dropout.
        """
        layout, vocab = self.config.layout, self.config.vocab
        given = image_ids if text_ids is None else text_ids
        batch = given.shape[0]
        image = jnp.zeros((batch, layout.num_image_tokens), jnp.int32)
        words = jnp.full((batch, layout.max_text_tokens), vocab.pad_id, jnp.int32)
        tokens = sequence.assemble(
            image if image_ids is None else image_ids,
            words if text_ids is None else text_ids,
            vocab,
            layout,
        )
        valid = tokens != vocab.pad_id
        if image_ids is None:
            valid = valid.at[:, layout.image_slice].set(False)
        faces = self.face_ids(batch) if face_ids is None else face_ids
        mask = with_listeners(attention_mask(valid), valid, faces.shape[1])
        tokens = jnp.concatenate([tokens, faces], axis=1)
        states = self(tokens, attn_mask=mask, deterministic=deterministic)
        return states[:, layout.length :]

    def face_outputs(
        self,
        image_ids: jax.Array | None,
        text_ids: jax.Array | None,
        deterministic: bool = True,
    ) -> tuple[dict[str, jax.Array], dict[str, jax.Array]]:
        """Means and log variances [B,...] by group (not of the scheme "discrete").

        `coefficients.to_coefficients` makes coefficients of the means; variances are in
        the units of `coefficients.in_units`.
        """
        states = self.face_states(image_ids, text_ids, None, deterministic)
        if self.config.faces.scheme == "single":
            pair = self.face["all"](states[:, 0])
            return tuple(coefficients.split(x, self.config.faces) for x in pair)
        pairs = [self.face[g](states[:, i]) for i, g in enumerate(GROUPS)]
        mean, log_variance = (dict(zip(GROUPS, x)) for x in zip(*pairs))
        return mean, log_variance

    def code_logits(
        self,
        image_ids: jax.Array | None,
        text_ids: jax.Array | None,
        face_ids: jax.Array,
        deterministic: bool = True,
    ) -> jax.Array:
        """Logits float32 [B,F,codes] of each slot's own codes (scheme "discrete")."""
        states = self.face_states(image_ids, text_ids, face_ids, deterministic)
        if self.config.output_transform:
            states = self.output_norm(
                jax.nn.gelu(self.output_dense(states), approximate=True)
            )
        faces, start = self.config.faces, self.config.vocab.size + len(GROUPS)
        stop = start + faces.positions * faces.codes
        table = self.tokens.embedding if self.config.tied_output else self.tokens.output
        rows = table[start:stop].reshape(faces.positions, faces.codes, -1)
        bias = 0.0
        if self.config.output_bias:
            bias = self.tokens.output_bias[start:stop].reshape(rows.shape[:2])
        logits = jnp.einsum("bfd,fkd->bfk", states.astype(jnp.float32), rows)
        return logits + bias

    def codes_to_ids(self, codes: jax.Array) -> jax.Array:
        """Joint ids int32 [B,F] of codes [B,F] of each slot; below 0 is unknown."""
        faces = self.config.faces
        slot = jnp.arange(faces.positions) * faces.codes
        ids = self.config.vocab.size + len(GROUPS) + slot + codes
        return jnp.where(codes < 0, self.face_ids(len(codes)), ids)

    def encode_codes(self, units: dict[str, jax.Array]) -> jax.Array:
        """Codes int32 [B,F] of coefficients, see `coefficients.in_units`."""
        return self.face_codes.encode(units)

    def decode_codes(self, codes: jax.Array) -> dict[str, jax.Array]:
        """Coefficients in units [B,...] by group, of codes int32 [B,F]."""
        return self.face_codes.decode(codes)

    def predicted(
        self,
        image_ids: jax.Array | None,
        text_ids: jax.Array | None,
        deterministic: bool = True,
        face_ids: jax.Array | None = None,
    ) -> dict[str, jax.Array]:
        """Coefficients [B,...] after a picture, a text or both, differentiable.

        Of the discrete scheme what all slots expect that know of none, or of
        `face_ids` int32 [B,F].
        """
        if self.config.faces.scheme != "discrete":
            means, _ = self.face_outputs(image_ids, text_ids, deterministic)
            return coefficients.to_coefficients(means)
        given = image_ids if text_ids is None else text_ids
        ids = self.face_ids(len(given)) if face_ids is None else face_ids
        logits = self.code_logits(image_ids, text_ids, ids, deterministic)
        shares = jax.nn.softmax(logits)
        return coefficients.from_units(self.face_codes.decode_likely(shares))

    def code_losses(self, units: dict[str, jax.Array]):
        """See `CoefficientCodes.losses`."""
        return self.face_codes.losses(units)

    def init_faces(self, tokens: jax.Array):
        """Touches every parameter; pass as `method` to `init`."""
        logits = self.token_logits(self(tokens)[:, :1])
        image = jnp.zeros((1, self.config.layout.num_image_tokens), jnp.int32)
        faces = self.config.faces
        if faces.scheme != "discrete":
            return logits, self.face_outputs(image, None)
        units = {g: jnp.zeros((1, n)) for g, n in faces.sizes.items()}
        return logits, self.code_losses(units)
