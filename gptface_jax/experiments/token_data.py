"""What experiments on cached codes share: the codes, and the vocabulary of texts."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gptface_jax.core import files
from gptface_jax.core.errors import UserError
from gptface_jax.data import captions, composed, shards, transforms
from gptface_jax.data.record import Record
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import base, opening, previews, starting
from gptface_jax.pipelines.networks import Network
from gptface_jax.train import metrics, settings

# What `data.train` of such an experiment might be.
CACHE = {
    "a cache that `gptface tokenize` wrote": {"kind": "tokens", "path": "tokens/photos"}
}


@dataclasses.dataclass(frozen=True)
class Codes:
    """Where the image ids of records come from.

    Attributes:
      palette: makes them of colours; None where the records hold them.
      codebook: float [K,C] of the tokenizer, where the config begins with it.
      digest: of the tokenizer, None of a palette.
      files: what a run keeps of their origin.
    """

    palette: transforms.PaletteIds | None = None
    codebook: np.ndarray | None = None
    digest: str | None = None
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)

    def with_codes(self, transform: Callable[..., Any]) -> Callable[..., Any]:
        """A transform of records with codes, as one of the records that there are."""
        if self.palette is None:
            return transform
        return transforms.WithPalette(self.palette, transform)


@dataclasses.dataclass(frozen=True)
class Examples:
    """A feed of examples made of cached codes and texts.

    Attributes:
      records: to train on.
      held_out: to evaluate on; None where the config names none.
      codes: of both.
      samples: pictures of what a model does with them, see `previews`; or None.
      files: what a run keeps of them, besides that of the codes.
    """

    records: base.Records
    held_out: base.Records | None
    codes: Codes
    samples: previews.Samples | None = None
    files: Mapping[str, bytes] = dataclasses.field(default_factory=dict)


def open_sources(
    data: base.DataConfig,
) -> tuple[Sequence[Record], Sequence[Record] | None, Sequence[Record]]:
    """Records of `data.train`, of `data.eval` or None, and those to be shown.

    Raises:
      UserError: see `base.open_source`.
    """
    source, eval_source = (
        opener(data, CACHE) for opener in (base.open_train, base.open_eval)
    )
    return source, eval_source, source if eval_source is None else eval_source


def open_codes(
    data: base.DataConfig,
    grid: tuple[int, int],
    codes: int,
    source: Sequence[Record],
    eval_source: Sequence[Record],
) -> Codes:
    """The codes of a config's data.

    Args:
      data: its section.
      grid, codes: (h, w) and K that the model has.
      source, eval_source: of its records.

    Raises:
      UserError: no caches, or of other tokenizers than the model's.
    """
    if data.image_ids == "palette" and not any(map(_is_cache, caches(source))):
        levels = transforms.palette_levels(codes)
        return Codes(transforms.PaletteIds((), grid, levels))
    if data.image_ids not in ("cache", "palette"):
        raise UserError(f"data.image_ids '{data.image_ids}': use 'cache' or 'palette'")
    first = caches(source)[0]
    for key, pool in (("data.train", source), ("data.eval", eval_source)):
        for cache in caches(pool):
            _check_cache(key, cache, grid, codes, first)
    codebook = first.codebook if data.codebook_init else None
    if data.codebook_init and codebook is None:
        metrics.print_line(
            f"data.codebook_init: the token cache has no {shards.CODEBOOK}, so that a "
            "new run begins with random codes; make the cache again to begin with its "
            "tokenizer's"
        )
    known = {"tokenizer_digest": first.manifest["tokenizer_digest"]}
    # Where edits bring faces: of pictures that lie as they came nothing is known.
    upright = [c.manifest["frame"] for c in caches(source) if c.manifest.get("frame")]
    if upright and all(frame == upright[0] for frame in upright):
        known["frame"] = upright[0]
    return Codes(
        codebook=codebook,
        digest=first.manifest["tokenizer_digest"],
        files={"manifest.json": json.dumps(known).encode()},
    )


def set_vocab(config: Any, tokenizer: TextTokenizer) -> None:
    """Fills in the config's `model.vocab` by the vocabulary of its texts."""
    given = settings.plain(config)["model"]["vocab"]
    kept = ("multiple_of", "face_tokens")
    options = {name: given[name] for name in kept if name in given}
    vocab = tokenizer.joint_vocab(given["codebook_size"], **options)
    with config.unlocked():
        config["model"]["vocab"] = dataclasses.asdict(vocab)


def corpus(
    source: Sequence[Record],
    options: transforms.CaptionOptions,
    limit: int = 20_000,
    more: Callable[[Sequence[Record]], Sequence[str]] | None = None,
) -> list[str]:
    """Texts to learn a vocabulary from: at least `limit`, over the whole source.

    Args:
      source: the records.
      options: of their captions.
      limit: see above.
      more: records all over each part of the source -> further texts.
    """
    # Read once: drawing or decoding a picture anew for every wording takes long.
    records = _all_over(source)
    rng = np.random.default_rng(0)
    texts: list[str] = []
    while len(texts) < limit:
        for record in records:
            texts.append(options.text(record, rng))
            # The other wordings must be spelt out of known pieces as well.
            texts.append(captions.unrelated(rng))
    return [*texts, *(more(_of_each(source)) if more else ())]


def _all_over(source: Sequence[Record], most: int = 4000) -> list[Record]:
    """So many records at most from all over a source, without their pictures."""
    picks = np.linspace(0, len(source) - 1, min(len(source), most)).astype(int)
    return [dataclasses.replace(source[int(i)], image=None) for i in picks]


def _of_each(source: Sequence[Record]) -> list[Record]:
    """`_all_over` each part of a mixture: a small data set has words of its own."""
    parts = source.sources if isinstance(source, composed.Mixture) else [source]
    return [record for part in parts for record in _all_over(part)]


def text_tokenizer(
    config: Any,
    data: base.DataConfig,
    workdir: str | os.PathLike,
    more: Callable[[Sequence[Record]], Sequence[str]] | None = None,
) -> TextTokenizer:
    """The vocabulary of a run that has checkpoints, else as the config says.

    Where the config names none, it is that of `init_from` with what it cannot spell of
    the further texts, or learnt from the training data; `more` as of `corpus`. It is
    kept in the work folder.
    """
    saved = pathlib.Path(workdir) / "vocab.txt"
    if saved.is_file() and any(saved.parent.glob("checkpoints/[0-9]*")):
        # One that the config names and that is there must be the same, and is compared.
        named = data.vocab and pathlib.Path(data.vocab).expanduser().exists()
        return TextTokenizer.from_pretrained(data.vocab if named else saved)
    # What is missing is an error here already; what is passed over, `_build` reports.
    source = base.open_source("data.train", data.train, CACHE, report=False)
    if data.vocab:
        tokenizer = TextTokenizer.from_pretrained(data.vocab)
    elif config.get("init_from"):
        tokenizer = starting.vocabulary_of(config["init_from"])
        tokenizer = tokenizer.extended(more(_of_each(source)) if more else ())
    else:
        texts = corpus(source, data.captions, more=more)
        tokenizer = TextTokenizer.train(texts, data.vocab_size)
    if jax.process_index() == 0:
        saved.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(saved, tokenizer.vocab_text())
    return tokenizer


def caches(source: Any) -> list[Any]:
    """The sources inside those that are made of others."""
    if hasattr(source, "sources"):
        return [c for part in source.sources for c in caches(part)]
    return caches(source.source) if hasattr(source, "source") else [source]


def _is_cache(source) -> bool:
    return "tokenizer_digest" in (getattr(source, "manifest", None) or ())


def _check_cache(key: str, source, grid, codes, first) -> None:
    if not (_is_cache(source) and _is_cache(first)):
        raise UserError(
            f"{key} is no token cache; run `gptface tokenize` and set "
            f"--config.{key}=\"{{'kind': 'tokens', 'path': OUT}}\""
        )
    manifest = source.manifest
    if manifest["tokenizer_digest"] != first.manifest["tokenizer_digest"]:
        raise UserError(
            f"two token caches are of different tokenizers, "
            f"{first.manifest['tokenizer_digest']} and {manifest['tokenizer_digest']}; "
            "run `gptface tokenize` with one tokenizer"
        )
    there = tuple(manifest["grid"]), manifest["codebook_size"]
    if there != (grid, codes):
        ways = {
            "layout.grid": (there[0], grid),
            "vocab.codebook_size": (there[1], codes),
        }
        flags = (
            f'--config.model.{name}="{value}"'
            for name, (value, own) in ways.items()
            if value != own
        )
        raise UserError(
            f"the token cache has grid {list(there[0])} and codebook_size {there[1]}; "
            f"the config says model.layout.grid {list(grid)} and "
            f"model.vocab.codebook_size {codes}; set {' '.join(flags)}"
        )


def tokenizer_of(path: str, source: Any, given: str = "data.tokenizer") -> Network:
    """The VQGAN that made the codes of a cache.

    Args:
      path: of the VQGAN.
      source: records of the cache.
      given: what named it, for messages.

    Raises:
      UserError: it is another one, or the records are no cache.
    """
    cache = caches(source)[0]
    if not _is_cache(cache):
        raise UserError(
            f"{given} decodes the image ids of a token cache (`gptface tokenize`), and "
            "these records have none; leave it out"
        )
    network = opening.open_network(path, "vqgan")
    made_by = cache.manifest["tokenizer_digest"]
    if network.codes_digest != made_by:
        raise UserError(
            f"{given} '{path}' has the digest {network.codes_digest}, and the "
            f"token cache was made by {made_by}; name the tokenizer of the cache"
        )
    return network
