"""Can a network tell an edit by what lies along its border? (SPEC E.12)"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
import optax

from gptface_jax.data import blending
from gptface_jax.nn.seam_detector import SeamDetector
from gptface_jax.pipelines import batching

BAND = 5.0  # pixels on each side of the border
STEPS, BATCH, _PEAK = 200, 48, 2e-3


@dataclasses.dataclass(frozen=True)
class Bordered:
    """Pictures and the regions whose borders are looked at.

    Attributes:
      images: uint8 [N,S,S,3].
      regions: bool [N,S,S].
      bands: bool [N,S,S], what lies within `BAND` pixels of the border.
    """

    images: np.ndarray
    regions: np.ndarray
    bands: np.ndarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows) -> Bordered:
        return Bordered(self.images[rows], self.regions[rows], self.bands[rows])

    def channels(self) -> np.ndarray:
        """What `SeamDetector` sees, float32 [N,S,S,5]."""
        pixels = self.images / np.float32(127.5) - 1
        marks = np.stack([self.regions & self.bands, self.bands], -1)
        seen = np.where(self.bands[..., None], pixels, np.float32(0))
        return np.concatenate([seen, marks.astype(np.float32)], -1)


def bordered(images: np.ndarray, regions: np.ndarray) -> Bordered:
    """Pictures uint8 [N,S,S,3] with the bands around their regions bool [N,S,S]."""
    bands = {}
    for region in regions:
        if (key := region.tobytes()) not in bands:
            bands[key] = blending.boundary_band(region, BAND)
    return Bordered(images, regions, np.stack([bands[r.tobytes()] for r in regions]))


def joined(parts: Sequence[Bordered]) -> Bordered:
    """All of them as one, in their order."""
    names = ("images", "regions", "bands")
    return Bordered(*(np.concatenate([getattr(p, n) for p in parts]) for n in names))


def detector(
    edited: Bordered, untouched: Bordered, seed: int = 0
) -> Callable[[Bordered], np.ndarray]:
    """Scores float32 [N] by a detector that is trained here, higher for an edit.

    Args:
      edited, untouched: the same N photographs with the same regions.
      seed: of its weights, and of what it sees when.
    """
    module, optimizer = SeamDetector(), optax.adam(_PEAK)
    params = module.init(jax.random.key(seed), jnp.asarray(edited[:1].channels()))
    state, rng = optimizer.init(params), np.random.default_rng(seed)

    @jax.jit
    def step(params, state, seen, labels):
        def loss(params):
            logits = module.apply(params, seen)
            return optax.sigmoid_binary_cross_entropy(logits, labels).mean()

        updates, state = optimizer.update(jax.grad(loss)(params), state)
        return optax.apply_updates(params, updates), state

    labels = np.repeat(np.float32([1, 0]), BATCH // 2)
    for _ in range(STEPS):
        rows = rng.integers(0, len(edited), BATCH // 2)
        seen = joined([edited[rows], untouched[rows]]).channels()
        if rng.random() < 0.5:
            seen = seen[:, :, ::-1]
        params, state = step(params, state, seen, labels)
    apply = jax.jit(module.apply)

    def scores(pictures: Bordered) -> np.ndarray:
        return batching.run(
            lambda rows: apply(params, pictures[rows].channels()),
            [np.arange(len(pictures))],
            BATCH,
        )

    return scores
