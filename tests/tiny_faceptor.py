"""A tiny Faceptor with random weights, of all six families, for tests."""

import jax
import numpy as np

from gptface_jax.core.config import to_mapping
from gptface_jax.experiments import opening
from gptface_jax.interop import directory
from gptface_jax.nn.perception import PerceptionConfig, TaskConfig
from gptface_jax.nn.query_decoder import QueryDecoderConfig
from gptface_jax.nn.transformer import TransformerConfig
from gptface_jax.nn.vit import CLIP, ViTConfig

LAYERS = TransformerConfig(num_layers=2, width=16, num_heads=2, mlp_width=24, **CLIP)
CONFIG = PerceptionConfig(
    vit=ViTConfig(LAYERS, patch=8, grid=4, output_width=0),
    decoder=QueryDecoderConfig(16, 1, 2, 24, levels=(1,), new_levels=(0,)),
    tasks=(
        TaskConfig("align_drawn"),
        TaskConfig("parsing_drawn"),
        TaskConfig("age_drawn"),
        TaskConfig("affect_drawn"),
        TaskConfig("affect_faces"),
        TaskConfig("biattr_drawn"),
        TaskConfig("recog_drawn", identities=4),
    ),
    pixels="unit",
    source_level=1,
    embedding_width=8,
    attribute_resolution=32,
    dense_resolution=32,
)


def write(path) -> None:
    """Writes a model directory."""
    shapes = opening.expected_shapes("faceptor", CONFIG, state=True)
    assert "batch_stats" in shapes
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: rng.normal(0, 0.3, x.shape).astype(np.float32), shapes
    )
    known = {"faceptor": to_mapping(CONFIG)}
    directory.write(path, known, {"faceptor": params}, {}, "float32")
