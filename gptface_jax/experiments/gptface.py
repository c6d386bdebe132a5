"""Experiments that train a GPTFace on cached codes and texts."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.core import files, trees
from gptface_jax.core.config import from_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.core.types import Params
from gptface_jax.data import captions, probe, sources, transforms
from gptface_jax.data.record import Record
from gptface_jax.data.text import TextTokenizer
from gptface_jax.experiments import base, opening, previews, registry
from gptface_jax.nn.sequence import SequenceLayout
from gptface_jax.pipelines.networks import Network
from gptface_jax.systems import gptface
from gptface_jax.systems.gptface.model import GPTFace, GPTFaceConfig
from gptface_jax.train import settings, sharding

log = logging.getLogger(__name__)

_CACHE = {
    "a cache that `gptface tokenize` wrote": {"kind": "tokens", "path": "tokens/photos"}
}


def corpus(
    source: Sequence[Record], options: transforms.CaptionOptions, limit: int = 20_000
) -> list[str]:
    """Texts to learn a vocabulary from: at least `limit`, over the whole source."""
    picks = np.linspace(0, len(source) - 1, min(len(source), 4000)).astype(int)
    # Read once: drawing or decoding a picture anew for every wording takes long.
    records = [dataclasses.replace(source[int(i)], image=None) for i in picks]
    rng = np.random.default_rng(0)
    texts: list[str] = []
    while len(texts) < limit:
        for record in records:
            texts.append(options.text(record, rng))
            # The other wordings must be spelt out of known pieces as well.
            texts.append(captions.unrelated(rng))
    return texts


def text_tokenizer(
    config: Any, data: base.DataConfig, workdir: str | os.PathLike
) -> TextTokenizer:
    """The vocabulary of a run that has checkpoints, else as the config says.

    One that is learnt from the training data is kept in the work folder.
    """
    del config
    saved = pathlib.Path(workdir) / "vocab.txt"
    if saved.is_file() and any(saved.parent.glob("checkpoints/[0-9]*")):
        # One that the config names and that is there must be the same, and is compared.
        named = data.vocab and pathlib.Path(data.vocab).expanduser().exists()
        return TextTokenizer.from_pretrained(data.vocab if named else saved)
    # What is missing is told of first; what is passed over, when `_build` opens it.
    source = base.open_source("data.train", data.train, _CACHE, tell=False)
    if data.vocab:
        tokenizer = TextTokenizer.from_pretrained(data.vocab)
    else:
        texts = corpus(source, data.captions)
        tokenizer = TextTokenizer.train(texts, data.vocab_size)
    if jax.process_index() == 0:
        saved.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(saved, tokenizer.vocab_text())
    return tokenizer


def _build(
    config: Any, data: base.DataConfig, tokenizer: TextTokenizer
) -> base.Experiment:
    config = config.copy_and_resolve_references()
    source, eval_source = base.open_train(data, _CACHE), base.open_eval(data, _CACHE)
    extra = {"vocab.txt": tokenizer.vocab_text().encode()}
    grid = tuple(config["model"]["layout"]["grid"])
    codes = config["model"]["vocab"]["codebook_size"]
    eval_pool = source if eval_source is None else eval_source
    palette = codebook = None
    if data.image_ids == "palette" and not any(map(_is_cache, _caches(source))):
        levels = transforms.palette_levels(codes)
        palette = transforms.PaletteIds((), grid, levels)
    elif data.image_ids in ("cache", "palette"):
        caches = _caches(source)
        for key, pool in (("data.train", source), ("data.eval", eval_pool)):
            for cache in _caches(pool):
                _check_cache(key, cache, grid, codes, caches[0])
        known = {"tokenizer_digest": caches[0].manifest["tokenizer_digest"]}
        frames = [cache.manifest.get("frame") for cache in caches]
        if frames[0] and all(frame == frames[0] for frame in frames):
            known["frame"] = frames[0]  # where edits bring faces
        extra["manifest.json"] = json.dumps(known).encode()
        codebook = caches[0].codebook if data.codebook_init else None
    else:
        raise UserError(f"data.image_ids '{data.image_ids}': use 'cache' or 'palette'")
    given = settings.plain(config)["model"]["vocab"]
    options = {"multiple_of": given["multiple_of"]} if "multiple_of" in given else {}
    with config.unlocked():
        config["model"]["vocab"] = dataclasses.asdict(
            tokenizer.joint_vocab(codes, **options)
        )
    _fit_length(config)
    values = settings.plain(config)
    system = gptface.make_system(values, codebook, probe.ATTRIBUTES)
    slots = config["model"]["layout"]["max_text_tokens"]

    def transform(pool, options):
        plain = transforms.TokenTransform(tokenizer, slots, pool, options)
        return plain if palette is None else transforms.WithPalette(palette, plain)

    def questions(records):
        if not data.eval_captions.from_labels:
            return {}
        return probe.attribute_probe(records, tokenizer, slots)

    eval_transform = transform(eval_pool, data.eval_captions)
    samples = None
    if data.tokenizer:
        model = from_mapping(GPTFaceConfig, values["model"], "model.")
        shown = base.Records(eval_pool, eval_transform)
        samples = previews.edits(
            GPTFace(model),
            _tokenizer_of(data.tokenizer, source),
            tokenizer,
            base.first_examples(shown, previews.NUM_EDITS),
        )
    held_out = None
    if eval_source is not None:
        held_out = base.Records(eval_source, eval_transform, questions)
    return base.experiment(
        config,
        data,
        system,
        {"pairs": base.Records(source, transform(source, data.captions))},
        {"eval": held_out},
        extra_files=extra,
        samples=samples,
    )


def _tokenizer_of(path: str, source) -> Network:
    """The VQGAN that made the codes of a cache."""
    network = opening.open_network(path, "vqgan")
    made_by = _caches(source)[0].manifest["tokenizer_digest"]
    if network.codes_digest != made_by:
        raise UserError(
            f"data.tokenizer '{path}' has the digest {network.codes_digest}, and the "
            f"token cache was made by {made_by}; name the tokenizer of the cache"
        )
    return network


def _fit_length(config) -> None:
    """Pads sequences to what the mesh divides, if it splits them."""
    mesh, rules = sharding.open_mesh(settings.read_settings(config).mesh)
    ways = sharding.ways("length", mesh, rules)
    layout = config["model"]["layout"]
    length = from_mapping(SequenceLayout, settings.plain(layout)).length
    if length % ways:
        padded = math.lcm(ways, layout.get("multiple_of", 1))
        with config.unlocked():
            layout["multiple_of"] = padded
        log.warning(
            "sequences of %d do not divide by the %d devices that split the length; "
            "they get [PAD] up to a multiple of %d",
            length,
            ways,
            padded,
        )


def _caches(source) -> list[Any]:
    """The sources inside mixtures and subsets."""
    if isinstance(source, sources.Mixture):
        return [c for part in source.sources for c in _caches(part)]
    return _caches(source.source) if isinstance(source, sources.Subset) else [source]


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
    if tuple(manifest["grid"]) != grid or manifest["codebook_size"] != codes:
        raise UserError(
            f"the token cache has grid {manifest['grid']} and codebook_size "
            f"{manifest['codebook_size']}; the config says model.layout.grid "
            f"{list(grid)} and model.vocab.codebook_size {codes}; change the config"
        )


def _note(shapes: Params) -> str:
    body = trees.count(shapes["transformer"])
    return (
        f"body (layers and final norm) {body / 1e6:.2f} M, with tied embeddings "
        f"and heads {trees.count(shapes) / 1e6:.2f} M"
    )


ROW = registry.Row(
    config=GPTFaceConfig,
    module=GPTFace,
    inputs=lambda config: (jnp.zeros((1, config.layout.length), jnp.int32),),
    method="init_all",
    make=gptface.make_system,
    prepare=text_tokenizer,
    build=_build,
    note=_note,
    beside=("vqgan",),
    files=("vocab.txt",),
    facade="gptface_jax.apps.api:open_model",
    verbs=("edit", "inpaint", "restore", "stitch", "tag", "caption"),
)
