"""The smallest Talk2Face: 13 words, 8 codes, a grid of 2 x 2, width 16."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import tiny
from flax import linen as nn

from gptface_jax.nn.prefix_lm import PrefixLM, PrefixLMConfig
from gptface_jax.nn.transformer import TransformerConfig

CLS, SEP, PAD = tiny.VOCAB.cls_id, tiny.VOCAB.sep_id, tiny.VOCAB.pad_id
CODES = tiny.VOCAB.text_size  # joint id of code 0


def config(**changes) -> PrefixLMConfig:
    transformer = TransformerConfig(
        num_layers=2,
        width=16,
        num_heads=2,
        mlp_width=24,
        feed_forward="dense",
        init="fan_in",
        remat="none",
        **changes.pop("transformer", {}),
    )
    options = {
        "vocab": tiny.VOCAB, "embedding_init": 0.2, "grid": (2, 2), "length": 20,
        "max_positions": 24, **changes,
    }  # fmt: skip
    return PrefixLMConfig(transformer=transformer, **options)


@functools.lru_cache
def model(seed: int = 0, **changes):
    """(module, params), with segments that say something."""
    if "transformer" in changes:
        changes["transformer"] = dict(changes["transformer"])
    module = PrefixLM(config(**changes))
    tokens = jnp.zeros((1, 4), jnp.int32)
    init = jax.jit(functools.partial(module.init, method="init_all"))
    params = nn.meta.unbox(init(jax.random.key(seed), tokens)["params"])
    if "segment" in params["tokens"]:
        rows = params["tokens"]["segment"]
        noise = jax.random.normal(jax.random.key(seed + 1), rows.shape)
        params["tokens"]["segment"] = 0.5 * noise
    return module, params


def prefixes() -> np.ndarray:
    """int32 [3,10] of different lengths, one with an image."""
    image = [CODES + c for c in (3, 0, 7, 2)]
    rows = [
        [CLS, 5, SEP, 6, 7, 8, SEP],
        [CLS, 9, SEP, *image, SEP],
        [CLS, 5, 6, SEP, 12, SEP],
    ]
    result = np.full((3, 10), PAD, np.int32)
    for row, ids in zip(result, rows):
        row[: len(ids)] = ids
    return result
