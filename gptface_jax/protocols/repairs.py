"""Edits without a sentence: scratches painted over, and photographs joined."""

from __future__ import annotations

from typing import Any

import numpy as np
import tqdm

from gptface_jax.data import damage
from gptface_jax.evaluate import edits
from gptface_jax.protocols.edits import Measures

SCRATCHES, STITCHING = "scratches", "stitching"
LEAST = 4  # photographs: two pairs
_MEANINGLESS = ("kept_distance", "points_moved")  # of what half is another photograph


def judge_repairs(
    model: Any,
    photos: np.ndarray,
    measures: Measures,
    seed: int = 0,
    progress: bool = True,
) -> dict[str, dict[str, float]]:
    """Figures of repairs as users get them, of `side_effects`, by kind.

    "scratches": five are drawn into each photograph, of a 32nd of its side, and it is
    told where; inside_psnr is that of the pixels under them, in dB. "stitching":
    photographs are joined two by two, the left half of each to the other's right half.

    Args:
      model: `restore` and `stitch` of `apps.api.Model`.
      photos: uint8 [B,S,S,3], of which a multiple of `LEAST` is used.
      measures: what is measured.
      seed: of the scratches, and of the decoding.
      progress: show a bar.
    """
    # Both photographs of a pair are in the same half of what a detector is tried on.
    photos, size = photos[: len(photos) // LEAST * LEAST], photos.shape[1]
    rng, aside = np.random.default_rng(seed), measures.side_effects()
    restored, regions, joined = [], [], []
    for number, photo in enumerate(tqdm.tqdm(photos, disable=not progress)):
        scratched, mask = damage.scratched(photo, rng, max(1, size // 32))
        white, own = 255 * mask.astype(np.uint8), seed + number
        restored.append(model.restore(scratched, white, seed=own).image)
        other = photos[number ^ 1]
        joined.append(model.stitch(photo, other, seed=own).image)
        regions.append(mask)
    restored, joined, regions = map(np.stack, (restored, joined, regions))
    seam = np.broadcast_to(np.arange(size) >= size // 2, regions.shape)
    aside.add(SCRATCHES, photos, restored, regions)
    aside.add(STITCHING, photos, joined, seam, np.arange(len(photos)) // 2)
    _, kinds = aside.figures()
    psnr = edits.outside_psnr(restored, photos, ~regions)
    kinds[SCRATCHES]["inside_psnr"] = edits.mean_psnr(psnr)
    for name in _MEANINGLESS:
        kinds[STITCHING].pop(name, None)
    return kinds
