"""Pictures of what a model does with held-out examples, while it trains.

Each function returns (params, state) -> {name: uint8 [H,W,3]}, to be called by all
processes of a run within its mesh.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from gptface_jax.core.types import Params
from gptface_jax.data import image
from gptface_jax.data.text import TextTokenizer
from gptface_jax.nn.prefix_lm import PREFIX, TARGET, PrefixLM, for_generation
from gptface_jax.nn.vqgan import VQGAN
from gptface_jax.pipelines import pictures
from gptface_jax.pipelines.networks import Network
from gptface_jax.systems.gptface import decode
from gptface_jax.systems.gptface.model import GPTFace, assemble
from gptface_jax.systems.gptface.options import DecodeConfig
from gptface_jax.systems.talk2face import decode as talk2face_decode

Samples = Callable[[Any, Any], Mapping[str, np.ndarray]]
NUM_RECONSTRUCTIONS, NUM_EDITS = 8, 6


def reconstructions(
    module: VQGAN, images: np.ndarray, kept: Callable[[Params], Params]
) -> Samples:
    """Photographs above, what the tokenizer makes of them below.

    Args:
      module: the VQGAN in training.
      images: float32 [B,S,S,3] in [-1,1].
      kept: parameters in training -> the module's.
    """
    run = jax.jit(lambda params, x: module.apply({"params": params}, x)[0])

    def samples(params, state):
        del state
        again = image.from_unit_range(np.asarray(run(kept(params), images)))
        shown = [*image.from_unit_range(images), *again]
        return {"reconstructions": pictures.sheet(shown, len(images))}

    return samples


def edits(
    module: GPTFace,
    vqgan: Network,
    tokenizer: TextTokenizer,
    examples: Sequence[Mapping[str, np.ndarray]],
) -> Samples:
    """Pictures, and their lower half filled after the own and after another text.

    Args:
      module: the GPTFace in training.
      vqgan: draws the codes.
      tokenizer: of the text.
      examples: dicts with image_ids int [n], text_ids and negative_ids int [m].
    """
    config = module.config
    columns = len(examples)
    batch = {name: np.stack([e[name] for e in examples]) for name in examples[0]}
    rows = config.layout.grid[0]
    is_open = np.zeros(config.layout.grid, bool)
    is_open[rows // 2 : rows - max(1, rows // 8), 1:-1] = True
    known = np.ones((columns, config.layout.length), bool)
    known[:, config.layout.image_slice] = ~is_open.reshape(-1)
    options = DecodeConfig(k=max(1, int(is_open.sum()) // 8))
    drawn = _drawer(vqgan, config.layout.grid)

    def filled(params, text_ids):
        tokens = assemble(batch["image_ids"], text_ids, config)
        result = decode.decode(
            module, params, tokens, known, options, jax.random.key(0)
        )
        codes = np.asarray(result.tokens)[:, config.layout.image_slice]
        return drawn(config.vocab.joint_to_image(codes))

    def samples(params, state):
        del state
        own, other = batch["text_ids"], batch["negative_ids"]
        whole = drawn(batch["image_ids"])
        hole = image.tokens_to_pixels(is_open, whole.shape[1:3])
        shown = [pictures.shade(x, hole) for x in whole]
        captions = ["held out; red is drawn anew"] * columns
        for text_ids in (own, other):
            shown += list(filled(params, text_ids))
            captions += [tokenizer.decode(ids) for ids in text_ids]
        return {"edits": pictures.sheet(shown, columns, captions)}

    return samples


def syntheses(
    module: PrefixLM,
    vqgan: Network,
    tokenizer: TextTokenizer,
    examples: Sequence[Mapping[str, np.ndarray]],
    rows: int = 3,
) -> Samples:
    """Pictures above, what is drawn after their texts below, `rows` times.

    Args:
      module: the Talk2Face in training.
      vqgan: draws the codes.
      tokenizer: of the text.
      examples: of a task whose target is an image, see `data.sequences.assemble`.
      rows: samples of each text.
    """
    module = PrefixLM(for_generation(module.config))
    vocab, columns = module.config.vocab, len(examples)
    tokens, segments = (
        np.stack([e[name] for e in examples]) for name in ("tokens", "segment_ids")
    )
    prefixes = np.where(segments == PREFIX, tokens, vocab.pad_id)
    prefixes = prefixes[:, : (segments == PREFIX).sum(1).max()]
    own = tokens[(segments == TARGET) & (tokens >= vocab.text_size)]
    drawn = _drawer(vqgan, module.config.grid)
    keys = jax.random.split(jax.random.key(0), (columns, rows))

    def samples(params, state):
        del state
        found = talk2face_decode.generate(
            module, params, prefixes, talk2face_decode.GenerateConfig(), keys
        )
        codes = np.asarray(found.tokens).swapaxes(0, 1).reshape(rows * columns, -1)
        shown = [*drawn(vocab.joint_to_image(own)), *drawn(vocab.joint_to_image(codes))]
        captions = [tokenizer.decode(row) for row in prefixes] + [""] * rows * columns
        return {"syntheses": pictures.sheet(shown, columns, captions)}

    return samples


def _drawer(vqgan: Network, grid: tuple[int, int]):
    """Pictures uint8 [B,S,S,3] of codes, B times h * w of them in any shape."""
    draw = jax.jit(lambda p, x: vqgan.module.apply({"params": p}, x, method="decode"))

    def drawn(image_ids):
        codes = np.asarray(image_ids).reshape(-1, *grid)
        return image.from_unit_range(np.asarray(draw(vqgan.params, codes)))

    return drawn
