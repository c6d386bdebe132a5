"""Prompt, prefix and target joined into one prefix-language-model sequence (SPEC B.3).

    tokens       [CLS] prompt [SEP] prefix [SEP] target [SEP] [PAD] ...
    segment_ids    1     1      1     1      1     2      2     0   ...
    loss_mask      .     .      .     .      .     x      x     .   ...

A token marked x is one to be predicted, from what stands before it.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.core.vocab import JointVocab


def assemble(
    prompt_ids: Any,
    prefix_ids: Any,
    target_ids: Any,
    vocab: JointVocab,
    length: int,
    *,
    max_prefix: int | None = None,
    given: int | np.ndarray = 0,
) -> dict[str, np.ndarray]:
    """One sequence of joint ids with its segments and what is predicted.

    Text may be cut at its end, image ids never. A cut prefix or target keeps the
    [SEP] that closes it.

    Args:
      prompt_ids: int [p], what is asked for ("to caption").
      prefix_ids: int [q] joint ids: what the answer depends on.
      target_ids: int [t] joint ids: the answer; empty where it is to be decoded.
      vocab: the joint id space.
      length: L.
      max_prefix: most positions of segment 1 with its three special tokens, 64 for
        prefixes of text; None for no limit but L.
      given: so many ids at the start of the target are not predicted, such as the
        key in "gender: male"; or bool [t], which of them are not.

    Returns:
      tokens: int32 [L] joint ids.
      segment_ids: int32 [L], 1 prompt, prefix and their separators, 2 target with its
        closing [SEP], 0 padding.
      loss_mask: bool [L], tokens to predict: segment 2 without what is given.

    Raises:
      UserError: image ids do not fit.
    """
    prompt, prefix, target = (
        np.asarray(ids, np.int32).reshape(-1)
        for ids in (prompt_ids, prefix_ids, target_ids)
    )
    # One position at least for what closes the target.
    most = length - 1 if max_prefix is None else min(max_prefix, length - 1)
    prefix = _cut(prefix, most - 3 - len(prompt), vocab, "prefix", length)
    start = 3 + len(prompt) + len(prefix)
    target = _cut(target, length - start - 1, vocab, "target", length)
    end = start + len(target) + 1
    cls, sep = np.int32([vocab.cls_id]), np.int32([vocab.sep_id])
    tokens = np.full(length, vocab.pad_id, np.int32)
    tokens[:end] = np.concatenate([cls, prompt, sep, prefix, sep, target, sep])
    place = np.arange(length)
    given = np.arange(len(target)) < given if np.ndim(given) == 0 else given
    predicted = np.zeros(length, bool)
    predicted[start:end] = np.append(~given[: len(target)], True)
    segment_ids = np.where(place < start, 1, np.where(place < end, 2, 0))
    return {
        "tokens": tokens,
        "segment_ids": segment_ids.astype(np.int32),
        "loss_mask": predicted,
    }


def _cut(
    ids: np.ndarray, room: int, vocab: JointVocab, what: str, length: int
) -> np.ndarray:
    """The first `room` ids, none of an image left out."""
    images = np.flatnonzero(ids >= vocab.text_size)
    needed = images[-1] + 1 if len(images) else 0
    if room < needed:
        raise UserError(
            f"the {what} holds an image of {len(images)} tokens and only "
            f"{max(room, 0)} tokens of it fit into a sequence of {length}; make the "
            "sequence longer, or the prompt shorter"
        )
    return ids[: max(room, 0)]
