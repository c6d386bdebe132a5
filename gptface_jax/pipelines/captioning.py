"""Words for a picture: tags and captions by text-side decoding (SPEC A.12.3)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import tag_words
from gptface_jax.pipelines.editor import Editor
from gptface_jax.pipelines.rows import Rows, Steps
from gptface_jax.systems.gptface import decode, predict
from gptface_jax.systems.gptface.options import DecodeConfig

_SLOTS, _BATCH, _ROUNDS, _SCORED = 8, 16, 4, 32


@dataclasses.dataclass(frozen=True)
class Tag:
    """A word and how well it fits.

    Attributes:
      word: of the vocabulary.
      score: probability * match, by which tags are ranked.
      probability: of the word in a list of one tag.
      match: p(q=1) of the picture and the word.
    """

    word: str
    score: float
    probability: float
    match: float


def tags(
    editor: Editor,
    pixels: np.ndarray,
    count: int,
    config: DecodeConfig,
    key: jax.Array,
    among: Sequence[str] | None = None,
) -> Steps[list[Tag]]:
    """Steps to distinct words for a picture, best first.

    Lists of masked tags, "[MASK], [MASK], ...", are decoded until there are enough
    words or they repeat themselves; each word is then scored by itself.

    Args:
      editor: the networks.
      pixels: uint8 [1,S,S,3].
      count: most words wanted.
      config: of the decoder, with side "text".
      key: of the random choices.
      among: words to choose from; default all but `tag_words.STOP`.

    Raises:
      UserError: a count below 1, no words, or one that is no piece of the vocabulary.
    """
    if count < 1:
        raise UserError(f"count is {count}; use 1 or more")
    tokenizer = editor.text_tokenizer
    words = _allowed(tokenizer, among)
    prefix, comma = _ids(tokenizer, "tags :"), _ids(tokenizer, ",")
    if tokenizer.unk_id in prefix:
        prefix = []
    slots = editor.max_text_tokens - len(prefix)
    number = min(_SLOTS, (slots + len(comma)) // (1 + len(comma)))
    template = [*prefix, *([tokenizer.mask_id, *comma] * number)[: -len(comma) or None]]
    ids = yield _codes(editor, pixels)
    found: dict[int, None] = {}  # in the order of discovery
    among = None if among is None else tuple(among)
    for turn in range(_ROUNDS):
        before = len(found)
        keys = _fold(key, np.arange(_BATCH) + turn * _BATCH)
        filled = yield _fill(
            editor, ids, [template] * _BATCH, words, config, keys, among
        )
        drawn = filled[:, np.array(template) == tokenizer.mask_id]
        found |= dict.fromkeys(drawn.ravel().tolist())
        if len(found) >= count or len(found) == before:
            break
    chosen = np.array(list(found))
    (chances,) = yield _slot_probabilities(editor, ids, prefix, words, config, among)
    probability = chances[chosen]
    texts = [tokenizer.decode([w]) for w in chosen]
    match = np.exp((yield _score(editor, ids, texts)))
    scored = [
        Tag(word, float(p * m), float(p), float(m))
        for word, p, m in zip(texts, probability, match)
    ]
    return sorted(scored, key=lambda tag: -tag.score)[:count]


def captions(
    editor: Editor,
    pixels: np.ndarray,
    words: int,
    samples: int,
    config: DecodeConfig,
    key: jax.Array,
) -> Steps[list[tuple[str, float]]]:
    """Steps to sentences of so many tokens for a picture and p(q=1), best first.

    Args:
      editor, pixels, config, key: see `tags`.
      words: tokens of each sentence.
      samples: sentences drawn; equal ones are given once.

    Raises:
      UserError: more words than the model reads, or no samples.
    """
    most = editor.max_text_tokens
    if not 1 <= words <= most:
        raise UserError(f"words is {words}; this model writes 1 to {most}")
    if samples < 1:
        raise UserError(f"samples is {samples}; use 1 or more")
    ids = yield _codes(editor, pixels)
    template = [editor.text_tokenizer.mask_id] * words
    keys = _fold(key, np.arange(samples))
    filled = yield _fill(editor, ids, [template] * samples, None, config, keys)
    texts = list(dict.fromkeys(editor.text_tokenizer.decode(row) for row in filled))
    match = np.exp((yield _score(editor, ids, texts)))
    return sorted(zip(texts, match.tolist()), key=lambda pair: -pair[1])


def _allowed(tokenizer, among: Sequence[str] | None) -> np.ndarray:
    """bool [|V|]: the words that a slot may hold."""
    words = tokenizer.words()
    if among is None:
        stop = _ids(tokenizer, " ".join(tag_words.STOP))
        return words & ~np.isin(np.arange(len(words)), stop)
    if not among:
        raise UserError("no words to choose from; give some, or leave them open")
    names = {tokenizer.decode([i]): i for i in np.flatnonzero(words)}
    for word in among:
        if word not in names:
            raise UserError(
                f"'{word}' is no single piece of this model's vocabulary"
                f"{nearest(word, names)}; leave it out"
            )
    return np.isin(np.arange(len(words)), [names[word] for word in among])


def _codes(editor: Editor, pixels: np.ndarray) -> Rows:
    """Codes int32 [1,h,w] of a picture uint8 [1,S,S,3]."""
    return Rows(editor.image_ids, (pixels,), "codes")


def _score(editor: Editor, image_ids, texts: Sequence[str]) -> Rows:
    """log p(q=1) of one picture with each text, in whole batches: compiled once."""
    repeated = np.repeat(image_ids, len(texts), 0)
    return Rows(editor.score, (repeated, texts), "score", _SCORED)


def _ids(tokenizer, text: str) -> list[int]:
    ids = tokenizer.encode([text])[0]
    return [int(i) for i in ids if i != tokenizer.pad_id]


def _fold(key, numbers):
    return jax.vmap(lambda i: jax.random.fold_in(key, i))(numbers)


def _tokens(editor: Editor, image_ids, rows) -> np.ndarray:
    """Joint ids [B,L] of one picture's codes and B rows of text ids."""
    text = np.full(
        (len(rows), editor.max_text_tokens),
        editor.text_tokenizer.pad_id,
    )
    text[:, : len(rows[0])] = rows
    return np.asarray(editor.joined(np.repeat(image_ids, len(rows), 0), text))


def _fill(editor, image_ids, rows, words, config, keys, among=None) -> Rows:
    """Text ids with their [MASK]s decoded; `words` bool [|V|], of `among`, drawn."""
    where = editor.layout.text_slice

    def fill(tokens, keys):
        known = tokens != editor.text_tokenizer.mask_id
        keys = jax.random.wrap_key_data(keys)
        result = decode.decode(
            editor.module, editor.params, tokens, known, config, keys, words
        )
        return result.tokens[:, where][:, : len(rows[0])]

    arrays = _tokens(editor, image_ids, rows), np.asarray(jax.random.key_data(keys))
    return Rows(fill, arrays, ("fill", config, np.shape(rows), among), len(rows))


def _slot_probabilities(editor, image_ids, prefix, words, config, among) -> Rows:
    """float32 [1,|V|]: what a single open slot after the prefix holds."""

    def chances(tokens):
        logits = _side_logits(editor.module, editor.params, tokens, config)
        logits = jnp.where(words, logits["text"][:, len(prefix)], -jnp.inf)
        return jax.nn.softmax(logits)

    row = [*prefix, editor.text_tokenizer.mask_id]
    arrays = (_tokens(editor, image_ids, [row]),)
    return Rows(chances, arrays, ("slot", config, among), 1)


@functools.partial(jax.jit, static_argnums=(0, 3))
def _side_logits(module, params, tokens, config):
    """`predict.side_logits` of a batch."""
    one = functools.partial(predict.side_logits, module, {"params": params})
    return jax.vmap(lambda row: one(row, config))(tokens)
