"""Drawn pictures of no face: what a tokenizer learns of edges and textures alone.

Dead leaves (Lee, Mumford and Huang 2001; Baradad et al. 2021): shapes of many
sizes cover one another, each with a colour, a shading and a texture of its own. They
share the statistics of edges with photographs and show nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data.record import Record

_LEAVES = 60
_SMALLEST, _LARGEST = 0.05, 0.6  # radius, in sides of the picture


class Textures(Sequence):
    """`count` pictures as records without text or labels, made when asked for.

    Args:
      size: side of the pictures in pixels.
      count: number of records.
      seed: seed of the collection.

    Raises:
      UserError: a size below 8 or a negative count.
    """

    def __init__(self, size: int = 64, count: int = 10000, seed: int = 0) -> None:
        if size < 8 or count < 0:
            raise UserError(
                f"textures of size {size}, count {count}: size must be 8 or more, "
                "count must not be negative"
            )
        self.size, self.count, self.seed = size, count, seed

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Record:
        number = range(self.count)[index]
        rng = np.random.default_rng([self.seed, number])
        return Record(image=draw(self.size, rng), source="textures")


def draw(size: int, rng: np.random.Generator) -> np.ndarray:
    """One picture, uint8 [size,size,3]."""
    y, x = np.mgrid[:size, :size].astype(np.float32) / size
    picture = np.broadcast_to(_colour(rng), (size, size, 3)).astype(np.float32)
    # Many more small ones than large ones: radii of density 1/r.
    for radius in _SMALLEST * (_LARGEST / _SMALLEST) ** rng.random(_LEAVES):
        u, v = _local(x, y, rng, radius)
        alpha = np.clip((1 - _shape(u, v, rng)) * radius * size + 0.5, 0, 1)[..., None]
        picture = picture * (1 - alpha) + alpha * _surface(u, v, rng)
    return np.clip(np.round(picture * 255), 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """A brightness with a little hue, as most things have; float [3] in 0..1."""
    return np.clip(rng.random() + rng.normal(0, 0.1, 3), 0, 1)


def _local(x, y, rng, radius: float):
    """Coordinates about a random centre, turned, and 1 at the radius."""
    cx, cy, angle = *rng.uniform(-0.1, 1.1, 2), rng.uniform(0, 2 * np.pi)
    c, s, stretch = np.cos(angle), np.sin(angle), rng.uniform(0.5, 1.0)
    dx, dy = (x - cx) / radius, (y - cy) / radius
    return c * dx + s * dy, (c * dy - s * dx) / stretch


def _shape(u, v, rng) -> np.ndarray:
    """1 on the border of an ellipse, a rectangle or a triangle, less inside."""
    kind = rng.integers(3)
    if kind == 0:
        return np.hypot(u, v)
    if kind == 1:
        return np.maximum(abs(u), abs(v))
    return np.maximum(np.maximum(-v * 2, v + 1.7 * u), v - 1.7 * u)


def _surface(u, v, rng) -> np.ndarray:
    """Colour, shading and stripes or grain of one leaf: float [S,S,3]."""
    shade = 1 + rng.uniform(-0.35, 0.35) * u + rng.uniform(-0.35, 0.35) * v
    kind, strength = rng.integers(3), rng.uniform(0.1, 0.5)
    if kind == 1:
        angle, waves = rng.uniform(0, np.pi), rng.uniform(2, 12)
        shade = shade + strength * np.sin(
            waves * (np.cos(angle) * u + np.sin(angle) * v)
        )
    elif kind == 2:
        shade = shade + strength * 0.5 * rng.normal(size=u.shape)
    return _colour(rng) * shade[..., None].astype(np.float32)
