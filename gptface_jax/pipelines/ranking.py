"""Drawn faces put in order by how well they match what was asked for (SPEC B.9).

By the project's own matching, by the sequence model's probability of the words after
the picture, or by CLIP where its weights are at hand. Only the last may be called a
CLIP score.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping

import numpy as np
from PIL import Image

from gptface_jax.core import extras
from gptface_jax.core.errors import UserError
from gptface_jax.data.tasks import PROMPTS
from gptface_jax.pipelines.editor import Editor
from gptface_jax.pipelines.results import Samples
from gptface_jax.pipelines.sequence_model import SequenceModel, padded

# (pictures uint8 [B,S,S,3], sentence) -> a score of each, float [B]; more is better.
Scorer = Callable[[np.ndarray, str], np.ndarray]

_AT_ONCE = 64  # pictures


def by_matching(editor: Editor) -> Scorer:
    """Scores log p(match) of a GPTFace, float32 [B].

    Pictures must have its size: drawn by a model on the same codes.
    """

    def score(pictures: np.ndarray, sentence: str) -> np.ndarray:
        if pictures.shape[1] != editor.size:
            raise UserError(
                f"the pictures have {pictures.shape[1]} px, and the model that ranks "
                f"them sees {editor.size}; rank by a model of the same size"
            )
        return editor.match_log_prob(pictures, [sentence] * len(pictures))

    return score


def by_probability(model: SequenceModel, task: str) -> Scorer:
    """Scores log p(text | picture) of a sequence model, float32 [B].

    Args:
      model: the networks.
      task: whose targets read like the text: "image_to_caption" of a sentence,
        "image_to_attributes" of "lfw smiling: true".
    """
    prompt = PROMPTS[task]

    def score(pictures: np.ndarray, sentence: str) -> np.ndarray:
        codes = model.image_ids(pictures)
        prefixes = np.stack([model.image_prefix(prompt, ids) for ids in codes])
        room = model.network.config.length - prefixes.shape[1]
        said = [*model.ids(sentence)[: room - 1], model.tokenizer.sep_id]
        candidates = padded([np.array(said)] * len(codes), model.tokenizer.pad_id)
        return model.score(prefixes, candidates[:, None])[:, 0]

    return score


def by_clip(weights: str | os.PathLike) -> Scorer:
    """Scores cosine(picture, sentence) of a CLIP, float32 [B] (extra `clip`).

    Args:
      weights: folder or hub id that `transformers.AutoModel` opens.

    Raises:
      UserError: PyTorch is not installed, or nothing that can be opened.
    """
    try:
        import torch
        from transformers import AutoModel, AutoProcessor
    except ImportError:
        raise UserError(
            "CLIP runs by PyTorch, which is not installed; " + extras.install("clip")
        ) from None
    try:
        model = AutoModel.from_pretrained(weights).eval()
        processor = AutoProcessor.from_pretrained(weights)
    except (OSError, ValueError) as error:
        raise UserError(f"CLIP '{weights}' cannot be opened: {error}") from None
    if not hasattr(model, "text_model"):
        raise UserError(f"'{weights}' is no CLIP: it has no encoder of texts")

    def score(pictures: np.ndarray, sentence: str) -> np.ndarray:
        shown = [Image.fromarray(picture) for picture in pictures]
        inputs = processor(
            text=[sentence], images=shown, return_tensors="pt", padding=True,
            truncation=True,
        )  # fmt: skip
        with torch.no_grad():
            found = model(**inputs)
        # Already of length 1.
        return (found.image_embeds @ found.text_embeds.T)[:, 0].numpy()

    return score


def to_compare(wanted: Mapping[str, Scorer]) -> dict[str, Scorer]:
    """The sentences that say something, each with what scores it.

    Raises:
      UserError: none does.
    """
    said = {sentence: by for sentence, by in wanted.items() if sentence.strip()}
    if not said:
        raise UserError(
            "there is no sentence to rank by: give a text, or attributes that have "
            "words"
        )
    return said


def scores(pictures: np.ndarray, wanted: Mapping[str, Scorer]) -> np.ndarray:
    """The sum of the scores of all sentences, float32 [B].

    Args:
      pictures: uint8 [B,S,S,3].
      wanted: sentence -> what scores it; empty sentences are passed over.

    Raises:
      UserError: no sentence to compare them with.
    """
    wanted = to_compare(wanted)
    total = np.zeros(len(pictures), np.float32)
    for start in range(0, len(pictures), _AT_ONCE):
        part = slice(start, start + _AT_ONCE)
        for sentence, scorer in wanted.items():
            total[part] += scorer(pictures[part], sentence)
    return total


def best(samples: Samples, wanted: Mapping[str, Scorer], keep: int, by: str) -> Samples:
    """The `keep` drawn pictures that match best, the best first.

    The details say by what they were ranked, of how many, which numbers they had and
    how they scored: {"ranking": {"by", "sentences", "of", "kept", "scores"}}.

    Args:
      samples: what was drawn.
      wanted: sentences, each with its `by_matching`, `by_probability`, `by_clip`, or
        one of one's own.
      keep: number of pictures.
      by: the scorers' name, for the details.

    Raises:
      UserError: more are to be kept than were drawn, or there is no sentence.
    """
    if not 1 <= keep <= len(samples):
        raise UserError(
            f"{keep} of {len(samples)} pictures are to be kept; draw more or keep fewer"
        )
    found = scores(np.stack([np.asarray(s) for s in samples]), wanted)
    order = np.argsort(-found, kind="stable")[:keep].tolist()
    ranking = {
        "by": by,
        "sentences": [*filter(str.strip, wanted)],
        "of": len(samples),
        "kept": order,
        "scores": [round(float(found[i]), 4) for i in order],
    }
    return Samples(
        [samples[i] for i in order], {**samples.details, "ranking": ranking}
    )  # fmt: skip
