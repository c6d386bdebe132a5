"""From an experiment config to a training run: data, system and engine joined."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import logging
import math
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.apps import networks, perceptual, sampling
from gptface_jax.apps.image_tokenizer import ImageTokenizer
from gptface_jax.core import files
from gptface_jax.core.config import from_mapping
from gptface_jax.core.errors import Missing, UserError, nearest
from gptface_jax.core.types import System
from gptface_jax.data import (
    captions,
    fingerprint,
    pipeline,
    probe,
    sources,
    transforms,
)
from gptface_jax.data.record import Record
from gptface_jax.data.text import TextTokenizer
from gptface_jax.interop import directory
from gptface_jax.nn.sequence import SequenceLayout
from gptface_jax.nn.vqgan import VQGAN, VQGANConfig
from gptface_jax.ops import quantize
from gptface_jax.systems import gptface, judge, vqgan
from gptface_jax.systems.gptface import model as gptface_model
from gptface_jax.train import checkpoint, loop, settings, sharding, work_folder
from gptface_jax.train.state import TrainState

log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """The `data` section of an experiment config.

    Attributes:
      train, eval: specs for `data.sources.open_source`; no `eval`, no evaluation.
      eval_records: how many held-out records are used.
      workers, threads: of the input pipeline.
      flip: mirror pictures at random (vqgan).
      image_ids: "cache" (a source of kind "tokens") or "palette" (mean colours,
        no tokenizer needed; for tests and probes; a cache is used as it is).
      codebook_init: start the code embeddings from the tokenizer's codebook.
      vocab: of the text: a vocab.txt, a folder, a hub id, or "" to learn one of
        `vocab_size` pieces from the captions of the training data.
      vocab_size: see `vocab`.
      captions, eval_captions: `data.transforms.CaptionOptions`.
      tokenizer: the run or model directory of the VQGAN that made the codes, for
        pictures of edits while a GPTFace trains; "" draws none.
    """

    train: Mapping[str, Any]
    eval: Mapping[str, Any] | None = None
    eval_records: int = 512
    workers: int = 0
    threads: int = 2
    flip: bool = True
    image_ids: str = "cache"
    codebook_init: bool = False
    vocab: str = ""
    vocab_size: int = 1024
    captions: transforms.CaptionOptions = transforms.CaptionOptions()
    eval_captions: transforms.CaptionOptions = transforms.CaptionOptions()
    tokenizer: str = ""


@dataclasses.dataclass(frozen=True)
class Experiment:
    """What `train.loop.train` is handed.

    Attributes:
      config: the experiment config, completed with what the data decided.
      system: what is trained.
      batches_fn: start step -> batches of this process.
      eval_batches: held-out batches, or None.
      extra_files: stored in every checkpoint.
      samples: pictures of what the model does, see `apps.sampling`; None for none.
    """

    config: Any
    system: System
    batches_fn: Callable[[int], Any]
    eval_batches: list[dict[str, np.ndarray]] | None
    extra_files: Mapping[str, bytes]
    samples: sampling.Samples | None = None


def _data_config(config: Any) -> DataConfig:
    values = settings.plain(config).get("data")
    if not values or not values.get("train"):
        raise UserError("the config has no data.train; say where the pictures are")
    return from_mapping(DataConfig, values, "data.")


def _train_source(config, data: DataConfig) -> Sequence[Record]:
    return _open(config, "data.train", data.train)


def _eval_source(config, data: DataConfig) -> Sequence[Record] | None:
    tell = data.eval != data.train
    return _open(config, "data.eval", data.eval, tell) if data.eval else None


def _open(config, key: str, spec, tell: bool = True) -> Sequence[Record]:
    """Opens what a key of the config says.

    Raises:
      UserError: as `sources.open_source`; of data that are not there, which the config
        may name without anybody having typed it, with the key and what to set it to.
    """
    try:
        return sources.open_source(spec, tell=tell and jax.process_index() == 0)
    except Missing as error:
        size = config["model"].get("resolution", 64)
        examples = {
            "photographs of yours": {"kind": "folder", "path": "photos"},
            "drawn faces": {"kind": "synthetic", "count": 4000, "size": size},
        }
        if config["system"] == "gptface":
            cache = {"kind": "tokens", "path": "tokens/photos"}
            examples = {"a cache that `gptface tokenize` wrote": cache}
        ways = (f'--config.{key}="{example}" for {what}'
                for what, example in examples.items())  # fmt: skip
        raise UserError(f"{key}: {error}; or set {', or '.join(ways)}") from None


def _finish(
    config,
    data: DataConfig,
    system,
    train_source,
    transform,
    eval_source,
    eval_transform,
    extra_files=None,
    questions=None,
    samples=None,
    contents=None,
) -> Experiment:
    """Joins data and system.

    `contents`: fingerprints of what else the run reads, by name; `questions`: held-out
    records -> more batch entries.
    """
    processes = jax.process_count()
    if config["batch_size"] % processes:
        raise UserError(
            f"batch_size {config['batch_size']} does not divide by {processes} "
            "processes; change batch_size"
        )
    local = config["batch_size"] // processes
    contents = {"data.train": fingerprint.of(train_source), **(contents or {})}
    if eval_source is not None:
        contents["data.eval"] = fingerprint.of(eval_source)
    known = {checkpoint.CONTENTS: json.dumps(contents).encode()}
    feed = pipeline.Pipeline(
        train_source,
        transform,
        local,
        config["seed"],
        shard=jax.process_index(),
        num_shards=processes,
        workers=data.workers,
        threads=data.threads,
    )
    eval_batches = None
    if eval_source is not None:
        count = min(len(eval_source), data.eval_records)
        rows = pipeline.held_out_rows(
            count, config["batch_size"], jax.process_index(), processes
        )
        eval_batches = pipeline.held_out(eval_source, eval_transform, rows)
        if questions:
            entries = questions([eval_source[i] for i in range(count)])
            for part, batch in zip(rows, eval_batches):
                batch |= {name: value[list(part)] for name, value in entries.items()}
    return Experiment(
        config, system, feed.batches, eval_batches, known | (extra_files or {}), samples
    )


def _vqgan(config, data: DataConfig, workdir) -> Experiment:
    del workdir
    compare = _distance(config)
    system = vqgan.make_system(settings.plain(config), compare)
    size = system.batch_spec["image"].shape[0]
    points = "landmarks" in system.batch_spec
    source, eval_source = _train_source(config, data), _eval_source(config, data)
    transform = transforms.ImageTransform(size, False, points)
    samples = None
    if eval_source is not None:
        model = from_mapping(VQGANConfig, settings.plain(config)["model"], "model.")
        first = _examples(eval_source, transform, sampling.NUM_RECONSTRUCTIONS)
        images = np.stack([x["image"] for x in first])
        samples = sampling.reconstructions(VQGAN(model), images)
    return _finish(
        config,
        data,
        system,
        source,
        transforms.ImageTransform(size, data.flip, points),
        eval_source,
        transform,
        contents=compare
        and {"objective.perceptual": directory.digest(compare.params, {})},
        samples=samples,
    )


def _examples(source, transform, count: int) -> list[dict[str, np.ndarray]]:
    """The first held-out examples, the same in all processes."""
    rng = np.random.default_rng(0)
    return [transform(source[i], rng) for i in range(min(count, len(source)))]


def _judge(config, data: DataConfig, workdir) -> Experiment:
    del workdir
    system = bare_system(config)
    size = system.batch_spec["image"].shape[0]
    attributes = tuple(config["model"]["attributes"])
    return _finish(
        config,
        data,
        system,
        _train_source(config, data),
        transforms.LabelTransform(size, attributes),
        _eval_source(config, data),
        transforms.LabelTransform(size, attributes, augment=False),
    )


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
    data: DataConfig, source: Sequence[Record], workdir: str | os.PathLike
) -> TextTokenizer:
    """The vocabulary of a run that has checkpoints, else as the config says."""
    saved = pathlib.Path(workdir) / "vocab.txt"
    if saved.is_file() and any(saved.parent.glob("checkpoints/[0-9]*")):
        # One that the config names and that is there must be the same, and is compared.
        named = data.vocab and pathlib.Path(data.vocab).expanduser().exists()
        return TextTokenizer.from_pretrained(data.vocab if named else saved)
    if data.vocab:
        tokenizer = TextTokenizer.from_pretrained(data.vocab)
    else:
        tokenizer = TextTokenizer.train(corpus(source, data.captions), data.vocab_size)
    if jax.process_index() == 0:
        saved.parent.mkdir(parents=True, exist_ok=True)
        files.write_text(saved, tokenizer.vocab_text())
    return tokenizer


def _gptface(config, data: DataConfig, workdir) -> Experiment:
    source = _train_source(config, data)
    tokenizer = text_tokenizer(data, source, workdir)
    extra = {"vocab.txt": tokenizer.vocab_text().encode()}
    grid = tuple(config["model"]["layout"]["grid"])
    codes = config["model"]["vocab"]["codebook_size"]
    eval_source = _eval_source(config, data)
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
        digest = {"tokenizer_digest": caches[0].manifest["tokenizer_digest"]}
        extra["manifest.json"] = json.dumps(digest).encode()
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
        model = from_mapping(gptface_model.GPTFaceConfig, values["model"], "model.")
        samples = sampling.edits(
            gptface_model.GPTFace(model),
            _tokenizer_of(data.tokenizer, source),
            tokenizer,
            _examples(eval_pool, eval_transform, sampling.NUM_EDITS),
        )
    return _finish(
        config,
        data,
        system,
        source,
        transform(source, data.captions),
        eval_source,
        eval_transform,
        extra,
        questions,
        samples,
    )


def _tokenizer_of(path: str, source) -> networks.Network:
    """The VQGAN that made the codes of a cache."""
    network = networks.open_network(path, "vqgan")
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


_BUILDERS = {"vqgan": _vqgan, "gptface": _gptface, "judge": _judge}
SYSTEMS = tuple(_BUILDERS)


def build(config: Any, workdir: str | os.PathLike) -> Experiment:
    """Opens the data and builds the system that a config names.

    Raises:
      UserError: an unknown system, a wrong key or value, or data that cannot be
        opened.
    """
    name = system_name(config)
    settings.read_settings(config)
    with explained(name):
        return _BUILDERS[name](config, _data_config(config), workdir)


def system_name(config: Any) -> str:
    """The system that a config names.

    Raises:
      UserError: an unknown one.
    """
    name = config.get("system")
    if name not in SYSTEMS:
        raise UserError(
            f"config key 'system' is {name!r}{nearest(str(name), SYSTEMS)}; known: "
            + ", ".join(SYSTEMS)
        )
    return name


@contextlib.contextmanager
def explained(name: str) -> Iterator[None]:
    """Turns the ValueError of a config dataclass into a UserError."""
    try:
        yield
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"config of '{name}': {error}") from error


def bare_system(config: Any) -> System:
    """The system that a config describes, without its data.

    Raises:
      UserError: an unknown system, a wrong key or value, or the weights of a
        perceptual distance that cannot be read.
    """
    name, values = system_name(config), settings.plain(config)
    with explained(name):
        if name != "vqgan":
            makers = {"gptface": gptface.make_system, "judge": judge.make_system}
            return makers[name](values)
        return vqgan.make_system(values, _distance(config))


def _distance(config: Any) -> vqgan.Perceptual | None:
    """The perceptual distance that a VQGAN's config names, with its weights."""
    values = settings.plain(config)["objective"]
    wanted = from_mapping(vqgan.VQGANObjective, values, "objective.").perceptual
    if not wanted.weight:
        return None
    try:
        return perceptual.open_distance(wanted)
    except UserError as error:
        if wanted.network != "classifier" or pathlib.Path(wanted.path).is_dir():
            raise
        raise UserError(
            f"objective.perceptual.path: {error}; or train it first: `gptface train "
            f"--config configs/judge/faces64.py:features --workdir {wanted.path}` (for "
            "64 px); or go without: --config.objective.perceptual.weight=0"
        ) from None


def with_more_codes(
    network: networks.Network,
    model: VQGANConfig,
    spec: Mapping[str, Any],
    *,
    records: int = 512,
    noise: float = 0.01,
) -> Mapping[str, Any]:
    """Parameters of a VQGAN as another one begins with them.

    If that has more codes, those that are used most become several.

    Args:
      network: the VQGAN.
      model: of the other one.
      spec: of the pictures whose codes are counted, see `data.sources.open_source`.
      records: how many of them, spread over the whole source.
      noise: see `ops.quantize.split`.
    """
    params, size = network.params, model.codebook_size
    known = network.config.codebook_size
    if size <= known:
        return params
    source = sources.open_source(spec)
    transform = transforms.ImageTransform(model.resolution, flip=False)
    picks = np.linspace(0, len(source) - 1, min(len(source), records)).astype(int)
    encode = ImageTokenizer(network).encode
    usage, rng = np.zeros(known), np.random.default_rng(0)
    for part in np.array_split(picks, -(-len(picks) // 32)):
        images = [transform(source[int(i)], rng)["image"] for i in part]
        ids = encode(np.stack(images))
        usage += np.bincount(ids.ravel(), minlength=known)
    codebook, parents = quantize.split(
        jnp.asarray(params["codebook"]),
        jnp.asarray(usage, jnp.float32),
        size,
        noise,
        jax.random.key(0),
    )
    log.info(
        "%d of %d codes became several, %d in all, by their use in %d pictures",
        len(np.unique(np.asarray(parents)[known:])),
        known,
        size,
        len(picks),
    )
    return {**params, "codebook": np.asarray(codebook)}


def train(config: Any, workdir: str | os.PathLike, progress: bool = True) -> TrainState:
    """Trains what the config describes, resuming what `workdir` holds."""
    with work_folder.held(workdir) as lock:  # the vocabulary is written there
        experiment = build(config, workdir)
        start = None
        if config.get("init_from"):

            def start():
                where, name = config["init_from"], config["system"]
                try:
                    network = networks.open_network(where, name)
                except UserError as error:
                    raise UserError(
                        f"init_from: {error}; or set --config.init_from to a run or "
                        "model directory of yours"
                    ) from None
                if name != "vqgan":
                    return network.params
                model = from_mapping(VQGANConfig, settings.plain(config)["model"])
                return with_more_codes(network, model, config["data"]["train"])

        return loop.train(
            experiment.config,
            experiment.system,
            experiment.batches_fn,
            workdir,
            eval_batches=experiment.eval_batches,
            extra_files=experiment.extra_files,
            initial_params=start,
            samples=experiment.samples,
            lock=lock,
            progress=progress,
        )
