"""How near 3D faces are to the truth (SPEC D.7); arrays in, one number a face out.

Shapes: V vertices, P landmarks, N faces. Lengths are millimetres in space and pixels in
pictures.
"""

from __future__ import annotations

import numpy as np

# iBUG points: outer corners of the eyes.
_OUTER = (36, 45)


def vertex_error(vertices: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Mean distance [N] mm of vertices [N,V,3] on one topology, where they lie."""
    return np.linalg.norm(vertices - truth, axis=-1).mean(-1)


def aligned(vertices: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Vertices [V,3] turned and shifted to lie nearest to others [V,3].

    In the sense of least squares (Umeyama 1991); mirrors are no rotations. Nothing is
    scaled: how large a head is, is a part of its shape.
    """
    middle, wanted = vertices.mean(0), truth.mean(0)
    a, b = vertices - middle, truth - wanted
    u, _, v = np.linalg.svd(b.T @ a)
    signs = np.array([1, 1, np.sign(np.linalg.det(u @ v))])
    turn = u * signs @ v
    return a @ turn.T + wanted


def aligned_vertex_error(vertices: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """`vertex_error` [N] mm after each head was brought to the other; see `aligned`."""
    moved = np.stack([aligned(v, t) for v, t in zip(vertices, truth)])
    return vertex_error(moved, truth)


def nme(
    landmarks: np.ndarray, truth: np.ndarray, outer: tuple[int, int] = _OUTER
) -> np.ndarray:
    """Mean distance of points [N,P,2] by that of the outer corners of the eyes, [N].

    Points whose truth is NaN do not count.
    """
    far = np.linalg.norm(truth[:, outer[0]] - truth[:, outer[1]], axis=-1)
    away = np.linalg.norm(landmarks - truth, axis=-1)
    return np.nanmean(away, axis=-1) / far


def correlation(coeffs: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Pearson correlation [C] of each coefficient over faces [N,C].

    NaN where a coefficient is the same for all, as those of a mean head are.
    """
    a, b = coeffs - coeffs.mean(0), truth - truth.mean(0)
    spread = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(spread > 1e-12, (a * b).sum(0) / spread, np.nan)


def pose_degrees(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Angle [N] in degrees between rotation matrices [N,3,3]."""
    trace = np.einsum("nij,nij->n", one, other)
    return np.degrees(np.arccos(np.clip((trace - 1) / 2, -1, 1)))


def masked_psnr(image: np.ndarray, truth: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """PSNR [N] in dB of pictures [N,S,S,3] in 0..1 where a mask bool [N,S,S] is.

    At most 100 dB, that of equal pictures; NaN for a mask that is empty.
    """
    square = ((image - truth) ** 2).mean(-1)
    count = mask.sum((1, 2))
    with np.errstate(invalid="ignore", divide="ignore"):
        error = np.where(mask, square, 0).sum((1, 2)) / count
    return -10 * np.log10(np.maximum(error, 1e-10))


def light_direction(light: np.ndarray) -> np.ndarray:
    """Where lights [N,9,3] come from, [N,3] of length 1, by their first band."""
    way = light.mean(-1)[:, [3, 1, 2]]
    return way / np.maximum(np.linalg.norm(way, axis=-1, keepdims=True), 1e-12)


def light_cosine(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cosine [N] between the directions of lights [N,9,3]."""
    return (light_direction(one) * light_direction(other)).sum(-1)


def coverage(mean: np.ndarray, std: np.ndarray, truth: np.ndarray, share: float = 0.8):
    """Share [N] of coefficients [N,C] within the central interval of that probability.

    Of a Gaussian of this mean and standard deviation; a calibrated one has `share`.
    """
    from scipy.special import ndtri

    reach = ndtri((1 + share) / 2)
    return (np.abs(truth - mean) <= reach * std).mean(-1)
