"""Sentences against reference sentences: BLEU-4, ROUGE-L, CIDEr, METEOR (SPEC B.10).

Own code, since it is short and what would serve wants much: sacrebleu has BLEU alone,
rouge-score brings nltk and takes one reference, and pycocoevalcap is 100 MB with Java;
each tokenizes otherwise. Tests hold the figures against all three. METEOR, which rests
on tables of synonyms, is theirs: `meteor`.

A sentence is the list of its words in small letters, without punctuation. References
are a list of sentences for each candidate.
"""

from __future__ import annotations

import collections
import math
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError

References = Sequence[Sequence[str]]


def words(text: str) -> list[str]:
    """The words of a text, as all metrics here see them."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())


def _split(
    candidates: Sequence[str], references: References
) -> tuple[list[list[str]], list[list[list[str]]]]:
    if len(candidates) != len(references) or not len(candidates):
        raise UserError(
            f"{len(candidates)} candidates and references of {len(references)}; give "
            "references for each of one or more"
        )
    for number, several in enumerate(references):
        if isinstance(several, str) or not len(several):
            raise UserError(
                f"the references of candidate {number} are {several!r}; give a list of "
                "one or more sentences"
            )
    return [words(c) for c in candidates], [[words(r) for r in s] for s in references]


def _ngrams(sentence: Sequence[str], order: int) -> collections.Counter:
    starts = range(len(sentence) - order + 1)
    return collections.Counter(tuple(sentence[i : i + order]) for i in starts)


def bleu(candidates: Sequence[str], references: References, order: int = 4) -> float:
    """BLEU of a whole set, 0 to 1 (Papineni et al. 2002), not smoothed.

    Geometric mean of the clipped precisions of 1 to `order` words, times
    exp(1 - r / c) where the candidates, c words, are shorter than r, the lengths of the
    references nearest to theirs (the shorter of two equally near). As sacrebleu with
    smooth_method "none" on the same words.

    Raises:
      UserError: no candidates, or one without references.
    """
    split, split_references = _split(candidates, references)
    hits, there = np.zeros(order), np.zeros(order)
    length = reference_length = 0
    for sentence, several in zip(split, split_references):
        length += len(sentence)
        reference_length += min(
            (len(r) for r in several), key=lambda n: (abs(n - len(sentence)), n)
        )
        for n in range(1, order + 1):
            most: collections.Counter = collections.Counter()
            for reference in several:
                most |= _ngrams(reference, n)
            ours = _ngrams(sentence, n)
            hits[n - 1] += (ours & most).total()
            there[n - 1] += ours.total()
    if not hits.all():
        return 0.0
    brevity = min(0.0, 1 - reference_length / length)
    return float(np.exp(np.mean(np.log(hits / there)) + brevity))


def rouge_l(
    candidates: Sequence[str], references: References, beta: float = 1.2
) -> np.ndarray:
    """ROUGE-L of each candidate, float64 [N] in 0..1 (Lin 2004).

    From the longest common subsequence with each reference; precision and recall are
    each the best over the references, and recall weighs beta^2 times as much. beta is
    1.2 where captions are scored (pycocoevalcap), 1 in rouge-score.

    Raises:
      UserError: as of `bleu`.
    """
    scores = []
    for sentence, several in zip(*_split(candidates, references)):
        common = [_common(sentence, reference) for reference in several]
        precision = max(common) / max(1, len(sentence))
        recall = max(c / max(1, len(r)) for c, r in zip(common, several))
        both = recall + beta**2 * precision
        scores.append((1 + beta**2) * precision * recall / both if both else 0.0)
    return np.array(scores)


def _common(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for a in first:
        above = row
        row = [0]
        for j, b in enumerate(second):
            row.append(above[j] + 1 if a == b else max(above[j + 1], row[j]))
    return row[-1]


def cider(
    candidates: Sequence[str],
    references: References,
    order: int = 4,
    sigma: float = 6.0,
) -> np.ndarray:
    """CIDEr-D of each candidate, float64 [N] in 0..10 (Vedantam et al. 2015).

    Cosine of the TF-IDF vectors of n-grams with clipped counts, times a Gaussian of the
    difference in length, averaged over n = 1..order and over references, times 10. The
    IDF is that of the references given here: a figure belongs to its set of pictures,
    and that of a single picture is 0.

    Raises:
      UserError: as of `bleu`.
    """
    split, split_references = _split(candidates, references)
    seen: collections.Counter = collections.Counter()
    for several in split_references:
        grams = {g for r in several for n in range(1, order + 1) for g in _ngrams(r, n)}
        seen.update(grams)
    log_count = math.log(len(split))

    def vectors(sentence: Sequence[str]) -> list[dict[tuple[str, ...], float]]:
        return [
            {
                gram: count * (log_count - math.log(max(1, seen[gram])))
                for gram, count in _ngrams(sentence, n).items()
            }
            for n in range(1, order + 1)
        ]

    def norm(vector: Mapping[tuple[str, ...], float]) -> float:
        return math.sqrt(sum(v * v for v in vector.values()))

    scores = []
    for sentence, several in zip(split, split_references):
        own, total = vectors(sentence), 0.0
        for reference in several:
            gap = len(sentence) - len(reference)
            penalty = math.exp(-(gap**2) / (2 * sigma**2))
            for ours, theirs in zip(own, vectors(reference)):
                product = sum(
                    min(v, theirs[g]) * theirs[g]
                    for g, v in ours.items()
                    if g in theirs
                )
                norms = norm(ours) * norm(theirs)
                total += penalty * product / norms if norms else 0.0
        scores.append(10 * total / (order * len(several)))
    return np.array(scores)


def meteor(
    candidates: Sequence[str], references: References
) -> tuple[np.ndarray | None, str]:
    """METEOR 1.5 of each candidate, float64 [N] in 0..1, and "" (Denkowski 2014).

    By pycocoevalcap, which runs Java with up to 2 GB.

    Returns:
      (scores, ""), or (None, why METEOR was left out) where Java or pycocoevalcap is
      missing.

    Raises:
      UserError: as of `bleu`.
    """
    split, split_references = _split(candidates, references)
    if not shutil.which("java"):
        return None, "METEOR was left out: there is no Java"
    try:
        from pycocoevalcap.meteor.meteor import Meteor
    except ImportError:
        return None, "METEOR was left out: install gptface_jax[eval]"
    scorer = Meteor()
    _, scores = scorer.compute_score(
        {
            i: [" ".join(r) for r in several]
            for i, several in enumerate(split_references)
        },
        {i: [" ".join(sentence)] for i, sentence in enumerate(split)},
    )
    return np.array(scores), ""


def scores(
    candidates: Sequence[str], references: References, with_meteor: bool = True
) -> tuple[dict[str, float], list[dict[str, Any]], list[str]]:
    """All metrics of a set of captions.

    Returns:
      figures: "bleu_4", "rouge_l", "cider" and, where it is there, "meteor", with
      "count"; rows: a dict a candidate, with "caption", "references" and its own
      figures; notes: what was left out, and why.

    Raises:
      UserError: as of `bleu`.
    """
    columns = {
        "rouge_l": rouge_l(candidates, references),
        "cider": cider(candidates, references),
    }
    notes = []
    if with_meteor:
        column, why = meteor(candidates, references)
        if column is None:
            notes.append(why)
        else:
            columns["meteor"] = column
    figures = {"bleu_4": bleu(candidates, references)}
    figures |= {name: float(column.mean()) for name, column in columns.items()}
    rows = [
        {"caption": caption, "references": list(several)}
        | {name: float(column[i]) for name, column in columns.items()}
        for i, (caption, several) in enumerate(zip(candidates, references))
    ]
    return figures | {"count": float(len(rows))}, rows, notes


def attribute_rows(
    claims: Sequence[Sequence[tuple[str, bool]]],
    truths: Sequence[Mapping[str, bool]],
) -> list[dict[str, int]]:
    """Numbers of attributes that each caption mentions, and of those that are right.

    Args:
      claims: for each caption its (attribute, present) pairs, as `data.claims` finds.
      truths: for each picture what is certain, attribute -> present.

    Returns:
      {"mentioned": attributes, "checked": claims whose truth is known, "correct"}; who
      says both of an attribute makes two claims about one attribute.
    """
    rows = []
    for said, truth in zip(claims, truths, strict=True):
        checked = [(name, present) for name, present in said if name in truth]
        rows.append(
            {
                "mentioned": len({name for name, _ in said}),
                "checked": len(checked),
                "correct": sum(truth[name] == present for name, present in checked),
            }
        )
    return rows


def attribute_figures(rows: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """richness: attributes mentioned in a caption; accuracy: share of claims that are
    right, of those whose truth is known (SPEC B.10), NaN without any."""
    checked = sum(row["checked"] for row in rows)
    correct = sum(row["correct"] for row in rows)
    return {
        "richness": float(np.mean([row["mentioned"] for row in rows])),
        "accuracy": correct / checked if checked else float("nan"),
        "checked": float(checked),
    }
