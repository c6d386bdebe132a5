"""A trained Talk2Face with its tokenizers: prefixes in, drawn or scored targets out."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.core.config import from_options
from gptface_jax.core.errors import UserError
from gptface_jax.data import (
    age_tokens,
    label_templates,
    label_text,
    questions,
    sequences,
)
from gptface_jax.data import image as images
from gptface_jax.data.questions import Question
from gptface_jax.data.text import TextTokenizer
from gptface_jax.nn.prefix_lm import PREFIX, PrefixLM, for_generation
from gptface_jax.pipelines import framing, provenance
from gptface_jax.pipelines.face_view import SeesFaces
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer
from gptface_jax.pipelines.networks import Network
from gptface_jax.systems.talk2face import attention_map, decode
from gptface_jax.systems.talk2face.decode import GenerateConfig
from gptface_jax.systems.talk2face.tails import Tail

# Tokens of candidates that are scored at once: of one prefix, of all of a batch.
_SCORED_AT_ONCE, _SCORED_OF_ALL = 1024, 4096


@dataclasses.dataclass(frozen=True)
class Learnt:
    """Label sets and templates that a model was trained on, as its run keeps them.

    Attributes:
      questions: that it answers.
      max_prefix: most tokens of a prefix of text, its prompt and separators among them.
      edits: it draws pictures after others and a sentence.
    """

    questions: tuple[Question, ...] = ()
    max_prefix: int = 64
    edits: bool = False

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> Learnt:
        """Of the content of label_sets.json.

        Raises:
          UserError: it says something that is not understood.
        """
        data_sets = label_templates.from_mapping(content["data_sets"])
        table = age_tokens.with_age_tokens(data_sets, content["age_tokens"])
        named = content.get("name_data_sets", True)
        asked = questions.of(table, table)
        return cls(
            tuple(dataclasses.replace(question, named=named) for question in asked),
            content["max_prefix"],
            content.get("edits", False),
        )


def generate_options(values: Mapping[str, Any]) -> GenerateConfig:
    """Fields of `GenerateConfig`, the others at their defaults.

    Raises:
      UserError: an unknown option, or a value that makes no sense.
    """
    return from_options(GenerateConfig, values, "decode.")


def drawing_options(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of `GenerateConfig` that pictures are drawn by, checked.

    Raises:
      UserError: see `generate_options`.
    """
    values = {**values, "modality": "image"}
    generate_options(values)
    return values


class SequenceModel(SeesFaces):
    """A VQGAN and a prefix language model that belong together.

    Args:
      network: the prefix language model.
      vqgan: made its codes.
      tokenizer: of the text.
      learnt: what it was trained to say.
      frame: see `SeesFaces`.
      card: the model card.
      dtype: of the transformer's activations, "float32" or "bfloat16"; by default the
        network's.
      synthesis: fields of `GenerateConfig` that suit the pictures it draws.

    Raises:
      UserError: networks that do not belong together, or options that make no sense.
    """

    OPTIONS = GenerateConfig

    def __init__(
        self,
        network: Network,
        vqgan: ImageTokenizer,
        tokenizer: TextTokenizer,
        learnt: Learnt,
        frame: Any = None,
        card: str = "",
        dtype: str | None = None,
        synthesis: Mapping[str, Any] | None = None,
    ):
        config = network.config
        if config.vocab.codebook_size != vqgan.config.codebook_size:
            raise UserError(
                f"the tokenizer has {vqgan.config.codebook_size} codes, the "
                f"transformer {config.vocab.codebook_size}; they do not belong together"
            )
        self.network, self.vqgan, self.tokenizer = network, vqgan, tokenizer
        self.learnt, self.frame = learnt, framing.checked_frame(frame)
        self.card, self.dtype = card, dtype
        self.synthesis = drawing_options(synthesis or {})
        if dtype:
            layers = dataclasses.replace(config.transformer, dtype=dtype)
            config = dataclasses.replace(config, transformer=layers)
        self.module = PrefixLM(for_generation(config))
        self._params = jax.tree.map(jnp.asarray, network.params)
        self._codebook = jnp.asarray(vqgan.network.params["codebook"], jnp.float32)

    def __repr__(self) -> str:
        return f"<gptface_jax.{type(self).__name__} {self.digest}, {self.size} px>"

    def on(self, devices: Sequence[jax.Device]) -> Self:
        """The model itself: what it answers one by one needs one device."""
        del devices
        return self

    @property
    def digest(self) -> str:
        """Digest of both networks' weights."""
        return f"{self.vqgan.network.digest}-{self.network.digest}"

    @property
    def size(self) -> int:
        """See `SeesFaces`."""
        return self.grid[0] * self.vqgan.config.factor

    def details(self, text: str, seed: int, config: GenerateConfig) -> dict[str, Any]:
        """Details of every sidecar of a picture that the model drew."""
        options = dataclasses.asdict(config)
        return provenance.details(False, self.digest, self.dtype, text, seed, options)

    @property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of an image's tokens."""
        return self.network.config.grid

    def image_ids(self, pixels: np.ndarray) -> np.ndarray:
        """Codes int32 [B,n] of pictures uint8 [B,S,S,3]."""
        return self.vqgan.encode(pixels).reshape(len(pixels), -1)

    def pictures(self, tokens: np.ndarray) -> np.ndarray:
        """uint8 [B,S,S,3] of images as joint ids int32 [B,n]."""
        codes = self.network.config.vocab.joint_to_image(np.asarray(tokens))
        decoded = self.vqgan.decode(codes.reshape(-1, *self.grid))
        return images.from_unit_range(decoded)

    def ids(self, text: str, most: int | None = None) -> np.ndarray:
        """int32 ids of a text, by default all of them up to the model's length."""
        found = self.tokenizer.encode([text], most or self.network.config.length)[0]
        return found[found != self.tokenizer.pad_id]

    def text_prefix(
        self, prompt: str, text: str, attributes: str = ""
    ) -> tuple[np.ndarray, list[str]]:
        """int32 [Q] `[CLS] prompt [SEP] text [SEP]` with [PAD] after it, and notes.

        Args:
          prompt: of the task.
          text: a sentence, of which the end is left out where it is too long.
          attributes: what is said behind it, as of `data.questions.stated`.

        Raises:
          UserError: the attributes do not fit.
        """
        room = self.learnt.max_prefix - 3 - len(self.ids(prompt))
        ids, notes = self._fitting(text, attributes, room)
        return self._prefix(prompt, ids, self.learnt.max_prefix), notes

    def _fitting(
        self, text: str, attributes: str, room: int
    ) -> tuple[np.ndarray, list[str]]:
        """int32 [at most room] ids of a text with attributes behind it, and notes.

        The text is cut, as in training, never the attributes.
        """
        ids, behind = self.ids(text), self.ids(attributes)
        if len(ids) and len(behind):
            behind = np.concatenate([self.ids(label_text.JOINT), behind])
        left = max(0, room - len(behind))
        if len(behind) and room - len(behind) < min(1, len(ids)):
            raise UserError(
                f"the attributes are {len(self.ids(attributes))} tokens, and "
                f"{'text and attributes have' if len(ids) else 'they have'} room for "
                f"{max(0, room)}; ask for fewer"
            )
        notes = []
        if len(ids) > left:
            notes.append(f"the text was cut to its first {left} tokens")
        return np.concatenate([ids[:left], behind]), notes

    def image_prefix(self, prompt: str, image_ids: np.ndarray) -> np.ndarray:
        """int32 [Q] `[CLS] prompt [SEP] image [SEP]` of codes [n]."""
        joint = self.network.config.vocab.image_to_joint(np.asarray(image_ids))
        return self._prefix(prompt, joint, 3 + len(self.ids(prompt)) + len(joint))

    def edit_prefix(
        self, prompt: str, image_ids: np.ndarray, text: str, attributes: str = ""
    ) -> tuple[np.ndarray, list[str]]:
        """int32 [Q] `[CLS] prompt [SEP] image text [SEP]`, codes [n], and notes.

        Text and attributes are those of `text_prefix`.
        """
        joint = self.network.config.vocab.image_to_joint(np.asarray(image_ids))
        most = self.network.config.length - len(joint) - 1
        room = most - 3 - len(self.ids(prompt)) - len(joint)
        ids, notes = self._fitting(text, attributes, room)
        return self._prefix(prompt, np.concatenate([joint, ids]), most), notes

    def _prefix(self, prompt: str, ids: np.ndarray, length: int) -> np.ndarray:
        vocab = self.network.config.vocab
        whole = sequences.assemble(
            self.ids(prompt), ids, [], vocab, length + 1, max_prefix=length
        )
        prefix = whole["segment_ids"] == PREFIX
        return np.where(prefix, whole["tokens"], vocab.pad_id)[:length].astype(np.int32)

    def generate(
        self,
        prefixes: np.ndarray,
        config: GenerateConfig,
        keys: jax.Array,
        given: np.ndarray | None = None,
        tail: Tail = (),
    ) -> decode.Generated:
        """`decode.generate` by the model's parameters."""
        return decode.generate(
            self.module, self._params, prefixes, config, keys, given, tail,
            self._codebook,
        )  # fmt: skip

    def score(
        self, prefixes: np.ndarray, candidates: np.ndarray, given: int = 0
    ) -> np.ndarray:
        """Log-probability of each text, float32 [P,C]; arguments of `decode.score`.

        Of many candidates some at a time: they are read side by side, and memory grows
        with the square of that.
        """
        _, count, length = candidates.shape
        side = min(_SCORED_AT_ONCE, _SCORED_OF_ALL // len(prefixes))
        parts = -(-count // max(1, side // length))
        size = -(-count // parts)
        fill = np.repeat(candidates[:, :1], parts * size - count, axis=1)
        together = np.concatenate([candidates, fill], axis=1)
        found = [
            np.asarray(
                decode.score(self.module, self._params, prefixes, part, given=given)
            ).sum(-1)
            for part in np.split(together, parts, axis=1)
        ]
        return np.concatenate(found, axis=1)[:, :count]

    def attention_map(self, prefix: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Where the last layer looks before it says what follows, float32 [h,w].

        Args:
          prefix: int32 [Q], with an image in it.
          target: int32 [T] tokens that have been said; may be empty.
        """
        found = attention_map.attention_to_image(
            self.module, self._params, prefix, target
        )
        return np.asarray(found).reshape(self.grid)


def padded(
    rows: Sequence[np.ndarray], pad_id: int, width: int | None = None
) -> np.ndarray:
    """Rows of ids of any lengths as int32 [B,longest or width], [PAD] after them."""
    longest = max(map(len, rows), default=0)
    result = np.full((len(rows), width or longest), pad_id, np.int32)
    for row, ids in zip(result, rows):
        row[: len(ids)] = ids
    return result
