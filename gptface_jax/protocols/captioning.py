"""Captions of pictures against sentences and attributes that are true (SPEC B.10)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import tqdm

from gptface_jax.core.errors import UserError
from gptface_jax.data import captions as wordings
from gptface_jax.data import claims
from gptface_jax.data.record import Record
from gptface_jax.evaluate import captions as scoring
from gptface_jax.pipelines import rows, sequence_drawing
from gptface_jax.pipelines.sequence_model import SequenceModel
from gptface_jax.protocols.records import pictures_of

REFERENCES = 5  # sentences of a picture that has none of its own


def write(
    model: SequenceModel,
    records: Sequence[Record],
    *,
    seed: int = 0,
    progress: bool = True,
    **decode: Any,
) -> list[str]:
    """A sentence for each picture, by default the likeliest word each time.

    Args:
      model: the networks.
      records: the pictures, taken as they are: upright faces.
      seed: of the random choices.
      progress: show a bar.
      **decode: fields of `GenerateConfig`.
    """
    ids = model.image_ids(pictures_of(records, model.size))
    found = []
    for i, row in enumerate(tqdm.tqdm(ids, unit="image", disable=not progress)):
        steps = sequence_drawing.captions(model, row, 1, seed + i, decode)
        found.append(rows.run_immediately(steps)[0][0])
    return found


def references(records: Sequence[Record], seed: int = 0) -> list[list[str]]:
    """Sentences true of each picture: its own, or some of its labels and expression.

    Raises:
      UserError: a picture of which nothing is known.
    """
    found = []
    for number, record in enumerate(records):
        own = list(record.texts or filter(None, [record.text]))
        rng = np.random.default_rng([seed, number])
        if not own:
            known = {"labels": record.labels, "expression": record.expression}
            made = (wordings.caption(**known, rng=rng) for _ in range(REFERENCES))
            own = [*dict.fromkeys(filter(None, made))]
        if not own:
            raise UserError(
                f"nothing is known of picture {number} of '{record.source}'; give "
                "pictures with sentences, labels or expressions"
            )
        found.append(own)
    return found


def figures(
    written: Sequence[str], records: Sequence[Record], seed: int = 0
) -> tuple[dict[str, float], list[dict[str, Any]], list[str]]:
    """Figures of captions, a row for each, and notes on what was left out.

    Args:
      written: a sentence for each picture.
      records: the pictures.
      seed: of sentences that are made of labels.

    Returns:
      bleu_4, rouge_l, cider, meteor where Java is there, richness and accuracy by
      exact attributes, and distinct, the share of captions that no other picture has.
    """
    found, rows, notes = scoring.scores(written, references(records, seed))
    said = [claims.claimed(text) for text in written]
    truths = [claims.truths(r.labels, r.expression) for r in records]
    matched = scoring.attribute_rows(said, truths)
    rows = [row | more for row, more in zip(rows, matched)]
    found |= scoring.attribute_figures(matched)
    found["distinct"] = len(set(written)) / len(written)
    return found, rows, notes
