"""Draws what grows: hair, fringe, beard and mustache."""

from __future__ import annotations

import numpy as np

from gptface_jax.data.faces import palette
from gptface_jax.data.faces.canvas import Canvas, mirror, smooth
from gptface_jax.data.faces.factors import Factors
from gptface_jax.data.faces.head import Head
from gptface_jax.data.faces.shape import Shape


def _wavy(curve: np.ndarray, height: float, length: float) -> np.ndarray:
    """Lays waves of the given height and length on a curve."""
    along = np.gradient(curve, axis=0)
    step = np.hypot(along[:, 0], along[:, 1])
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / (step[:, None] + 1e-9)
    phase = np.cumsum(step) * (2 * np.pi / length)
    return curve + normal * (height * np.sin(phase))[:, None]


class Hair:
    """Paints the hair of one face."""

    def __init__(
        self, canvas: Canvas, shape: Shape, factors: Factors, head: Head
    ) -> None:
        self.canvas, self.shape, self.factors, self.head = canvas, shape, factors, head
        self._table = np.random.default_rng([factors.noise_seed, 1]).random(
            256, np.float32
        )
        texture = factors.hair_texture
        self._contrast = {"straight": 0.2, "wavy": 0.3, "coiled": 0.17}[texture]
        self._hair_strands: np.ndarray | None = None

    def _strands(self) -> np.ndarray:
        """Light and dark along the hair of the head, -1..1: float32 [S,S]."""
        if self._hair_strands is None:
            factors = self.factors
            if factors.hair_texture == "coiled":
                self._hair_strands = self._coils()
            else:
                crown = 0.5 + 0.07 * factors.hair_part
                wavy = factors.hair_texture == "wavy"
                self._hair_strands = self._rays(crown, wavy)
        return self._hair_strands

    def _rays(self, crown: float, wavy: bool) -> np.ndarray:
        """Strands that run out from the crown, straight or in waves."""
        canvas, table = self.canvas, self._table
        x = canvas.x - np.float32(crown)
        y = canvas.y - np.float32(0.1)
        around = np.arctan2(x, y + np.float32(0.02))
        if wavy:
            far = np.sqrt(x * x + y * y)
            around += np.float32(0.075) * np.sin(far * 46 + 2 * around)
        at = around * np.float32(15) + np.float32(60)
        value = np.full_like(at, -1)
        for rate, start in ((1.0, 0), (2.6, 91)):
            spot = at * np.float32(rate)
            low = spot.astype(np.int32)
            part = spot - low
            value += table[(low + start) & 255] * (1 - part)
            value += table[(low + start + 1) & 255] * part
        return value

    def _coils(self) -> np.ndarray:
        """Small tight curls all over."""
        x, y = self.canvas.x, self.canvas.y
        first, second = 6 * self._table[:2]
        rows = np.sin(y * 135 + 2.4 * np.sin(x * 61 + first))
        return rows * np.sin(x * 142 + 2.4 * np.sin(y * 67 + second))

    def _grow(
        self,
        points: np.ndarray,
        colour: np.ndarray,
        alpha: float = 1.0,
        blur: float = 0.003,
        number: int | None = palette.HAIR,
        clip: np.ndarray | None = None,
        dim: float = 1.0,
        strands: np.ndarray | None = None,
    ) -> None:
        """Fills a polygon with hair: strands, side light and a sheen."""
        canvas = self.canvas
        part = canvas.mask(points, blur)
        if part is None:
            return
        box, cover = part
        if clip is not None:
            cover = cover * clip[box]
        light, power = self.head.light, self.head.power
        u = (canvas.x[box] - np.float32(0.5)) * np.float32(3)
        v = (canvas.y[box] - np.float32(0.35)) * np.float32(2.4)
        level = 0.95 + np.float32(0.22 * power * light[0]) * u
        level += np.float32(0.16 * light[1]) * np.clip(v, -1, 1)
        sheen = np.exp(-((np.hypot(u - 0.5 * light[0], v) - 0.72) ** 2) * 22)
        contrast = np.float32(self._contrast if strands is None else 0.22)
        strand = (self._strands() if strands is None else strands)[box]
        level = np.clip(level + contrast * strand, 0.3, 1.7) * np.float32(dim)
        tone = level[..., None] * colour.astype(np.float32)
        shine = (sheen * (0.10 + 0.06 * strand) * dim)[..., None]
        canvas.blend(box, cover * np.float32(alpha), tone + shine)
        if number is not None:
            canvas.classes[box][cover > 0.5] = number

    def _hair_colour(self) -> np.ndarray:
        return palette.HAIR_COLOURS[self.factors.hair_colour]

    def _edge(self, curve: np.ndarray) -> np.ndarray:
        """The curve with the waves or coils of this hair."""
        texture = self.factors.hair_texture
        if texture == "wavy":
            return _wavy(curve, 0.013, 0.085)
        if texture == "coiled":
            return _wavy(smooth(curve, closed=False, steps=4), 0.006, 0.032)
        return curve

    def behind(self) -> None:
        factors = self.factors
        if factors.hair_style not in ("medium", "long"):
            return
        half = self.shape.half
        end = 0.86 if factors.hair_style == "medium" else 1.15
        wide = half + (0.04 if factors.hair_texture == "straight" else 0.055)
        right = [[0.0, end], [0.7 * half, end], [wide, end - 0.03], [wide + 0.012, 0.7]]
        right += [[wide + 0.005, 0.5], [wide, 0.3], [0.6 * half, 0.12]]
        curve = smooth(mirror(right), steps=4)
        self._grow(self._edge(curve), self._hair_colour(), dim=0.62)

    def front(self) -> None:
        factors, half = self.factors, self.shape.half
        if factors.hair_style == "bald":
            return
        colour = self._hair_colour()
        lush = 0.0 if factors.hair_style == "short" else 0.018
        lush += {"straight": 0.0, "wavy": 0.012, "coiled": 0.022}[factors.hair_texture]
        bottom = 0.50 if factors.hair_style == "short" else 0.46
        back = 0.035 if factors.male and factors.age > 50 else 0.0
        outer = [
            [half + 0.010, bottom],
            [half + 0.026 + lush, 0.42],
            [half + 0.028 + lush, 0.32],
            [half - 0.005 + lush, 0.205],
            [0.72 * half, 0.118 - lush],
            [0.36 * half, 0.078 - lush],
        ]
        outer = smooth(mirror(outer), closed=False, steps=5)
        part = 0.30 * factors.hair_part
        line = np.array([0.97, 0.95, 0.90, 0.78, 0.55, 0.22, -0.22, -0.55, -0.78])
        line = np.concatenate([line, [-0.90, -0.95, -0.97]])
        down = np.array([bottom, 0.43, 0.355, 0.285, 0.243, 0.225])
        down = down - back * np.array([0, 0, 0.6, 1.2, 0.9, 0.2])
        down = np.concatenate([down, down[::-1]])
        swoop = 0.05 * np.maximum(1 - ((line - part) / 0.5) ** 2, 0)
        down = down - swoop
        inner = np.stack([0.5 + half * line, down], axis=1)
        inner = smooth(inner[::-1], closed=False, steps=4)
        # The outer curve runs from the right ear over the top to the left one.
        self._shadow_below(inner)
        self._grow(np.concatenate([self._edge(outer), inner]), colour)
        if factors.hair_style != "short":
            self._locks(colour)
        if factors.bangs:
            self._fringe(colour)

    def _shadow_below(self, curve: np.ndarray) -> None:
        head = self.head
        self.canvas.line(
            curve + [0, 0.012], 0.03, head.shadow, 0.4, 0.008, clip=head.face
        )

    def _locks(self, colour: np.ndarray) -> None:
        """The hair that falls beside the face."""
        factors, half = self.factors, self.shape.half
        end = 0.84 if factors.hair_style == "medium" else 1.12
        wide = half + (0.042 if factors.hair_texture == "straight" else 0.06)
        for sign in (-1, 1):
            points = np.array(
                [
                    [half - 0.06, 0.25],
                    [wide - 0.01, 0.26],
                    [wide + 0.005, 0.45],
                    [wide + 0.014, 0.65],
                    [wide + 0.004, end - 0.03],
                    [half + 0.005, end],
                    [half - 0.022, end - 0.08],
                    [half - 0.008, 0.66],
                    [half - 0.016, 0.5],
                    [half - 0.045, 0.36],
                ]
            )
            curve = smooth(points * [sign, 1] + [0.5, 0], steps=5)
            self._grow(self._edge(curve), colour)

    def _fringe(self, colour: np.ndarray) -> None:
        half = self.shape.half
        count = 15
        t = np.linspace(-1, 1, count)
        teeth = np.where(np.arange(count) % 2, 0.016, -0.006)
        teeth = teeth + 0.012 * (self._table[:count] - 0.5)
        low = 0.366 + teeth - 0.02 * np.abs(t) ** 3
        below = np.stack([0.5 + 0.9 * half * t, low], axis=1)
        t = np.linspace(1, -1, 7)
        above = np.stack([0.5 + 0.86 * half * t, 0.165 + 0.07 * t * t], axis=1)
        self._shadow_below(below)
        self._grow(np.concatenate([below, above]), colour)

    def beard(self) -> None:
        canvas, shape, factors = self.canvas, self.shape, self.factors
        colour = palette.BROW_COLOURS[factors.brow_colour] * 0.9
        if factors.beard == "none" and not factors.mustache:
            return
        strands = self._rays(0.5, False)
        t = np.linspace(-1, 1, 17)
        lips = np.concatenate([shape.lip(t, "top"), shape.lip(-t, "bottom")])
        free = 1 - canvas.layer(lips)

        def grow(curve: np.ndarray, blur: float, clip: np.ndarray | None) -> None:
            self._grow(curve, colour, 0.92, blur, None, clip, strands=strands)

        under = shape.lip([0.0], "bottom")[0, 1] - 0.001
        mouth, half = shape.mouth_half, shape.half
        if factors.beard == "full":
            inner = [[0.93, 0.50], [0.86, 0.58], [0.72, 0.665]]
            inner = np.array(inner) * [half, 1]
            rest = [[mouth + 0.035, shape.mouth_y - 0.012]]
            rest += [[mouth + 0.012, shape.mouth_y + 0.02], [0.05, under + 0.014]]
            inner = np.concatenate([inner, rest])
            inner = shape.turn(np.concatenate([(inner * [-1, 1]), inner[::-1]]))
            inner = smooth(inner, closed=False, steps=3)
            jaw = (shape.jaw - [0.5, 0.56]) * [1.012, 1.055] + [0.5, 0.56]
            outline = np.concatenate([inner, jaw[15:0:-1]])
            grow(outline, 0.007, free)
        elif factors.beard == "goatee":
            low = shape.chin + 0.022
            right = [[0.0, low], [0.07, low - 0.012], [0.094, shape.chin - 0.06]]
            right += [[0.062, under + 0.022], [0.022, under + 0.006]]
            curve = smooth(self.shape.turn(mirror(right) - [0.5, 0]), steps=4)
            grow(curve, 0.006, free)
        if factors.mustache:
            lip = shape.lip(t, "top")
            middle = 0.75 * (lip[8, 1] - shape.base - 0.008)
            rise = middle * (1 - np.abs(t) ** 1.8) + 0.006
            rise = rise - 0.007 * np.exp(-((t / 0.08) ** 2))
            top = lip + np.stack([0.012 * t, -rise], axis=1)
            fall = 0.012 * np.abs(t) ** 3
            bottom = lip + np.stack([0.012 * t, 0.005 + fall], axis=1)
            grow(np.concatenate([top, bottom[::-1]]), 0.004, None)
