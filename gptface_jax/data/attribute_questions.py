"""Questions about attributes: is the true sentence preferred to the false one?"""

from __future__ import annotations

import collections
from collections.abc import Iterable, Sequence

import numpy as np

from gptface_jax.data import captions, phrases
from gptface_jax.data.record import Record
from gptface_jax.data.text import TextTokenizer

# Shown by whole regions of a face, and said in both directions by `edit_text`.
ATTRIBUTES = (
    "Smiling",
    "Eyeglasses",
    "Wearing_Hat",
    "No_Beard",
    "Male",
    "Blond_Hair",
)


def questions(
    records: Iterable[Record],
    tokenizer: TextTokenizer,
    max_text_tokens: int,
    attributes: Sequence[str] = ATTRIBUTES,
) -> dict[str, np.ndarray]:
    """Ids of two sentences a picture: one true, one false of a known attribute.

    Each picture is asked about the attribute and state that has been asked least so
    far, so that rare ones get their share.

    Args:
      records: pictures with labels.
      tokenizer: of the text.
      max_text_tokens: m.
      attributes: to ask about.

    Returns:
      question_ids: int32 [N,2,m], the true sentence, then the false one.
      question_attribute: int32 [N], index into `attributes`, -1 where none is known.
      question_weight: float32 [N]; the weighted mean of the right answers of an
        attribute is a balanced accuracy.
    """
    asked: collections.Counter[tuple[int, bool]] = collections.Counter()
    chosen: list[tuple[int, bool] | None] = []
    texts: list[str] = []
    for record in records:
        labels = record.labels or {}
        known = [(i, phrases.known(labels, name)) for i, name in enumerate(attributes)]
        choices = [q for q in known if q[1] is not None]
        question = min(choices, key=lambda q: asked[q], default=None)
        chosen.append(question)
        if question is None:
            texts += ["", ""]
            continue
        asked[question] += 1
        name, state = attributes[question[0]], bool(question[1])
        texts += [captions.edit_text(name, s, labels) for s in (state, not state)]
    ids = tokenizer.encode(texts, max_text_tokens) if texts else np.zeros((0,), int)
    return {
        "question_ids": ids.reshape(-1, 2, max_text_tokens).astype(np.int32),
        "question_attribute": np.array([q[0] if q else -1 for q in chosen], np.int32),
        "question_weight": np.array(
            [0.5 / asked[q] if q else 0.0 for q in chosen], np.float32
        ),
    }
