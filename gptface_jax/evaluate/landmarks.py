"""How far the 68 points of a face move: through a tokenizer, or beside an edit."""

from __future__ import annotations

import numpy as np

from gptface_jax.ops.face_map import BROWS, EYES, MOUTH, centres

PARTS = {"eyes": EYES, "mouth": MOUTH, "brows": BROWS, "all": slice(None)}


def landmark_errors(before: np.ndarray, after: np.ndarray) -> dict[str, np.ndarray]:
    """Mean distances of the points of each part, as shares of that between the eyes.

    Args:
      before, after: [B,68,2] iBUG points of the photographs and of their
        reconstructions, in the same pixels; NaN where no face was found.

    Returns:
      {"eyes", "mouth", "brows", "all"} -> float64 [B], NaN where one has no face.
    """
    moved = _moved(before, after)
    return {name: moved[:, part].mean(axis=1) for name, part in PARTS.items()}


def landmark_figures(before: np.ndarray, after: np.ndarray) -> dict[str, float]:
    """Figures of `landmark_errors` over pictures [N,68,2].

    Returns:
      landmark_error/PART: mean over the pictures with a face before and after, left out
      without any; faces_before, faces_after: shares of the pictures with a face.
    """
    found = [~np.isnan(x).any(axis=(1, 2)) for x in (before, after)]
    both = found[0] & found[1]
    figures = {"faces_before": float(found[0].mean())}
    figures["faces_after"] = float(found[1].mean())
    if both.any():
        errors = landmark_errors(before[both], after[both])
        figures |= {f"landmark_error/{k}": float(v.mean()) for k, v in errors.items()}
    return figures


def moved_outside(
    before: np.ndarray, after: np.ndarray, regions: np.ndarray
) -> np.ndarray:
    """Mean distances that points outside regions move, as shares of that of the eyes.

    Args:
      before, after: [B,68,2] as of `landmark_errors`; NaN where no face was found.
      regions: bool [B,H,W], in whose pixels the points are.

    Returns:
      float64 [B], NaN where one has no face, or all points lie in the region.
    """
    moved = _moved(before, after)
    height, width = regions.shape[1:]
    column, row = np.floor(np.nan_to_num(before)).astype(int).transpose(2, 0, 1)
    beyond = (column < 0) | (column >= width) | (row < 0) | (row >= height)
    place = row.clip(0, height - 1), column.clip(0, width - 1)
    outside = beyond | ~regions[np.arange(len(regions))[:, None], *place]
    with np.errstate(invalid="ignore"):
        return np.sum(moved * outside, axis=1) / outside.sum(axis=1)


def _moved(before: np.ndarray, after: np.ndarray) -> np.ndarray:
    """How far each point moves, as a share of the distance of the eyes; [B,68]."""
    before, after = np.asarray(before, np.float64), np.asarray(after, np.float64)
    left, right, _ = centres(before)
    apart = np.linalg.norm(right - left, axis=-1)
    return np.linalg.norm(after - before, axis=-1) / apart[:, None]
