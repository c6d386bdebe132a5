"""Rendered faces of a morphable model, every label exact: data without downloads."""

from gptface_jax.data.rendered.head import ATTRIBUTES
from gptface_jax.data.rendered.source import RenderedFaces

__all__ = ["ATTRIBUTES", "RenderedFaces"]
