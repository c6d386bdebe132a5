"""Draws hats, glasses, earrings and what hides parts of the face."""

from __future__ import annotations

import numpy as np

from gptface_jax.data.faces.canvas import Canvas, mirror, oval, ribbon, smooth
from gptface_jax.data.faces.factors import Factors
from gptface_jax.data.faces.head import Head
from gptface_jax.data.faces.palette import CLOTH, EAR_R, EYE_G, GOLD, HAT, WHITE, hsv
from gptface_jax.data.faces.shape import Shape

_HAT_RIM = 0.058  # by which a hat is wider than half a head


class Worn:
    """Paints what is worn on the head, and occluders."""

    def __init__(
        self, canvas: Canvas, shape: Shape, factors: Factors, head: Head
    ) -> None:
        self.canvas, self.shape, self.factors, self.head = canvas, shape, factors, head

    def earrings(self) -> None:
        if not self.factors.earrings:
            return
        for sign in (-1, 1):
            x = 0.5 + sign * (self.shape.half + 0.014)
            self.canvas.paint(
                oval((x, 0.634), (0.021, 0.032)), GOLD * 0.7, number=EAR_R
            )
            self.canvas.paint(oval((x, 0.634), (0.0155, 0.026)), GOLD)
            self.canvas.paint(oval((x - 0.004, 0.62), (0.006, 0.009), 10), WHITE)

    def hat(self) -> None:
        canvas, factors, half = self.canvas, self.factors, self.shape.half
        if factors.hat == "none":
            return
        head = self.head
        tone = hsv(factors.hat_hue, 0.55, 0.28 + 0.5 * factors.cloth_value)
        dark = tone * 0.6
        wide = half + _HAT_RIM
        shade = mirror(np.array([[0.95 * half, 0.36], [0.1, 0.385]]))
        shade = np.concatenate([shade, mirror(np.array([[0.9 * half, 0.26]]))[::-1]])
        canvas.paint(shade, head.shadow, 0.5, 0.012, clip=head.face)
        dome = [[wide, 0.33], [wide + 0.004, 0.24], [wide - 0.035, 0.13]]
        dome = np.array([*dome, [0.66 * half, 0.045], [0.3 * half, 0.008]])
        dome = smooth(mirror(dome), closed=False, steps=5)
        sag = np.array([[-0.6, 0.335], [-0.2, 0.318], [0.2, 0.318], [0.6, 0.335]])
        rim = smooth(sag * [half, 1] + [0.5, 0], False, 3)
        crown = np.concatenate([dome, rim])
        canvas.paint(crown, tone, number=HAT)
        clip = canvas.layer(crown)
        away = -np.sign(head.light[0]) or 1.0
        canvas.glow((0.5 + 0.24 * away, 0.22), (0.12, 0.16), tone * 0.45, 0.8, clip)
        lit = tone * 0.6 + 0.38
        canvas.glow((0.5 - 0.13 * away, 0.12), (0.09, 0.07), lit, 0.5, clip)
        if factors.hat == "cap":
            self._cap(dark, lit, away, clip)
        elif factors.hat == "beanie":
            self._beanie(tone, dark)
        else:
            self._brim(tone, dark)

    def _cap(self, dark, lit, away: float, clip) -> None:
        """Seams and visor; the light falls from the side that `away` is not."""
        canvas, half = self.canvas, self.shape.half
        seams = [
            [[0.5 + 0.25 * x, 0.01], [0.5 + 0.9 * x, 0.12], [0.5 + x, 0.31]]
            for x in (-0.13, 0.0, 0.13)
        ]
        seams = [ribbon(smooth(seam, False, 4), 0.005) for seam in seams]
        canvas.paint(seams, dark, 0.7, clip=clip)
        visor = np.array([[0.93 * half, 0.315], [0.86 * half, 0.352], [0.15, 0.372]])
        top = np.array([[0.15, 0.285], [0.82 * half, 0.295]])
        points = np.concatenate([mirror(visor), mirror(top[::-1])[::-1]])
        points = smooth(points, steps=4)
        canvas.paint(points, dark, number=HAT)
        canvas.glow((0.5 - 0.1 * away, 0.325), (0.09, 0.018), lit, 0.4)

    def _beanie(self, tone, dark) -> None:
        """The ribbed band."""
        canvas, half = self.canvas, self.shape.half
        wide = half + _HAT_RIM
        low = np.array([[wide + 0.006, 0.345], [0.5 * half, 0.352]])
        top = np.array([[0.5 * half, 0.245], [wide + 0.008, 0.238]])
        band = np.concatenate([mirror(low), mirror(top[::-1])[::-1]])
        canvas.paint(band, tone * 0.82 + 0.1, number=HAT)
        inside = canvas.layer(band)
        ribs = [
            ribbon(np.array([[0.5 + x, 0.23], [0.5 + x, 0.36]]), 0.008)
            for x in np.linspace(-wide, wide, 19)
        ]
        canvas.paint(ribs, dark, 0.5, clip=inside)

    def _brim(self, tone, dark) -> None:
        """The band and the brim of a hat."""
        canvas, half = self.canvas, self.shape.half
        wide = half + _HAT_RIM
        band = np.array([[wide + 0.006, 0.315], [0.5 * half, 0.3]])
        top = np.array([[0.5 * half, 0.225], [wide + 0.008, 0.24]])
        band = np.concatenate([mirror(band), mirror(top[::-1])[::-1]])
        canvas.paint(band, dark * 0.55, number=HAT)
        brim = oval((0.5, 0.322), (half + 0.19, 0.042), 40)
        canvas.paint(brim, tone * 0.85, number=HAT)
        canvas.line(
            smooth(
                [
                    [0.5 - half - 0.17, 0.33],
                    [0.5, 0.352],
                    [0.5 + half + 0.17, 0.33],
                ],
                False,
                6,
            ),
            0.012,
            dark,
            0.7,
            0.003,
        )

    def glasses(self) -> None:
        factors = self.factors
        if factors.eyewear == "none" or factors.occluder == "sunglasses":
            return
        tone = factors.rim_tone
        rim = np.array([0.06, 0.05, 0.06]) if tone < 0.6 else hsv(tone * 3, 0.6, 0.35)
        if tone > 0.88:
            rim = GOLD * 0.7
        self._frames(factors.eyewear, rim, None)

    def _lens(self, style: str, centre: np.ndarray, grow: float) -> np.ndarray:
        if style == "round":
            return oval(centre, (0.079 + grow, 0.074 + grow), 28)
        angle = np.linspace(0, 2 * np.pi, 32, endpoint=False)
        cos, sin = np.cos(angle), np.sin(angle)
        box = np.stack(
            [np.sign(cos) * np.abs(cos) ** 0.45, np.sign(sin) * np.abs(sin) ** 0.45], 1
        )
        return centre + box * [0.086 + grow, 0.061 + grow]

    def _frames(self, style: str, rim: np.ndarray, glass: np.ndarray | None) -> None:
        canvas, shape = self.canvas, self.shape
        reach = 0.118 * self.factors.eye_spacing + 0.002
        centres = shape.turn(
            [[-reach, shape.eye_y + 0.006], [reach, shape.eye_y + 0.006]], 0.02
        )
        thick = 0.015
        temple = shape.eye_y - 0.015
        for sign, centre in zip((-1, 1), centres, strict=True):
            edge = centre[0] + sign * 0.085
            arm = [[edge, temple], [0.5 + sign * (shape.half + 0.004), temple + 0.005]]
            canvas.line(np.array(arm), 0.015, rim, number=EYE_G)
        x = [centres[0, 0] + 0.079, 0.5 * centres[:, 0].sum(), centres[1, 0] - 0.079]
        y = [shape.eye_y - 0.004, shape.eye_y - 0.018, shape.eye_y - 0.004]
        bridge = smooth(np.stack([x, y], axis=1), False, 4)
        canvas.line(bridge, 0.014, rim, number=EYE_G)
        for centre in centres:
            outer = self._lens(style, centre, thick / 2)
            inner = canvas.layer(self._lens(style, centre, -thick / 2))
            if glass is None:
                at = centre - [0.03, 0.028]
                canvas.glow(at, (0.03, 0.02), np.ones(3), 0.22, inner)
                canvas.paint(outer, rim, number=None, clip=1 - inner)
                part = canvas.mask(outer)
                if part is not None:
                    canvas.classes[part[0]][part[1] > 0.5] = EYE_G
            else:
                canvas.paint(outer, glass, number=EYE_G)
                at = centre - [0.025, 0.025]
                canvas.glow(at, (0.035, 0.02), glass + 0.4, 0.7, inner)

    def occluder(self) -> None:
        kind = self.factors.occluder
        if kind == "sunglasses":
            black = np.array([0.05, 0.05, 0.06])
            self._frames(
                "square" if self.factors.rim_tone < 0.5 else "round", black, black
            )
        elif kind == "surgical_mask":
            self._surgical_mask()
        elif kind == "hand":
            self._hand()

    def _surgical_mask(self) -> None:
        canvas, shape = self.canvas, self.shape
        half = shape.half
        tone = hsv(0.55, 0.22, 0.93)
        right = np.array(
            [
                [0.0, 0.568],
                [0.07, 0.578],
                [0.15, 0.612],
                [0.9 * half, 0.632],
                [0.93 * half, 0.70],
                [0.83 * half, 0.79],
                [0.58 * half, shape.chin - 0.02],
                [0.25 * half, shape.chin + 0.022],
                [0.0, shape.chin + 0.028],
            ]
        )
        for sign in (-1, 1):
            for start, end in (((0.9, 0.645), 0.50), ((0.86, 0.76), 0.62)):
                strap = np.array([[start[0] * half, start[1]], [half + 0.012, end]])
                canvas.line(strap * [sign, 1] + [0.5, 0], 0.009, WHITE * 0.95)
        whole = np.concatenate([right, (right * [-1, 1])[-2:0:-1]])
        curve = smooth(self.shape.turn(whole), steps=4)
        canvas.paint(
            curve + [0, 0.008], self.head.shadow, 0.5, 0.008, clip=self.head.face
        )
        canvas.paint(curve, tone, number=CLOTH)
        clip = canvas.layer(curve)
        dark = np.sign(self.head.light[0]) or 1.0
        canvas.glow((0.5 - 0.2 * dark, 0.75), (0.1, 0.13), tone * 0.65, 0.7, clip)
        canvas.glow((0.5 + 0.04 * dark, 0.66), (0.08, 0.06), np.ones(3), 0.5, clip)
        t = np.linspace(-1, 1, 9)
        pleats = [
            shape.turn(np.stack([0.9 * half * t, y + 0.018 * (1 - t * t)], 1))
            for y in (0.66, 0.715, 0.77, 0.825)
        ]
        pleats = [ribbon(pleat, 0.008) for pleat in pleats]
        canvas.paint(pleats, tone * 0.7, 0.7, 0.002, clip=clip)

    def _hand(self) -> None:
        canvas, head = self.canvas, self.head
        skin = np.minimum(head.skin * 1.02, 1)
        side = 1 if self.factors.hair_part > 0 else -1
        arm = np.array(
            [[0.3, 0.62], [0.36, 0.42], [0.22, 0.37], [0.14, 0.42], [0.16, 0.58]]
        )
        arm = np.concatenate(
            [arm, [[0.3, 0.72], [0.42, 1.2], [0.68, 1.2], [0.46, 0.66]]]
        )
        palm = smooth(arm * [side, 1] + [0.5, 0], steps=4)
        canvas.paint(palm + [0, 0.012], head.shadow, 0.5, 0.01, clip=head.face)
        canvas.paint(palm, skin * 0.95, number=0)
        tips = ((-0.19, 0.375), (-0.225, 0.43), (-0.22, 0.487), (-0.18, 0.54))
        for k, (x, y) in enumerate(tips):
            root = np.array([0.2, 0.415 + 0.047 * k])
            finger = np.array([[x, y], [x + 0.012, y], [x + 0.12, y - 0.004], root])
            finger = smooth(finger * [side, 1] + [0.5, 0], False, 4)
            width = np.full(len(finger), 0.064)
            width[:4] = [0.022, 0.044, 0.055, 0.06]
            canvas.line(finger + [0, 0.006], width + 0.008, head.shadow, 0.6, 0.004, 0)
            canvas.line(finger, width, skin, number=0)
            canvas.line(
                finger - [0, 0.012], 0.3 * width, np.minimum(skin * 1.15, 1), 0.5, 0.006
            )
            nail = oval((0.5 + side * (x + 0.02), y - 0.003), (0.017, 0.014), 12)
            canvas.paint(nail, skin * 0.5 + [0.45, 0.36, 0.36], 0.8)
