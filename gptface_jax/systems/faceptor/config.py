"""Configs of Faceptor; those of the network live where the network does."""

from __future__ import annotations

from gptface_jax.nn.perception import PerceptionConfig, TaskConfig
from gptface_jax.nn.query_decoder import QueryDecoderConfig
from gptface_jax.nn.sequence_encoder import SequenceEncoderConfig
from gptface_jax.nn.vit import CLIP, ViTConfig

__all__ = [
    "CLIP",
    "PerceptionConfig",
    "QueryDecoderConfig",
    "SequenceEncoderConfig",
    "TaskConfig",
    "ViTConfig",
]
