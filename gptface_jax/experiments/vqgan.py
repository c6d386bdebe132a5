"""Experiments that train a VQGAN tokenizer."""

from __future__ import annotations

import logging
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from gptface_jax.core.config import from_mapping
from gptface_jax.core.errors import UserError
from gptface_jax.core.types import Params, System
from gptface_jax.data import sources, transforms
from gptface_jax.experiments import base, opening, perceptual, previews, registry
from gptface_jax.nn.vqgan import VQGAN, VQGANConfig
from gptface_jax.ops import quantize
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer
from gptface_jax.pipelines.networks import Network
from gptface_jax.systems import vqgan
from gptface_jax.systems.gptface import decode
from gptface_jax.systems.gptface.model import assemble
from gptface_jax.systems.gptface.options import DecodeConfig
from gptface_jax.train import settings

log = logging.getLogger(__name__)


def _make(values: Mapping[str, Any]) -> System:
    return vqgan.make_system(values, _distance(values), _painter(values))


def _build(config: Any, data: base.DataConfig, prepared: None) -> base.Experiment:
    values = settings.plain(config)
    system = _make(values)
    spec = system.feeds["pictures"].spec
    size, points = spec["image"].shape[0], "landmarks" in spec
    examples = base.pictures(size)
    source, held_out = base.open_train(data, examples), base.open_eval(data, examples)
    samples = None
    if held_out is not None:
        held_out = base.Records(
            held_out, transforms.ImageTransform(size, False, points)
        )
        first = base.first_examples(held_out, previews.NUM_RECONSTRUCTIONS)
        model = from_mapping(VQGANConfig, values["model"], "model.")
        images = np.stack([x["image"] for x in first])
        samples = previews.reconstructions(VQGAN(model), images, ROW.kept)
    transform = transforms.ImageTransform(size, data.flip, points)
    return base.experiment(
        config,
        data,
        system,
        {"pictures": base.Records(source, transform)},
        {"eval": held_out},
        samples=samples,
    )


def _distance(values: Mapping[str, Any]) -> vqgan.Perceptual | None:
    """The perceptual distance that a VQGAN's config names, with its weights."""
    wanted = from_mapping(vqgan.VQGANObjective, values["objective"], "objective.")
    wanted = wanted.perceptual
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


def _painter(values: Mapping[str, Any]) -> vqgan.Painter | None:
    """The transformer that `objective.holes` lets draw codes, without a text."""
    wanted = from_mapping(vqgan.VQGANObjective, values["objective"], "objective.").holes
    if not wanted.drawn:
        return None
    try:
        network = opening.open_network(wanted.model, "gptface")
    except UserError as error:
        raise UserError(f"objective.holes.model: {error}") from None
    config = network.config
    layout, vocab = config.layout, config.vocab
    model = from_mapping(VQGANConfig, values["model"], "model.")
    theirs = tuple(layout.grid), vocab.codebook_size
    if theirs != (model.grid, model.codebook_size):
        raise UserError(
            f"objective.holes.model '{wanted.model}' draws {theirs[0]} tokens of "
            f"{theirs[1]} codes, and the tokenizer has {model.grid} of "
            f"{model.codebook_size}; give the transformer of its codes"
        )
    options = DecodeConfig(
        k=max(1, layout.num_image_tokens // 4),
        temperature=wanted.temperature,
        temperature_end=wanted.temperature,
        guidance="none",
    )

    def draw(params, image_ids, is_open, key):
        count = len(image_ids)
        text_ids = jnp.full((count, layout.max_text_tokens), vocab.pad_id)
        tokens = assemble(image_ids.reshape(count, -1), text_ids, config)
        known = jnp.ones(tokens.shape, bool)
        known = known.at[:, layout.image_slice].set(~is_open.reshape(count, -1))
        result = decode.decode(network.module, params, tokens, known, options, key)
        drawn = vocab.joint_to_image(result.tokens[:, layout.image_slice])
        return drawn.reshape(image_ids.shape)

    return vqgan.Painter(network.params, draw)


def _start(network: Network, experiment: base.Experiment) -> Params:
    config = experiment.config
    model = from_mapping(VQGANConfig, settings.plain(config)["model"])
    return with_more_codes(network, model, config["data"]["train"])


def with_more_codes(
    network: Network,
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


ROW = registry.Row(
    config=VQGANConfig,
    module=VQGAN,
    inputs=lambda config: (jnp.zeros((1, config.resolution, config.resolution, 3)),),
    make=_make,
    build=_build,
    kept=vqgan.without_discriminator,
    start=_start,
)
