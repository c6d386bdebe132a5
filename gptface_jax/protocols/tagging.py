"""Tags written by a model against tags looked up, on pictures whose truth is known."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tqdm

from gptface_jax.core.errors import UserError
from gptface_jax.data import tag_words
from gptface_jax.data.record import Record
from gptface_jax.data.text import TextTokenizer
from gptface_jax.evaluate import tagging
from gptface_jax.nn import backbone
from gptface_jax.pipelines import batching, networks, pictures
from gptface_jax.protocols.model import Model
from gptface_jax.protocols.records import pictures_of

RESULTS = 30
_BATCH = 64


def grades_of(records: Sequence[Record]) -> list[dict[str, int]]:
    """The words that are true of each, see `tag_words.grades`."""
    return [tag_words.grades(r.labels, r.expression) for r in records]


def vocabulary(tokenizer: TextTokenizer, records: Sequence[Record]) -> dict[str, float]:
    """The words to rank: true of a record, and one piece of the tokenizer.

    Args:
      tokenizer: of the text.
      records: with labels; the training pictures.

    Returns:
      word -> its mean grade, the highest first.

    Raises:
      UserError: the labels say nothing.
    """
    pieces = {tokenizer.decode([i]) for i in np.flatnonzero(tokenizer.words())}
    total: dict[str, float] = {}
    for truth in grades_of(records):
        for word in truth.keys() & pieces:
            total[word] = total.get(word, 0.0) + truth[word] / len(records)
    if not total:
        raise UserError(
            f"nothing is known of the {len(records)} training pictures that a tag "
            "could say; give pictures with labels"
        )
    return dict(sorted(total.items(), key=lambda pair: (-pair[1], pair[0])))


class DualEncoder:
    """A GPTFace's contrastive projections: pictures and words that have not met.

    They read the layers that they were trained on (`objective.alignment_layers`).

    Raises:
      UserError: a model without projections.
    """

    def __init__(self, model: Model):
        network = model.editor.gptface
        if not network.config.contrastive_width:
            raise UserError(
                f"model {model.digest} has no contrastive projections "
                "(model.contrastive_width is 0), so that it cannot retrieve tags; give "
                "--retrieval a model that has"
            )
        objective = networks.experiment(network, "gptface").get("objective", {})
        depth = network.config.transformer.num_layers
        stop = objective.get("alignment_layers") or depth
        module, self._params = backbone.some_layers(
            network.module, network.params, 0, stop
        )
        self._editor = model.editor
        self._apply = jax.jit(
            functools.partial(module.apply, method="contrastive_features")
        )

    def images(self, photos: np.ndarray) -> np.ndarray:
        """Unit vectors float32 [B,P] of pictures uint8 [B,S,S,3]."""
        ids = self._editor.image_ids(photos)
        return self._features(ids, [""] * len(ids))[0]

    def words(self, words: Sequence[str]) -> np.ndarray:
        """Unit vectors float32 [B,P]."""
        grid = self._editor.grid
        return self._features(np.zeros((len(words), *grid), np.int32), words)[1]

    def _features(self, image_ids, texts):
        def features(image_ids, texts):
            tokens = self._editor.tokens(image_ids, texts)
            return self._apply({"params": self._params}, tokens)[:2]

        joined = batching.run(features, [image_ids, texts], _BATCH)
        return [x / np.linalg.norm(x, axis=-1, keepdims=True) for x in joined]


def rank(
    model: Model,
    records: Sequence[Record],
    prior: Mapping[str, float],
    *,
    retrieval: Model | None = None,
    seed: int = 0,
    progress: bool = True,
    **decode: Any,
) -> dict[str, list[list[str]]]:
    """The best `RESULTS` words of four systems for every picture.

    All of them rank the same words.

    Args:
      model: writes tags (generative).
      records: the pictures.
      prior: the words, the most frequent first.
      retrieval: whose projections look tags up; default the model's own, if it has
        any.
      seed: of decoding and of the random ranking.
      progress: show a bar.
      **decode: options of the generative decoding.

    Returns:
      "generative", "retrieval" (if there is one), "frequency" and "random" -> for
      every picture its words.
    """
    words, rng = list(prior), np.random.default_rng(seed)
    photos = pictures_of(records, model.editor.size)
    written = [
        [t.word for t in model.tag(p, RESULTS, seed=seed, among=words, **decode)]
        for p in tqdm.tqdm(photos, unit="image", disable=not progress)
    ]
    rankings = {"generative": written}
    if retrieval is None and model.editor.has_retrieval:
        retrieval = model
    if retrieval is not None:
        encoder = DualEncoder(retrieval)
        photos = pictures_of(records, retrieval.editor.size)
        cosines = encoder.images(photos) @ encoder.words(words).T
        best = np.argsort(-cosines, axis=1, kind="stable")[:, :RESULTS]
        rankings["retrieval"] = [[words[i] for i in row] for row in best]
    rankings["frequency"] = [words[:RESULTS]] * len(records)
    rankings["random"] = [list(rng.permutation(words)[:RESULTS]) for _ in records]
    return rankings


def figures(
    rankings: Mapping[str, Sequence[Sequence[str]]], truth: Sequence[Mapping[str, int]]
) -> dict[str, dict[str, float]]:
    """Means over pictures of `evaluate.tagging`, and their standard errors.

    Returns:
      system -> {metric: mean, "metric_error": standard error}.
    """
    result = {}
    for name, row in tagging.evaluate(rankings, truth, most=RESULTS).items():
        result[name] = {}
        for metric, values in row.items():
            known = values[~np.isnan(values)]
            error = known.std(ddof=1) / len(known) ** 0.5 if len(known) > 1 else 0.0
            result[name] |= {
                metric: float(known.mean()) if len(known) else float("nan"),
                f"{metric}_error": float(error),
            }
    return result


def table(found: Mapping[str, Mapping[str, float]]) -> str:
    """Every system's figures in percent, standard errors behind them."""
    metrics = [m for m in next(iter(found.values())) if not m.endswith("_error")]
    lines = [["", *(m.replace("linear_ndcg", "linear") for m in metrics)]]
    for name, row in found.items():
        pairs = [(100 * row[m], 100 * row[f"{m}_error"]) for m in metrics]
        lines.append([name, *(f"{mean:.1f} ± {error:.1f}" for mean, error in pairs)])
    return "\n".join(
        f"{first:<12}" + "".join(f"{cell:>14}" for cell in cells)
        for first, *cells in lines
    )


def sheet(
    records: Sequence[Record],
    rankings: Mapping[str, Sequence[Sequence[str]]],
    truth: Sequence[Mapping[str, int]],
    shown: int = 6,
    words: int = 6,
) -> np.ndarray:
    """A few pictures with each system's first words; uint8 [H,W,3].

    A word that is true is marked: ** grade 2, * grade 1.
    """
    captions = []
    for i in range(min(shown, len(records))):
        lines = [
            f"{name}: "
            + ", ".join(w + "*" * truth[i].get(w, 0) for w in lists[i][:words])
            for name, lists in rankings.items()
        ]
        captions.append("\n".join(lines))
    photos = pictures_of(records[: len(captions)], 128)
    return pictures.sheet(photos, 3, captions, cell=256)
