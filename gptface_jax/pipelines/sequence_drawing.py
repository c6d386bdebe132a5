"""Faces after texts and attributes, and sentences for faces, by a sequence model.

SPEC B.7 and B.9.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from PIL import Image

from gptface_jax.core.errors import UserError
from gptface_jax.data import label_text, questions, sentences
from gptface_jax.data.tasks import EDIT, PROMPTS
from gptface_jax.pipelines.results import Samples
from gptface_jax.pipelines.rows import Rows, Steps
from gptface_jax.pipelines.sequence_model import SequenceModel, generate_options
from gptface_jax.pipelines.user_input import key_of, unknown_words

MOST = 1024  # samples of one call
_TOGETHER = 64  # that share a batch, each with keys and values of its own


def synthesize(
    model: SequenceModel,
    text: str,
    attributes: Mapping[str, Any],
    count: int,
    seed: int,
    decode: Mapping[str, Any],
    image_ids: np.ndarray | None = None,
) -> Steps[Samples]:
    """Steps to pictures after a sentence, attributes or both, or after a picture too.

    Args:
      model: the networks.
      text: the sentence, or "".
      attributes: see `data.questions.stated`.
      count: number of pictures.
      seed: of the random choices; picture i of a seed is the same for any count.
      decode: fields of `GenerateConfig`, by default those of the model.
      image_ids: int [n] codes of the picture to begin with; None for none.

    Raises:
      UserError: nothing to follow, or an argument that cannot be used.
    """
    if image_ids is not None:
        check_edits(model)
    if not 1 <= count <= MOST:
        raise UserError(f"count is {count}; use 1 to {MOST}")
    said, text = questions.stated(attributes, model.learnt.questions), text.strip()
    wanted = label_text.JOINT.join(filter(None, (text, said)))
    if not wanted:
        raise UserError(
            "there is nothing to follow; give a text, attributes such as "
            "'Smiling=true', or both"
        )
    config = generate_options({**model.synthesis, **decode, "modality": "image"})
    words = unknown_words(model.tokenizer, text) if text else []
    if image_ids is None:
        prefix, notes = model.text_prefix(PROMPTS["caption_to_image"], text, said)
    else:
        prefix, notes = model.edit_prefix(PROMPTS[EDIT], image_ids, text, said)
    found = yield _drawn(model, prefix, config, seed, count)
    pixels = model.pictures(found.tokens[0])
    details = model.details(wanted, seed, config)
    details |= {"mask": {"whole": True}, "grid": list(model.grid)}
    details["edited"] = image_ids is not None
    if notes + words:
        details["notes"] = notes + words
    return Samples([Image.fromarray(x) for x in pixels], details)


def check_edits(model: SequenceModel) -> None:
    """Raises UserError unless the model was trained to draw after a picture."""
    if not model.learnt.edits:
        raise UserError(
            "this model was not trained to draw after a picture; train one by "
            "configs/talk2face/faces64.py:edits, or edit the photo by a GPTFace"
        )


def captions(
    model: SequenceModel,
    image_ids: np.ndarray,
    samples: int,
    seed: int,
    decode: Mapping[str, Any],
) -> Steps[list[tuple[str, float]]]:
    """Steps to distinct sentences for a picture, likeliest first, and their chances.

    That is the geometric mean of its tokens' probabilities, which does not fall with
    the length.

    Args:
      model: the networks.
      image_ids: int [n] codes.
      samples: sentences that are written; 1 takes the likeliest word each time.
      seed: of the random choices.
      decode: fields of `GenerateConfig`.

    Raises:
      UserError: no samples, or an option that cannot be used.
    """
    if not 1 <= samples <= MOST:
        raise UserError(f"samples is {samples}; use 1 to {MOST}")
    prefix = model.image_prefix(PROMPTS["image_to_caption"], image_ids)
    room = model.network.config.length - len(prefix)
    greedy = {"temperature": 0.0} if samples == 1 else {}
    options = {"max_tokens": room, **greedy, **decode, "modality": "text"}
    config = generate_options(options)
    found = yield _drawn(model, prefix, config, seed, samples)
    mean = found.log_probs[0].sum(-1) / found.lengths[0]
    chances = np.exp(mean).tolist()
    texts = [sentences.tidy(model.tokenizer.decode(ids)) for ids in found.tokens[0]]
    # The first of those that read the same: they are spelt alike nearly always.
    by_text = dict(reversed([*zip(texts, chances)]))
    return sorted(by_text.items(), key=lambda pair: -pair[1])


def _drawn(model: SequenceModel, prefix: np.ndarray, config, seed, count) -> Rows:
    """The `Generated` after a prefix int32 [Q], keys each of its number alone."""

    def generate(prefixes, keys):
        # Samples do not depend on others beside them.
        parts = -(-count // _TOGETHER)
        size = -(-count // parts)
        keys = np.concatenate([keys, keys[:, : parts * size - count]], axis=1)
        found = [
            model.generate(prefixes, config, jax.random.wrap_key_data(some))
            for some in np.split(np.asarray(keys), parts, axis=1)
        ]
        return jax.tree.map(lambda *x: np.concatenate(x, axis=1)[:, :count], *found)

    root = key_of(seed)
    keys = jax.vmap(lambda i: jax.random.fold_in(root, i))(np.arange(count))
    arrays = prefix[None], np.asarray(jax.random.key_data(keys))[None]
    return Rows(generate, arrays, (config, len(prefix), count))
