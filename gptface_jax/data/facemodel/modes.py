"""Identity modes of the procedural head: what differs between people, each by name."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gptface_jax.data.facemodel import head, surface
from gptface_jax.data.facemodel.parts import Part
from gptface_jax.data.faces import palette

# name: bumps of (centre, radius in mm, offset in mm by one standard deviation); those
# beside the middle are mirrored.
_BUMPS = {
    "jaw_width": [((58, -62, 30), 34, (3.6, 0, 0))],
    "chin_length": [((0, -100, 78), 26, (0, -4.0, 0))],
    "chin_protrusion": [((0, -90, 84), 24, (0, 0, 3.6))],
    "cheek_fullness": [((48, -42, 62), 27, (2.8, 0, 2.4))],
    "cheekbones": [((54, -2, 60), 19, (2.2, 0, 2.2))],
    "forehead_slope": [((0, 78, 74), 36, (0, 0, -4.0))],
    "forehead_width": [((56, 60, 44), 30, (3.0, 0, 0))],
    "brow_ridge": [((26, 36, 87), 16, (0, 0, 2.2)), ((0, 32, 90), 12, (0, 0, 1.5))],
    "brow_height": [((36, 38, 80), 15, (0, 2.2, 0))],
    "nose_length": [((0, -25, 103), 17, (0, -2.8, 0))],
    "nose_protrusion": [((0, -19, 109), 17, (0, 0, 3.0))],
    "nose_width": [((14, -26, 90), 10, (2.2, 0, 0))],
    "nose_bridge": [((0, 6, 94), 14, (0, 0, 2.4))],
    "nose_hump": [((0, -1, 99), 9, (0, 0, 1.8))],
    "nose_tip_up": [((0, -22, 108), 12, (0, 2.4, 0))],
    "eye_distance": [((33, 14, 76), 23, (1.8, 0, 0))],
    "eye_depth": [((33, 14, 76), 18, (0, 0, -1.8))],
    "mouth_width": [((26, -56, 80), 17, (2.6, 0, 0))],
    "lip_thickness": [
        ((0, -46, 95), 11, (0, 1.3, 0.7)), ((0, -67, 92), 11, (0, -1.5, 0.7)),
    ],
    "lip_protrusion": [((0, -56, 93), 20, (0, 0, 2.2))],
    "mouth_height": [((0, -56, 92), 25, (0, 2.4, 0))],
    "jaw_corner": [((63, -48, 20), 26, (0, -4.0, 0))],
    "temples": [((67, 34, 30), 20, (-2.4, 0, 0))],
    "crown": [((0, 114, 0), 50, (0, 5.0, 0))],
    "back_of_head": [((0, 50, -98), 52, (0, 0, -5.0))],
    "double_chin": [((0, -106, 50), 24, (0, -4.0, 1.0))],
    "jaw_aside": [((0, -86, 75), 38, (2.0, 0, 0))],
    "nose_aside": [((0, -16, 105), 20, (1.3, 0, 0))],
}  # fmt: skip
_HAIR = 9.0  # mm by which it stands off


def _bump(points: np.ndarray, centre, radius: float, offset) -> np.ndarray:
    total = np.zeros_like(points)
    for sign in (1, -1) if centre[0] else (1,):
        side = np.array([sign, 1, 1])
        away = np.sum((points - side * centre) ** 2, axis=1) / radius**2
        total += np.exp(-away)[:, None] * (side * offset)
    return total


def _step(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def _wide(points: np.ndarray) -> dict[str, np.ndarray]:
    """Modes of the whole head, and those about the eyes."""
    x, y, z = points.T
    zero = 0 * x
    eye = np.array([33.0, 14.0])
    near = np.exp(-((np.abs(x) - eye[0]) ** 2 + (y - eye[1]) ** 2) / 17**2) * (z > 0)
    side, up = np.sign(x) * (np.abs(x) - eye[0]), y - eye[1]
    return {
        "head_width": np.stack([0.030 * x, zero, zero], 1),
        "head_height": np.stack([zero, 0.030 * y, zero], 1),
        "head_depth": np.stack([zero, zero, 0.030 * z], 1),
        "size": 0.025 * points,
        "lower_face": np.stack([zero, -3.0 * _step((-30 - y) / 14), zero], 1),
        "forehead_height": np.stack([zero, 3.5 * _step((y - 55) / 14), zero], 1),
        "neck_width": np.stack([0.06 * x * _step((-100 - y) / 10), zero, zero], 1),
        "eye_size": np.stack([0.06 * side * near, 0.10 * up * near, zero], 1),
        "eye_tilt": np.stack([zero, 0.07 * (np.abs(x) - eye[0]) * near, zero], 1),
        "eye_narrow": np.stack([zero, -0.16 * up * near, zero], 1),
    }


def _field(name: str, points: np.ndarray) -> np.ndarray:
    if name in _BUMPS:
        return sum(_bump(points, *bump) for bump in _BUMPS[name])
    return _wide(points)[name]


def identity(
    skin: np.ndarray, regions: np.ndarray, triangles: np.ndarray, pieces: Sequence[Part]
) -> tuple[np.ndarray, tuple[str, ...]]:
    """Offsets [I,V,3] mm of the skin's and then the pieces' vertices, and their names.

    Args:
      skin: [v,3] mm.
      regions, triangles: of the skin.
      pieces: eyeballs, what is inside the mouth, and ears.
    """
    names = [*_wide(skin), *_BUMPS, "ear_size", "hair_volume"]
    hair = surface.vertex_shares(len(skin), triangles, regions == palette.HAIR)
    outward = surface.normals(skin, triangles)
    result = []
    for name in names:
        own = {"ear_size": 0 * skin, "hair_volume": 4.0 * hair[:, None] * outward}
        parts = [own[name] if name in own else _field(name, skin)]
        parts += [_moved(name, piece) for piece in pieces]
        result.append(np.concatenate(parts))
    return np.stack(result), tuple(names)


def with_hair(skin: np.ndarray) -> np.ndarray:
    """The bare head [v,3] with hair on it where `head.regions` has it."""
    outward = skin / np.linalg.norm(skin, axis=1, keepdims=True)
    thick = np.clip(head.above_hairline(skin) / 14, 0, 1)
    return skin + _HAIR * thick[:, None] * outward


def _moved(name: str, piece: Part) -> np.ndarray:
    """Offset [v,3] of a piece: whole, but for the size of ears."""
    if name == "ear_size" and piece.region in (palette.L_EAR, palette.R_EAR):
        return 0.1 * (piece.vertices - piece.centre)
    # An eye that is larger or narrower has the same ball.
    stays = name in ("eye_size", "eye_tilt", "eye_narrow", "ear_size", "hair_volume")
    middle = piece.vertices.mean(0) if piece.centre is None else piece.centre
    shift = 0 * middle[None] if stays else _field(name, middle[None])
    return np.repeat(shift, len(piece.vertices), 0)
