"""Parsing classes and colours of the drawn faces."""

from __future__ import annotations

import colorsys

import numpy as np

from gptface_jax.data.faces.factors import Factors

# CelebAMask-HQ; l_ and r_ are the picture's left and right.
SKIN, L_BROW, R_BROW, L_EYE, R_EYE, EYE_G, L_EAR, R_EAR, EAR_R = range(1, 10)
NOSE, MOUTH, U_LIP, L_LIP, NECK, NECK_L, CLOTH, HAIR, HAT = range(10, 19)

_SKIN_STOPS = np.array(
    [
        [0.975, 0.865, 0.815],
        [0.925, 0.755, 0.655],
        [0.80, 0.60, 0.465],
        [0.60, 0.41, 0.295],
        [0.385, 0.255, 0.185],
    ]
)
HAIR_COLOURS = {
    "black": np.array([0.085, 0.07, 0.07]),
    "brown": np.array([0.34, 0.20, 0.11]),
    "blond": np.array([0.86, 0.69, 0.38]),
    "gray": np.array([0.70, 0.70, 0.71]),
    "red": np.array([0.60, 0.23, 0.09]),
}
# Brows and beards; blond ones are darker than blond hair.
BROW_COLOURS = HAIR_COLOURS | {"blond": np.array([0.60, 0.43, 0.21])}
EYE_COLOURS = {
    "brown": np.array([0.27, 0.15, 0.08]),
    "hazel": np.array([0.43, 0.31, 0.14]),
    "green": np.array([0.28, 0.42, 0.26]),
    "blue": np.array([0.26, 0.44, 0.64]),
}
GOLD = np.array([0.93, 0.76, 0.33])
WHITE = np.array([0.95, 0.95, 0.96])
DARK = np.array([0.05, 0.035, 0.035])


def skin_colour(factors: Factors) -> np.ndarray:
    """Albedo [3] of the skin."""
    at = np.clip(factors.skin, 0, 1) * 4
    low = min(int(at), 3)
    colour = _SKIN_STOPS[low] + (at - low) * (_SKIN_STOPS[low + 1] - _SKIN_STOPS[low])
    warm = (factors.undertone - 0.5) * 0.05
    return np.clip(colour + [0.3 * warm, 0.2 * warm, -warm], 0, 1)


def hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    """Colour [3] of a hue (any number, period 1), saturation and value in 0..1."""
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))
