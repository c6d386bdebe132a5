"""Text-guided editing of aligned pictures in batches (SPEC A.10, steps 1-5)."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Sequence
from typing import Any

import flax
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from gptface_jax.core.errors import UserError
from gptface_jax.core.vocab import JointVocab
from gptface_jax.data import blending, image
from gptface_jax.data.text import TextTokenizer
from gptface_jax.nn import each_device
from gptface_jax.nn.sequence import SequenceLayout
from gptface_jax.nn.transformer import on_any_device
from gptface_jax.ops import pictures
from gptface_jax.pipelines import batching
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer
from gptface_jax.pipelines.networks import Network
from gptface_jax.pipelines.strength import Direction
from gptface_jax.systems.gptface import decode as gptface_decode
from gptface_jax.systems.gptface import guidance, predict
from gptface_jax.systems.gptface import kept as keeping
from gptface_jax.systems.gptface.model import GPTFace, GPTFaceConfig, assemble
from gptface_jax.systems.gptface.options import DecodeConfig

HINT = 8.0  # nats that a code as far from a hint as the usual one loses


@flax.struct.dataclass
class Batch:
    """Edited pictures, before compositing.

    Attributes:
      images: uint8 [B,S,S,3] raw VQGAN decodes.
      itm_log_prob: float32 [B,T] log p(q=1) before each iteration, NaN after a
        sample's last one and without guidance.
      final_log_prob: float32 [B] log p(q=1) of the finished tokens.
      num_iterations: int32 [B].
      committed_at: int32 [B,h,w] iteration that drew a token, -1 for known ones.
    """

    images: np.ndarray
    itm_log_prob: np.ndarray
    final_log_prob: np.ndarray
    num_iterations: np.ndarray
    committed_at: np.ndarray

    @property
    def open_tokens(self) -> np.ndarray:
        """Tokens that were resampled, bool [B,h,w]."""
        return self.committed_at >= 0


@dataclasses.dataclass(frozen=True)
class Request:
    """A picture to resample; the arguments of `Editor.edit` for one.

    Attributes:
      image: uint8 [S,S,3].
      mask: bool [S,S], True = may change.
      text: the sentence, or "".
      config: of the decoder.
      key: of the random choices.
      num_candidates: of which the best match is kept.
      grow: tokens by which the mask is dilated.
      unknown: bool [S,S], what the decoder must not see; default the mask.
      strength: directions that are added to the text's, see `Editor.edit`.
      hint: uint8 [S,S,3], what the result should come near to, or None.
    """

    image: np.ndarray
    mask: np.ndarray
    text: str
    config: DecodeConfig
    key: jax.Array
    num_candidates: int = 1
    grow: int = 0
    unknown: np.ndarray | None = None
    strength: tuple[Direction, ...] = ()
    hint: np.ndarray | None = None

    @property
    def bucket(self) -> tuple[DecodeConfig, int, int, bool]:
        """Key of the requests that can be answered together: equal options."""
        hinted = self.hint is not None
        return self.config, self.num_candidates, len(self.strength), hinted


def samples_in_memory(memory: int, model: GPTFaceConfig) -> int:
    """Samples that are guided at a time in half of `memory` bytes, a power of two."""
    fit = memory // 2 // guidance.bytes_of_one(model)
    return 1 << max(0, fit.bit_length() - 1)


def _memory(device: jax.Device) -> int:
    """Bytes of a device, or its share of the machine's."""
    stats = device.memory_stats() or {}
    if "bytes_limit" in stats:
        return stats["bytes_limit"]
    try:
        machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):  # not known of every system
        machine = 8 << 30
    return machine // jax.local_device_count()


@dataclasses.dataclass(frozen=True)
class _Rerank:
    """Function (weights, rows) of `gptface_decode.rerank`, equal for equal options."""

    module: GPTFace
    config: DecodeConfig
    num_candidates: int
    slots: int

    def __call__(self, weights, rows):
        (params, codebook), (tokens, known, key, *added) = weights, rows
        return gptface_decode.rerank(
            self.module, params, tokens, known, self.config, key, self.num_candidates,
            *added, slots=self.slots, codebook=codebook,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Decode:
    """Function (weights, rows) of `gptface_decode.decode`, equal for equal options."""

    module: GPTFace
    config: DecodeConfig
    slots: int

    def __call__(self, weights, rows):
        (params, codebook), (tokens, known, key) = weights, rows
        return gptface_decode.decode(
            self.module, params, tokens, known, self.config, key, slots=self.slots,
            codebook=codebook,
        )  # fmt: skip


class Editor:
    """VQGAN, GPTFace and text tokenizer, joined.

    Args:
      vqgan, gptface: the networks; their token grids and codebooks must agree.
      text_tokenizer: turns sentences into ids.
      devices: share every batch of edits, whose size must be a multiple of their
        number; by default the first one of this process.
      dtype: of the activations, "float32" or "bfloat16"; by default the networks'
        own. Parameters, and all that guidance does to them, stay float32.

    Raises:
      UserError: networks that do not belong together, or an unknown dtype.
    """

    def __init__(
        self,
        vqgan: Network,
        gptface: Network,
        text_tokenizer: TextTokenizer,
        devices: Sequence[jax.Device] | None = None,
        dtype: str | None = None,
    ):
        layout, vocab = gptface.config.layout, gptface.config.vocab
        if tuple(vqgan.config.grid) != tuple(layout.grid):
            raise UserError(
                f"the VQGAN makes a grid of {vqgan.config.grid}, the GPTFace reads "
                f"{layout.grid}; they do not belong together"
            )
        if vqgan.config.codebook_size != vocab.codebook_size:
            raise UserError(
                f"the VQGAN has {vqgan.config.codebook_size} codes, the GPTFace "
                f"{vocab.codebook_size}; they do not belong together"
            )
        if text_tokenizer.size != vocab.text_size:
            raise UserError(
                f"vocab.txt has {text_tokenizer.size} entries, the GPTFace "
                f"{vocab.text_size}; they do not belong together"
            )
        devices = list(devices or jax.local_devices()[:1])
        self.vqgan = ImageTokenizer(vqgan, dtype=dtype, devices=devices)
        config = gptface.config
        transformer = on_any_device(config.transformer)
        if dtype:
            transformer = dataclasses.replace(transformer, dtype=dtype)
        if transformer != config.transformer:
            module = type(gptface.module)(
                dataclasses.replace(config, transformer=transformer)
            )
            gptface = dataclasses.replace(gptface, module=module)
        self.gptface, self.text_tokenizer = gptface, text_tokenizer
        self.dtype = dtype
        self._mesh = Mesh(np.array(devices), ("batch",))
        self._split = NamedSharding(self._mesh, PartitionSpec("batch"))
        # The codebook for options that ask which codes are alike.
        self._everywhere = jax.device_put(
            (gptface.params, vqgan.params["codebook"]),
            NamedSharding(self._mesh, PartitionSpec()),
        )
        score = functools.partial(predict.itm_log_prob, gptface.module)
        self._score = jax.jit(score)
        self.has_answered = False
        self._most_guided = samples_in_memory(_memory(devices[0]), gptface.config)
        self._together = self._most_guided * len(devices)

    @property
    def params(self) -> Any:
        """The transformer's parameters, on the first device."""
        return self._weights[0]

    @property
    def codebook(self) -> jax.Array:
        """The VQGAN's codebook float32 [K,C], on the first device."""
        return self._weights[1]

    @property
    def _weights(self) -> tuple[Any, jax.Array]:
        return jax.tree.map(lambda x: x.addressable_data(0), self._everywhere)

    def on(self, devices: Sequence[jax.Device]) -> Editor:
        """An editor of the same networks on these devices."""
        return Editor(
            self.vqgan.network, self.gptface, self.text_tokenizer, devices, self.dtype
        )

    @property
    def size(self) -> int:
        """Side of the pictures in pixels."""
        return self.vqgan.config.resolution

    @property
    def module(self) -> GPTFace:
        """The transformer; its parameters are `params`."""
        return self.gptface.module

    @property
    def layout(self) -> SequenceLayout:
        """The layout of codes and text in a sequence."""
        return self.gptface.config.layout

    @property
    def vocab(self) -> JointVocab:
        """The joint ids of codes and text."""
        return self.gptface.config.vocab

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a picture's tokens."""
        return tuple(self.layout.grid)

    @property
    def max_text_tokens(self) -> int:
        """Tokens of a text that are read."""
        return self.layout.max_text_tokens

    @property
    def match_token(self) -> bool:
        """Whether the transformer has a match bit: text and codes belong together."""
        return self.gptface.config.match_token

    @property
    def has_retrieval(self) -> bool:
        """Whether the transformer has the contrastive projections."""
        return self.gptface.config.contrastive_width > 0

    def image_ids(self, images: np.ndarray, masks: np.ndarray | None = None):
        """Codes int32 [B,h,w] of pictures uint8 [B,S,S,3], masked pixels filled first.

        What lies under a mask would leak otherwise: the encoder sees far beyond a
        token.
        """
        pixels = image.to_unit_range(images)
        if masks is not None:
            pixels = np.stack([blending.prefill(p, m) for p, m in zip(pixels, masks)])
        return self.vqgan.encode(pixels)

    def tokens(self, image_ids: np.ndarray, texts: Sequence[str]) -> jax.Array:
        """Joint ids int32 [B,L] of codes int [B,h,w] and B texts."""
        text_ids = self.text_tokenizer.encode(texts, self.max_text_tokens)
        return self.joined(image_ids, text_ids)

    def joined(self, image_ids: np.ndarray, text_ids: np.ndarray) -> jax.Array:
        """Joint ids int32 [B,L] of codes int [B,h,w] and text ids int [B,m]."""
        flat = jnp.asarray(image_ids.reshape(len(image_ids), -1))
        return assemble(flat, jnp.asarray(text_ids), self.gptface.config)

    def match_log_prob(self, images: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Log-probability that whole pictures and texts match; float32 [B]."""
        return self.score(self.image_ids(images), texts)

    def score(self, image_ids: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """Log-probability that codes int [B,h,w] and texts match; float32 [B]."""

        def score(ids, texts):
            return self._score(self.params, self.tokens(ids, texts))

        given, most = [image_ids, texts], self._together
        return batching.run(score, given, most, batching.power_of_two)

    def edit(
        self,
        images: np.ndarray,
        masks: np.ndarray,
        texts: Sequence[str],
        config: DecodeConfig,
        key: Any,
        *,
        num_candidates: int = 1,
        grow: Sequence[int] | None = None,
        unknown: np.ndarray | None = None,
        strength: Sequence[Sequence[Direction]] = (),
        hint: np.ndarray | None = None,
    ) -> Batch:
        """The pictures with their masked tokens drawn anew.

        Args:
          images: uint8 [B,S,S,3].
          masks: bool [B,S,S], True = may change.
          texts: B sentences; "" leaves the text side empty.
          config: of the decoder.
          key: keys [B].
          num_candidates: of each; the one that matches its text best is kept.
          grow: tokens by which each mask is dilated; default 0.
          unknown: bool [B,S,S], what a decoder that sees the pictures is not shown;
            default the masks. Beyond a mask its tokens' pixels stay, and may be seen.
          strength: of each picture as many directions (SPEC E.15), which cost two
            passes of the model each; () for none.
          hint: uint8 [B,S,S,3], pictures that the results should come near to: codes
            lose by how far they are from theirs.

        Returns:
          A Batch.
        """
        layout = self.layout
        is_open = np.stack(
            [
                image.dilate(image.pixels_to_tokens(mask, layout.grid), steps)
                for mask, steps in zip(masks, grow or [0] * len(masks))
            ]
        )
        # What the grown tokens hold must not leak either.
        hidden = [image.tokens_to_pixels(t, m.shape) for t, m in zip(is_open, masks)]
        tokens = self.tokens(self.image_ids(images, np.stack(hidden)), texts)
        known = np.ones(tokens.shape, bool)
        known[:, layout.image_slice] = ~is_open.reshape(len(images), -1)
        rows = (tokens, known, key, self._strengths(strength), self._bias(hint))
        # Here, where it is known how much is open: devices share a program.
        slots = keeping.slots(config, self.module.config, known)
        fitting = self._fitting(config)
        decoder = _Rerank(self.module, fitting, num_candidates, slots)
        result, scores = self._decoded(decoder, rows)
        unknown = masks if unknown is None else unknown
        return Batch(
            images=self._pictures(result.tokens, self._known(images, unknown)),
            itm_log_prob=np.asarray(result.itm_log_prob),
            final_log_prob=np.asarray(jnp.max(scores, axis=1)),
            num_iterations=np.asarray(result.num_iterations),
            committed_at=np.asarray(result.committed_at)[:, layout.image_slice].reshape(
                is_open.shape
            ),
        )

    def _strengths(
        self, strength: Sequence[Sequence[Direction]]
    ) -> predict.Strengths | None:
        """Arguments of the decoder for B x A directions; None where there are none."""
        weights = np.array([[d.weight for d in row] for row in strength], np.float32)
        if not weights.size:
            return None
        texts = [t for row in strength for d in row for t in (d.sentence, d.opposite)]
        ids = self.text_tokenizer.encode(texts, self.max_text_tokens)
        return predict.Strengths(ids.reshape(*weights.shape, 2, -1), weights)

    def _bias(self, hint: np.ndarray | None) -> np.ndarray | None:
        """What codes lose by their distance to those of pictures; float32 [B,n,K]."""
        if hint is None:
            return None
        table = np.asarray(self.vqgan.network.params["codebook"], np.float32)
        codes = self.image_ids(hint).reshape(len(hint), -1)
        squares = np.sum(table**2, axis=-1)
        apart = squares[codes][..., None] + squares - 2 * table[codes] @ table.T
        return -HINT / np.mean(apart) * np.maximum(apart, 0)

    def answer(self, requests: Sequence[Request], size: int = 0) -> list[Batch]:
        """Answers to requests of one bucket, each a Batch without the batch axis.

        Args:
          requests: what to resample.
          size: of the batch, filled with the last request; default as many as asked.
        """
        count = len(requests)
        # Filled up, for each size of a batch is compiled.
        padded = batching.filled(list(requests), size)
        first = padded[0]
        if any(r.bucket != first.bucket for r in padded):
            raise ValueError("requests of different buckets cannot share a batch")
        batch = self.edit(
            np.stack([r.image for r in padded]),
            np.stack([r.mask for r in padded]),
            [r.text for r in padded],
            first.config,
            jnp.stack([r.key for r in padded]),
            num_candidates=first.num_candidates,
            grow=[r.grow for r in padded],
            unknown=np.stack(
                [r.mask if r.unknown is None else r.unknown for r in padded]
            ),
            strength=[r.strength for r in padded],
            hint=None if first.hint is None else np.stack([r.hint for r in padded]),
        )
        self.has_answered = True
        return [jax.tree.map(lambda x, i=i: x[i], batch) for i in range(count)]

    def sample(
        self, texts: Sequence[str], config: DecodeConfig, key: Any
    ) -> np.ndarray:
        """Whole pictures uint8 [B,S,S,3] after B sentences, by keys [B]."""
        layout = self.layout
        slots = keeping.slots(
            config, self.module.config, np.zeros((1, layout.length), bool)
        )
        decoder = _Decode(self.module, self._fitting(config), slots)

        def draw(texts, keys):
            tokens = self.tokens(np.zeros((len(texts), *layout.grid), np.int32), texts)
            known = np.ones(tokens.shape, bool)
            known[:, layout.image_slice] = False
            result = self._decoded(decoder, (tokens, known, jnp.stack(keys)))
            return self._pictures(result.tokens)

        sizes = functools.partial(batching.on_devices, devices=len(self._mesh.devices))
        return batching.run(draw, [texts, list(key)], self._together, sizes)

    def _decoded(self, decoder: Any, rows: Any) -> Any:
        """What a decoder makes of rows [B,...], which all devices share."""
        if len(self._mesh.devices) == 1:
            return decoder(self._weights, rows)
        rows = jax.device_put(rows, self._split)
        return each_device.rows_apart(self._mesh, decoder, self._everywhere, rows)

    def _fitting(self, config: DecodeConfig):
        """The options with `at_once` as many as memory holds, unless it is given."""
        return dataclasses.replace(config, at_once=config.at_once or self._most_guided)

    def _known(self, images: np.ndarray, unknown: np.ndarray) -> np.ndarray | None:
        """Known pixels for a conditional decoder; None for a plain one."""
        if not self.vqgan.config.condition_channels:
            return None
        return np.asarray(pictures.known_pixels(image.to_unit_range(images), unknown))

    def _pictures(
        self, tokens: jax.Array, known: np.ndarray | None = None
    ) -> np.ndarray:
        layout = self.layout
        codes = np.asarray(tokens)[:, layout.image_slice]
        ids = self.vocab.joint_to_image(codes)
        decoded = self.vqgan.decode(ids.reshape(-1, *layout.grid), known=known)
        return image.from_unit_range(decoded)
