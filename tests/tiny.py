"""The smallest GPTFace: 13 words, 8 codes, a grid of 3 x 4, 5 text slots, width 16."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gptface_jax.core.vocab import JointVocab
from gptface_jax.nn.sequence import SequenceLayout
from gptface_jax.nn.transformer import TransformerConfig
from gptface_jax.systems.gptface.model import GPTFace, GPTFaceConfig, assemble

VOCAB = JointVocab(
    text_size=13,
    codebook_size=8,
    pad_id=0,
    unk_id=1,
    cls_id=2,
    sep_id=3,
    mask_id=4,
    multiple_of=8,
)
LAYOUT = SequenceLayout(grid=(3, 4), max_text_tokens=5)


def config(**changes) -> GPTFaceConfig:
    transformer = TransformerConfig(
        num_layers=2,
        width=16,
        num_heads=2,
        mlp_width=24,
        init="fan_in",
        remat="none",
        **changes.pop("transformer", {}),
    )
    options = {"match_token": True, "embedding_init": 0.3, **changes}
    return GPTFaceConfig(
        transformer=transformer, vocab=VOCAB, layout=LAYOUT, max_positions=20, **options
    )


@functools.lru_cache
def model(seed: int = 0, **changes):
    """(module, params)."""
    module = GPTFace(config(**changes))
    tokens = jnp.zeros((1, LAYOUT.length), jnp.int32)
    init = jax.jit(functools.partial(module.init, method="init_all"))
    params = init(jax.random.key(seed), tokens)["params"]
    return module, nn.meta.unbox(params)


def batch(size: int = 4, seed: int = 0) -> dict[str, np.ndarray]:
    """Random codes, texts of 1 to 5 words and other texts."""
    rng = np.random.default_rng(seed)
    words = rng.integers(5, 13, (2, size, 5))
    length = rng.integers(1, 6, (2, size, 1))
    texts = np.where(np.arange(5) < length, words, VOCAB.pad_id)
    return {
        "image_ids": rng.integers(0, 8, (size, 12)).astype(np.int32),
        "text_ids": texts[0].astype(np.int32),
        "negative_ids": texts[1].astype(np.int32),
        "word_ids": texts[0].astype(np.int32),
    }


def tokens(size: int = 4, seed: int = 0) -> jax.Array:
    """int32 [B,19] joint ids."""
    data = batch(size, seed)
    return assemble(data["image_ids"], data["text_ids"], config())


def known_mask(size: int, open_cells, side: str = "image") -> np.ndarray:
    """bool [B,19], False at the given positions of one side."""
    known = np.ones((size, LAYOUT.length), bool)
    where = LAYOUT.image_slice if side == "image" else LAYOUT.text_slice
    known[:, np.arange(where.start, where.stop)[list(open_cells)]] = False
    return known
