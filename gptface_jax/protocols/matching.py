"""Image-text matching on balanced pairs, and attribute by attribute."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import attribute_questions, captions, phrases, transforms
from gptface_jax.data.record import Record
from gptface_jax.evaluate import edits
from gptface_jax.pipelines import batching
from gptface_jax.protocols.model import Model
from gptface_jax.protocols.records import pictures_of

_BATCH = 64


def matching(
    model: Model,
    records: Sequence[Record],
    *,
    max_phrases: int = 10,
    seed: int = 0,
    attributes: Sequence[str] | None = None,
) -> dict[str, Any]:
    """Image-text matching on balanced held-out pairs, and by attribute.

    Every picture meets its own caption and that of another picture; then, an
    attribute at a time, the sentence that is true of it and the one that is not.

    Returns:
      {"accuracy": of p(q=1) > 1/2 on the pairs, "count", "by_attribute": name ->
      share of pictures whose true sentence scores higher than the false one}.

    Raises:
      UserError: an attribute that there are no words for, or one text for all.
    """
    for name in attributes or ():
        captions.edit_text(name, True)  # or it says that there are no words
    matched, mismatched = (
        score > np.log(0.5)
        for score in scored_pairs(
            model, records, max_phrases=max_phrases, seed=seed, attributes=attributes
        )
    )
    photos = pictures_of(records, model.editor.size)
    return {
        "accuracy": float((matched.mean() + (~mismatched).mean()) / 2),
        "count": 2 * len(records),
        "by_attribute": _by_attribute(
            model, records, photos, attributes or attribute_questions.ATTRIBUTES
        ),
    }


def scored_pairs(
    model: Model,
    records: Sequence[Record],
    *,
    max_phrases: int = 10,
    seed: int = 0,
    attributes: Sequence[str] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """log p(match) of pictures with their own captions, and with other pictures'.

    Both float32 [B], in the order of the records.

    Raises:
      UserError: all pictures have the same text.
    """
    options = transforms.CaptionOptions(
        max_phrases=max_phrases, attributes=tuple(attributes or ())
    )
    photos = pictures_of(records, model.editor.size)
    rng = np.random.default_rng(seed)
    own = [options.text(r, rng) for r in records]
    if len(set(own)) < 2:
        raise UserError(
            f"{len(records)} pictures have one and the same text; matching needs more"
        )
    other = []
    for number, text in enumerate(own):
        candidate, another = text, number
        while candidate == text or another == number:
            another = int(rng.integers(len(records)))
            candidate = options.text(records[another], rng)
        other.append(candidate)
    return match_scores(model, photos, own), match_scores(model, photos, other)


def _by_attribute(model: Model, records, photos, attributes) -> dict[str, float]:
    """Balanced rate by attribute at which its true sentence wins."""
    by_attribute = {}
    for name in attributes:
        truth = [phrases.known(r.labels or {}, name) for r in records]
        sure = [i for i, t in enumerate(truth) if t is not None]
        try:
            texts = {
                s: [
                    captions.edit_text(name, bool(truth[i]) == s, records[i].labels)
                    for i in sure
                ]
                for s in (True, False)
            }
        except UserError:
            continue  # no words for the absence
        if not sure:
            continue
        wins = match_scores(model, photos[sure], texts[True]) > match_scores(
            model, photos[sure], texts[False]
        )
        states = np.array([bool(truth[i]) for i in sure])
        by_attribute[name] = edits.balanced_accuracy(wins == states, states)
    return by_attribute


def match_scores(model: Model, photos, texts) -> np.ndarray:
    """log p(match) float32 [B] of pictures uint8 [B,S,S,3] and as many texts."""
    return batching.run(model.editor.match_log_prob, [photos, texts], _BATCH)
