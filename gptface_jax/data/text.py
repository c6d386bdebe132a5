"""Text to WordPiece ids and back (SPEC A.2.2), on the `tokenizers` library.

A saved folder opens with `transformers.AutoTokenizer` too.
"""

from __future__ import annotations

import collections
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable, Sequence

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.core.vocab import JointVocab

SPECIALS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
# Longer words become [UNK].
MAX_WORD_CHARACTERS = 200
# The text is cut here before it is tokenized; 64 tokens never need more.
MAX_CHARACTERS = 20_000
_FEW = 8  # texts that are tokenized one by one


class TextTokenizer:
    """BERT's uncased WordPiece over a given or a trained vocabulary."""

    def __init__(self, vocab: Sequence[str]):
        """Args: vocab: the entries in id order, the five specials among them.

        Raises:
          UserError: a missing special or a repeated entry.
        """
        self._ids = {piece: i for i, piece in enumerate(vocab)}
        missing = [s for s in SPECIALS if s not in self._ids]
        if missing:
            raise UserError(
                f"the vocabulary of {len(vocab)} entries lacks {', '.join(missing)}; "
                "give a BERT vocab.txt with one WordPiece a line"
            )
        if len(self._ids) != len(vocab):
            raise UserError("the vocabulary repeats an entry; give each piece once")
        self._vocab = list(vocab)
        self._backend = _backend(self._ids)
        ids = [self._ids[s] for s in SPECIALS]
        self.pad_id, self.unk_id, self.cls_id, self.sep_id, self.mask_id = ids

    def __reduce__(self):
        return TextTokenizer, (self._vocab,)

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike) -> TextTokenizer:
        """A vocab.txt, a folder that holds one (or a tokenizer.json), or a hub id."""
        path = pathlib.Path(source)
        if path.is_file():
            return cls._from_file(path)
        if (path / "vocab.txt").is_file():
            return cls._from_file(path / "vocab.txt")
        try:
            from transformers import AutoTokenizer

            pieces = AutoTokenizer.from_pretrained(os.fspath(source)).get_vocab()
        except Exception as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else error
            raise UserError(
                f"no text tokenizer at '{source}' ({reason}); give a vocab.txt, a "
                "folder with one, or the id of a BERT-style model"
            ) from None
        return cls(sorted(pieces, key=pieces.get))

    @classmethod
    def _from_file(cls, path: pathlib.Path) -> TextTokenizer:
        try:
            return cls.from_vocab_text(path.read_text("utf-8"))
        except UnicodeDecodeError:
            raise UserError(
                f"'{path}' is not UTF-8 text; give a BERT vocab.txt with one WordPiece "
                "a line"
            ) from None

    @classmethod
    def train(cls, corpus: Iterable[str], vocab_size: int = 2048) -> TextTokenizer:
        """Learns a vocabulary of at most `vocab_size` pieces from a corpus.

        The same corpus gives the same vocabulary, in every process.

        Raises:
          UserError: an empty corpus, or a size that cannot hold the specials.
        """
        from tokenizers import trainers

        texts = [_unicode(t) for t in corpus if t.strip()]
        if not texts:
            raise UserError("the corpus holds no text; give texts or a vocabulary")
        if vocab_size < 32:
            raise UserError(f"vocab_size is {vocab_size}; use 32 or more")
        learner = _backend({})
        # The trainer breaks ties by the ids of the characters, which it hands out in
        # random order to those inside words, unless they have theirs already.
        words: set[str] = set()
        for text in texts:
            plain = learner.normalizer.normalize_str(text)
            words |= {w for w, _ in learner.pre_tokenizer.pre_tokenize_str(plain)}
        inner = collections.Counter(c for word in words for c in word[1:])
        common = sorted(inner, key=lambda c: (-inner[c], c))[:1000]
        trainer = trainers.WordPieceTrainer(
            vocab_size=vocab_size,
            min_frequency=2,
            limit_alphabet=1000,
            special_tokens=[*SPECIALS, *(f"##{c}" for c in sorted(common))],
            show_progress=False,
        )
        learner.train_from_iterator(texts, trainer)
        pieces = learner.get_vocab()
        return cls(sorted(pieces, key=pieces.get))

    @classmethod
    def from_vocab_text(cls, text: str) -> TextTokenizer:
        """The inverse of `vocab_text`: one entry a line."""
        return cls(text.removesuffix("\n").split("\n"))

    def vocab_text(self) -> str:
        """The content of vocab.txt."""
        return "\n".join(self._vocab) + "\n"

    @property
    def size(self) -> int:
        return len(self._vocab)

    @property
    def digest(self) -> str:
        """SHA-256 of the vocabulary, 16 hex digits."""
        return hashlib.sha256(self.vocab_text().encode()).hexdigest()[:16]

    def joint_vocab(self, codebook_size: int, **options: int) -> JointVocab:
        """The joint id space with this vocabulary's special ids."""
        return JointVocab(
            **options,
            text_size=self.size,
            codebook_size=codebook_size,
            pad_id=self.pad_id,
            unk_id=self.unk_id,
            cls_id=self.cls_id,
            sep_id=self.sep_id,
            mask_id=self.mask_id,
        )

    def encode(self, texts: Sequence[str], max_tokens: int = 64) -> np.ndarray:
        """Ids int32 [B,m] of texts without [CLS] and [SEP], cut or padded with [PAD].

        Special tokens spelt out in a text count as plain characters, so that
        nobody can smuggle a [MASK] in.
        """
        ids = np.full((len(texts), max_tokens), self.pad_id, np.int32)
        cleaned = [_unicode(t[:MAX_CHARACTERS]).replace("[", " [ ") for t in texts]
        if len(texts) < _FEW:  # handing them to threads takes longer than the work
            one = self._backend.encode
            encodings = [one(text, add_special_tokens=False) for text in cleaned]
        else:
            encodings = self._backend.encode_batch(cleaned, add_special_tokens=False)
        for row, encoding in zip(ids, encodings):
            kept = encoding.ids[:max_tokens]
            row[: len(kept)] = kept
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of ids, specials left out."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=True)

    def understood(self, text: str) -> dict[str, bool]:
        """Whether the vocabulary holds each word of a text.

        Punctuation is no word. A word is held whole, or by a first piece of three
        letters or more that makes up most of it ("smiling" of "smilingly"): what is
        spelt out of shorter pieces means nothing to a model.
        """
        parts = self._words(text[:MAX_CHARACTERS])
        words = [word for word in parts if any(map(str.isalnum, word))]
        encoded = self._backend.encode_batch(words, add_special_tokens=False)
        firsts = [e.tokens[0] if e.ids[0] != self.unk_id else "" for e in encoded]
        return {
            word: first == word or (len(first) >= 3 and 2 * len(first) > len(word))
            for word, first in zip(words, firsts)
        }

    def _words(self, text: str) -> list[str]:
        """Words and punctuation of a text, in lower case without accents."""
        plain = self._backend.normalizer.normalize_str(_unicode(text))
        return [w for w, _ in self._backend.pre_tokenizer.pre_tokenize_str(plain)]

    def words(self) -> np.ndarray:
        """Entries that are whole words, of letters only: bool [size]."""
        return np.array([word.isalpha() for word in self._vocab])

    def extended(self, texts: Iterable[str]) -> TextTokenizer:
        """A vocabulary with the unknown words of texts added behind its own entries.

        That is words which are not `understood`, and what it cannot spell.
        """
        added: dict[str, None] = {}
        for text in texts:
            words = self._words(text)
            encoded = self._backend.encode_batch(words, add_special_tokens=False)
            held = self.understood(text)
            added |= {
                word: None
                for word, e in zip(words, encoded)
                if self.unk_id in e.ids or not held.get(word, True)
            }
        return TextTokenizer([*self._vocab, *added]) if added else self

    def places_in(self, other: TextTokenizer) -> np.ndarray:
        """Ids int [size] that another vocabulary has for the entries, -1 for none."""
        return np.array([other._ids.get(piece, -1) for piece in self._vocab])

    def files(self, max_tokens: int = 64) -> dict[str, bytes]:
        """Contents, by name, of the files that `transformers.AutoTokenizer` opens."""
        names = dict(zip(("pad", "unk", "cls", "sep", "mask"), SPECIALS))
        config = {
            "tokenizer_class": "BertTokenizerFast",
            "do_lower_case": True,
            "strip_accents": True,
            "model_max_length": max_tokens,
            **{f"{name}_token": token for name, token in names.items()},
        }
        return {
            "vocab.txt": self.vocab_text().encode(),
            "tokenizer.json": self._backend.to_str(pretty=True).encode(),
            "tokenizer_config.json": (json.dumps(config, indent=2) + "\n").encode(),
        }

    def save(self, folder: str | os.PathLike, max_tokens: int = 64) -> None:
        """Writes `files` into a folder."""
        pathlib.Path(folder).mkdir(parents=True, exist_ok=True)
        for name, content in self.files(max_tokens).items():
            (pathlib.Path(folder) / name).write_bytes(content)


def _unicode(text: str) -> str:
    """The text with "?" for lone surrogates: bytes of another encoding, broken JSON."""
    return text.encode("utf-8", "replace").decode()


def _backend(ids: dict[str, int]):
    """BERT's pipeline over a vocabulary; of an empty one, ready to be trained."""
    import tokenizers

    model = tokenizers.models.WordPiece(
        ids, unk_token="[UNK]", max_input_chars_per_word=MAX_WORD_CHARACTERS
    )
    backend = tokenizers.Tokenizer(model)
    backend.normalizer = tokenizers.normalizers.BertNormalizer(
        lowercase=True, strip_accents=True
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    backend.decoder = tokenizers.decoders.WordPiece(prefix="##")
    if ids:
        backend.add_special_tokens(list(SPECIALS))
        sep, cls = (("[SEP]", ids["[SEP]"]), ("[CLS]", ids["[CLS]"]))
        backend.post_processor = tokenizers.processors.BertProcessing(sep, cls)
    return backend
