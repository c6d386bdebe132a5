"""Calibration of matching, and of answers (SPEC E.6)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data.record import Record
from gptface_jax.evaluate import calibration
from gptface_jax.pipelines.answers import candidates_of
from gptface_jax.pipelines.sequence_model import SequenceModel
from gptface_jax.protocols import answering
from gptface_jax.protocols.matching import scored_pairs
from gptface_jax.protocols.model import Model

LEAST = 20  # answers, of which a half is held out


def of_matching(model: Model, records: Sequence[Record], **options) -> dict[str, Any]:
    """`evaluate.calibration.figures` of "do they match?" on balanced pairs.

    Args:
      model, records, options: as of `protocols.matching.scored_pairs`.
    """
    own, other = scored_pairs(model, records, **options)
    yes = np.concatenate([own, other])
    no = np.log1p(-np.minimum(np.exp(yes.astype(float)), 1 - 1e-12))
    truth = np.repeat([1, 0], [len(own), len(other)])
    _enough("pairs", truth)
    return calibration.figures(np.stack([no, yes], 1), truth)


def of_answers(
    model: SequenceModel, records: Sequence[Record], asked: Sequence[str], **options
) -> dict[str, Any]:
    """The same by question, of answers that are chosen from all there are.

    Args:
      model, records, asked, options: as of `protocols.answering.ask`. Numbers, and what
        fewer than LEAST pictures tell of, are left out.
    """
    result = {}
    for found in answering.ask(model, records, asked, **options):
        words = candidates_of(found.question)
        listed = all(set(a.probabilities) >= set(words) for a in found.said)
        if len(words) < 2 or len(found.said) < LEAST or not listed:
            continue
        log_probs = np.log(
            [[max(a.probabilities[w], 1e-12) for w in words] for a in found.said]
        )
        values = [found.question.read(w) for w in words]
        truth = np.array([values.index(t) for t in found.truth])
        result[found.question.name] = calibration.figures(log_probs, truth)
    if not result:
        raise UserError(
            f"no question has {LEAST} known answers among the {len(records)} pictures "
            "and a short list to choose from; give more pictures by --limit"
        )
    return result


def _enough(what: str, truth: np.ndarray) -> None:
    if len(truth) < LEAST:
        raise UserError(f"{len(truth)} {what} say nothing; give at least {LEAST}")


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Figures by question, one line each."""
    width = max(len("question"), *map(len, found))
    head = "count   acc    ECE   NLL      T    ECE   NLL  surest half"
    lines = [f"{'question':<{width}}  {head}"]
    for name, row in found.items():
        plain, warm = row["as it is"], row["tempered"]
        half = next(r for r in warm["abstention"] if r["share"] == 0.5)
        lines.append(
            f"{name:<{width}}  {row['count']:5d}  {row['accuracy']:.2f}  "
            f"{plain['ece']:.3f} {plain['nll']:.3f}  {row['temperature']:5.2f} "
            f"{warm['ece']:.3f} {warm['nll']:.3f}  {half['accuracy']:.2f}"
        )
    return "\n".join(lines)
