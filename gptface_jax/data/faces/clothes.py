"""Draws shoulders with clothes, collar, tie and necklace."""

from __future__ import annotations

import numpy as np

from gptface_jax.data.faces.canvas import Canvas, mirror, oval, ribbon, smooth
from gptface_jax.data.faces.factors import Factors
from gptface_jax.data.faces.head import Head
from gptface_jax.data.faces.palette import CLOTH, GOLD, NECK_L, WHITE, hsv


class Clothes:
    """Paints what is below the neck."""

    def __init__(self, canvas: Canvas, factors: Factors, head: Head) -> None:
        self.canvas, self.factors, self.head = canvas, factors, head

    def draw(self) -> None:
        canvas, factors, head = self.canvas, self.factors, self.head
        cloth = hsv(factors.cloth_hue, 0.5, factors.cloth_value)
        deep = {"blouse": 1.03, "tshirt": 0.985}.get(factors.clothing, 1.0)
        wide = 0.165 if factors.male else 0.145
        right = [[0.0, deep], [0.075, deep - 0.02], [wide - 0.02, 0.935]]
        right += [[wide + 0.02, 0.925], [0.32, 0.955], [0.47, 1.0], [0.56, 1.08]]
        right += [[0.6, 1.3]]
        if factors.clothing == "suit":
            cloth = hsv(factors.cloth_hue, 0.25, 0.12 + 0.2 * factors.cloth_value)
        body = mirror(np.array(right)[::-1])
        canvas.paint(body, cloth, number=CLOTH)
        side = 0.3 if head.light[0] < 0 else -0.3
        clip = canvas.layer(body)
        canvas.glow((0.5 + side, 1.05), (0.13, 0.09), cloth * 0.5, 0.7, clip)
        canvas.glow((0.5 - side, 1.0), (0.1, 0.05), cloth * 0.6 + 0.35, 0.35, clip)
        if factors.clothing in ("shirt", "suit"):
            self._collar(cloth)
        else:
            neckline = smooth(mirror(np.array(right[:3])[::-1]), False, 3)
            canvas.line(neckline, 0.014, cloth * 0.75, 0.9, number=CLOTH)
        if factors.necktie:
            self._necktie()
        if factors.necklace:
            t = np.linspace(-1, 1, 15)
            curve = np.stack([0.5 + 0.125 * t, 0.985 - 0.07 * t * t], axis=1)
            canvas.line(curve + [0, 0.006], 0.016, head.shadow, 0.5, 0.004)
            canvas.line(curve, 0.013, GOLD * 0.75, number=NECK_L)
            canvas.paint([oval(bead, (0.0095, 0.0095), 8) for bead in curve], GOLD)
            drop = oval(curve[7] + [0, 0.02], (0.02, 0.022), 12)
            canvas.paint(drop, GOLD, number=NECK_L)

    def _collar(self, cloth: np.ndarray) -> None:
        canvas, factors = self.canvas, self.factors
        suit = factors.clothing == "suit"
        shirt = WHITE * 0.95 if suit else np.minimum(cloth * 1.15 + 0.08, 1)
        if suit:
            chest = mirror(np.array([[0.135, 0.92], [0.1, 1.0], [0.02, 1.2]]))
            canvas.paint(chest, shirt, number=CLOTH)
            lapel = np.array(
                [[0.155, 0.925], [0.10, 0.985], [0.125, 1.03], [0.06, 1.2]]
            )
            for sign in (-1, 1):
                line = lapel * [sign, 1] + [0.5, 0]
                canvas.line(line, 0.008, cloth * 0.45, 0.9)
        for sign in (-1, 1):
            wing = np.array(
                [[0.148, 0.895], [0.158, 0.945], [0.085, 1.01], [0.0, 0.975]]
            )
            wing = wing * [sign, 1] + [0.5, 0]
            canvas.paint(wing, shirt, number=CLOTH)
            canvas.line(wing[1:], 0.006, shirt * 0.6, 0.8, 0.002)

    def _necktie(self) -> None:
        canvas = self.canvas
        hue = self.factors.hat_hue
        tone = hsv(hue, 0.78, 0.55)
        blade = mirror(np.array([[0.03, 0.99], [0.07, 1.2]]))
        canvas.paint(blade, tone, number=CLOTH)
        stripes = [
            ribbon(np.array([[0.45, y + 0.025], [0.55, y - 0.025]]), 0.012)
            for y in (1.02, 1.06, 1.10)
        ]
        canvas.paint(stripes, tone * 0.5 + 0.4, 0.8, clip=canvas.layer(blade))
        knot = mirror(np.array([[0.044, 0.945], [0.03, 0.995]]))
        canvas.paint(knot, tone * 0.85, number=CLOTH)
