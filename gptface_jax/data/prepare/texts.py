"""Texts off the web: cleaned, and kept or not by length and language."""

from __future__ import annotations

import dataclasses
import functools
import html
import re
import unicodedata
from collections.abc import Callable, Sequence

from gptface_jax.core import extras
from gptface_jax.core.errors import UserError
from gptface_jax.data.prepare import sample
from gptface_jax.data.prepare.settings import TextOptions
from gptface_jax.data.text import TextTokenizer

_TAG = re.compile(r"</?[A-Za-z!][^<>]{0,200}>")
# Bounded, and begun only where a word begins: of "a@a@a@..." any \S+ takes days.
_ADDRESS = re.compile(
    r"(?:https?://|www\.)\S+|(?<![^\s@])[^\s@]{1,64}@[^\s@]{1,255}\.\w{1,24}",
    re.IGNORECASE,
)
_SPACES = re.compile(r"\s+")
_WORD = re.compile(r"\w+")
_MARKS = 30
# Few words tell no language.
_FEW = 3
# Of most of the web's texts. Among all that py3langid knows, the few words of a caption
# are often likeliest in one that hardly anybody writes.
_COMMON = (
    "ar cs da de el en es fa fi fr he hi hu id it ja ko nl pl pt ro ru sv th tr uk vi "
    "zh"
).split()


def clean(text: str) -> str:
    """A text without mark-up, addresses and control characters, on one line.

    HTML's entities are read twice, for many pages escape them twice. What is no Unicode
    (a lone surrogate) goes.
    """
    for _ in range(2):
        text = html.unescape(text)
    text = _ADDRESS.sub(" ", _TAG.sub(" ", text))
    text = _SPACES.sub(" ", unicodedata.normalize("NFC", stream_safe(text)))
    kept = (c for c in text if c.isprintable() or c == "\u200d")
    return "".join(kept).strip(" \t-|,;:/")


def stream_safe(text: str) -> str:
    """A text with at most 30 combining characters in a row (UAX 15, 13).

    No language has more, and to put thousands in order takes time with their square.
    """
    if text.isascii():
        return text
    kept, row = [], 0
    for character in text:
        row = row + 1 if unicodedata.combining(character) else 0
        if row <= _MARKS:
            kept.append(character)
    return "".join(kept)


@functools.cache
def _identifier(language: str):
    try:
        from py3langid import langid
    except ImportError:
        raise UserError(
            "texts.language needs py3langid; " + extras.install("pipeline")
        ) from None
    known = langid.LanguageIdentifier.from_model_file(
        langid.MODEL_FILE, norm_probs=True
    )
    if language not in known.labels:
        raise UserError(
            f"texts.language '{language}' is none that py3langid knows; give two "
            "letters of ISO 639-1, such as en"
        )
    known.set_languages({*_COMMON, language})
    return known


def probability(text: str, language: str) -> float:
    """Probability that a text is in a language (ISO 639-1), not another common one.

    Raises:
      UserError: an unknown language, or the package is missing.
    """
    return float(dict(_identifier(language).rank(text))[language])


@dataclasses.dataclass
class Texts:
    """Function from the texts of a picture to those that are kept, or why none is.

    Attributes:
      options: see `TextOptions`.
      count: text -> number of WordPieces; None counts none.
    """

    options: TextOptions
    count: Callable[[str], int] | None = None

    def __call__(self, texts: Sequence[str]) -> tuple[str, ...] | str:
        """The texts, each once, or the reason of the last one that is not kept."""
        kept: list[str] = []
        reason = sample.NO_TEXT
        for text in texts:
            found = self._one(text)
            if isinstance(found, tuple):
                kept += [t for t in found if t not in kept]
            else:
                reason = found
        return tuple(kept) if kept else reason

    def _one(self, text: str) -> tuple[str] | str:
        options = self.options
        if len(text.encode("utf-8", "surrogatepass")) > options.max_bytes:
            return sample.LONG_TEXT
        text = clean(text)
        words = len(_WORD.findall(text))
        if not words:
            return sample.NO_TEXT
        if words < options.min_words:
            return sample.SHORT_TEXT
        if words > options.max_words:
            return sample.LONG_TEXT
        if options.language and words >= _FEW:
            if probability(text, options.language) < options.min_probability:
                return sample.LANGUAGE
        if self.count is not None and self.count(text) > options.max_tokens:
            return sample.LONG_TEXT
        return (text,)


def texts(options: TextOptions) -> Texts:
    """The stage of a config, with its vocabulary if it names one."""
    if not options.vocab:
        return Texts(options)
    tokenizer = TextTokenizer.from_pretrained(options.vocab)
    most = options.max_tokens + 1

    def count(text: str) -> int:
        return int((tokenizer.encode([text], most) != tokenizer.pad_id).sum())

    return Texts(options, count)
