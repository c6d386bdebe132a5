"""Draws what is worn and what grows: hair, beard, clothes, glasses, hats, occluders."""

from __future__ import annotations

import colorsys
import math

import numpy as np
from PIL import Image

from gptface_jax.data.faces import head as parts
from gptface_jax.data.faces.canvas import Canvas, oval, smooth
from gptface_jax.data.faces.factors import Factors
from gptface_jax.data.faces.shape import Shape

_GOLD = np.array([0.93, 0.76, 0.33])
_WHITE = np.array([0.95, 0.95, 0.96])


def _hsv(hue: float, saturation: float, value: float) -> np.ndarray:
    return np.array(colorsys.hsv_to_rgb(hue % 1.0, saturation, value))


def _mirror(right: np.ndarray) -> np.ndarray:
    """Right half (from one end to the middle or back) -> the whole, around x 0.5."""
    right = np.asarray(right, np.float64)
    return np.concatenate([right, (right * [-1, 1])[::-1]]) + [0.5, 0]


def _wavy(curve: np.ndarray, height: float, length: float) -> np.ndarray:
    """Lays waves of the given height and length on a curve."""
    along = np.gradient(curve, axis=0)
    step = np.hypot(along[:, 0], along[:, 1])
    normal = np.stack([-along[:, 1], along[:, 0]], axis=1) / (step[:, None] + 1e-9)
    phase = np.cumsum(step) * (2 * np.pi / length)
    return curve + normal * (height * np.sin(phase))[:, None]


class Outfit:
    """Paints everything that is not the bare head."""

    def __init__(
        self, canvas: Canvas, shape: Shape, factors: Factors, head: parts.Head
    ) -> None:
        self.canvas, self.shape, self.factors, self.head = canvas, shape, factors, head
        self._table = np.random.default_rng([factors.noise_seed, 1]).random(
            256, np.float32
        )
        self._strand: np.ndarray | None = None

    # Background and noise.

    def background(self) -> None:
        canvas, factors = self.canvas, self.factors
        rng = np.random.default_rng([factors.noise_seed, 2])
        hue, value = factors.background_hue, factors.background_value
        first = _hsv(hue, 0.08 + 0.4 * rng.random(), value)
        second = _hsv(hue + 0.13, 0.05 + 0.35 * rng.random(), 0.3 + 0.45 * value)
        cells = 9
        if factors.background == "gradient":
            ramp = np.linspace(0, 1, cells)
            part = 0.6 * ramp[:, None] + 0.4 * ramp[None]
        elif factors.background == "blobs":
            part = rng.random((cells, cells)) ** 1.5
        else:
            part = np.repeat(rng.random((1, cells)), cells, axis=0)
        small = first + part[..., None] * (second - first)
        sheet = Image.fromarray((small * 255).astype(np.uint8))
        size = (canvas.size, canvas.size)
        full = np.asarray(sheet.resize(size, Image.Resampling.BICUBIC), np.float32)
        canvas.rgb[:] = full / np.float32(255)

    def grain(self) -> None:
        rng = np.random.default_rng([self.factors.noise_seed, 3])
        shape = (self.canvas.size, self.canvas.size, 1)
        self.canvas.rgb += rng.standard_normal(shape, np.float32) * np.float32(0.008)

    # Hair.

    def _strands(self) -> np.ndarray:
        """Light and dark along the hair, -1..1: float32 [S,S]."""
        if self._strand is None:
            canvas, factors = self.canvas, self.factors
            x = canvas.x - np.float32(0.5 + 0.07 * factors.hair_part)
            y = canvas.y - np.float32(0.1)
            around = np.arctan2(x, y + np.float32(0.02))
            if factors.hair_texture == "wavy":
                far = np.sqrt(x * x + y * y)
                around += np.float32(0.075) * np.sin(far * 46 + 2 * around)
            at = (around * np.float32(15) + 60).astype(np.float32)
            low = at.astype(np.int32)
            part = at - low
            table = self._table
            value = table[low & 255] * (1 - part) + table[(low + 1) & 255] * part
            twice = 2.6 * at
            low = twice.astype(np.int32)
            part = twice - low
            value += table[(low + 91) & 255] * (1 - part)
            value += table[(low + 92) & 255] * part
            self._strand = (value - 1).astype(np.float32)
        return self._strand

    def _grow(
        self,
        points: np.ndarray,
        colour: np.ndarray,
        alpha: float = 1.0,
        blur: float = 0.003,
        number: int | None = parts.HAIR,
        clip: np.ndarray | None = None,
        dim: float = 1.0,
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
        strand = self._strands()[box]
        contrast = 0.3 if self.factors.hair_texture == "wavy" else 0.2
        level = np.clip(level + np.float32(contrast) * strand, 0.3, 1.7) * np.float32(
            dim
        )
        tone = level[..., None] * colour.astype(np.float32)
        shine = (sheen * (0.10 + 0.06 * strand) * dim)[..., None]
        canvas.blend(box, cover * np.float32(alpha), tone + shine)
        if number is not None:
            canvas.classes[box][cover > 0.5] = number

    def _hair_colour(self) -> np.ndarray:
        return parts.HAIR_COLOURS[self.factors.hair_colour]

    def _edge(self, curve: np.ndarray) -> np.ndarray:
        wave = self.factors.hair_texture == "wavy"
        return _wavy(curve, 0.013, 0.085) if wave else curve

    def hair_behind(self) -> None:
        factors = self.factors
        if factors.hair_style not in ("medium", "long"):
            return
        half = self.shape.half
        end = 0.86 if factors.hair_style == "medium" else 1.15
        wide = half + (0.055 if factors.hair_texture == "wavy" else 0.04)
        right = [[0.0, end], [0.7 * half, end], [wide, end - 0.03], [wide + 0.012, 0.7]]
        right += [[wide + 0.005, 0.5], [wide, 0.3], [0.6 * half, 0.12]]
        curve = smooth(_mirror(right), steps=4)
        self._grow(self._edge(curve), self._hair_colour(), dim=0.62)

    def hair_front(self) -> None:
        factors, half = self.factors, self.shape.half
        if factors.hair_style == "bald":
            return
        colour = self._hair_colour()
        lush = 0.0 if factors.hair_style == "short" else 0.018
        lush += 0.012 if factors.hair_texture == "wavy" else 0.0
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
        outer = smooth(_mirror(outer), closed=False, steps=5)
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
        wide = half + (0.06 if factors.hair_texture == "wavy" else 0.042)
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

    def facial_hair(self) -> None:
        canvas, shape, factors = self.canvas, self.shape, self.factors
        colour = parts.HAIR_COLOURS[factors.brow_colour] * 0.9
        if factors.beard == "none" and not factors.mustache:
            return
        free = 1 - canvas.layer(
            np.concatenate(
                [
                    shape.lip(np.linspace(-1, 1, 17), "top"),
                    shape.lip(np.linspace(1, -1, 17), "bottom"),
                ]
            )
        )
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
            self._grow(outline, colour, 0.9, 0.007, None, free)
        elif factors.beard == "goatee":
            low = shape.chin + 0.022
            right = [[0.0, low], [0.07, low - 0.012], [0.094, shape.chin - 0.06]]
            right += [[0.062, under + 0.022], [0.022, under + 0.006]]
            curve = smooth(self.shape.turn(_mirror(right) - [0.5, 0]), steps=4)
            self._grow(curve, colour, 0.92, 0.006, None, free)
        if factors.mustache:
            t = np.linspace(-1, 1, 15)
            top = np.stack([t * (mouth + 0.012), np.zeros(15)], axis=1)
            lip = shape.lip(t, "top")
            middle = 0.75 * (lip[7, 1] - shape.base - 0.008)
            rise = middle * (1 - np.abs(t) ** 1.8) + 0.006
            rise = rise - 0.007 * np.exp(-((t / 0.08) ** 2))
            top = lip + np.stack([0.012 * t, -rise], axis=1)
            fall = 0.012 * np.abs(t) ** 3
            bottom = lip + np.stack([0.012 * t, 0.005 + fall], axis=1)
            self._grow(np.concatenate([top, bottom[::-1]]), colour, 0.94, 0.004, None)

    # Clothes.

    def clothes(self) -> None:
        canvas, factors, head = self.canvas, self.factors, self.head
        cloth = _hsv(factors.cloth_hue, 0.5, factors.cloth_value)
        deep = {"blouse": 1.03, "tshirt": 0.985}.get(factors.clothing, 1.0)
        wide = 0.165 if factors.male else 0.145
        right = [[0.0, deep], [0.075, deep - 0.02], [wide - 0.02, 0.935]]
        right += [[wide + 0.02, 0.925], [0.32, 0.955], [0.47, 1.0], [0.56, 1.08]]
        right += [[0.6, 1.3]]
        if factors.clothing == "suit":
            cloth = _hsv(factors.cloth_hue, 0.25, 0.12 + 0.2 * factors.cloth_value)
        body = _mirror(np.array(right)[::-1])
        canvas.paint(body, cloth, number=parts.CLOTH)
        side = 0.3 if head.light[0] < 0 else -0.3
        clip = canvas.layer(body)
        canvas.glow((0.5 + side, 1.05), (0.13, 0.09), cloth * 0.5, 0.7, clip)
        canvas.glow((0.5 - side, 1.0), (0.1, 0.05), cloth * 0.6 + 0.35, 0.35, clip)
        if factors.clothing in ("shirt", "suit"):
            self._collar(cloth)
        else:
            neckline = smooth(_mirror(np.array(right[:3])[::-1]), False, 3)
            canvas.line(neckline, 0.014, cloth * 0.75, 0.9, number=parts.CLOTH)
        if factors.necktie:
            self._necktie()
        if factors.necklace:
            t = np.linspace(-1, 1, 15)
            curve = np.stack([0.5 + 0.125 * t, 0.985 - 0.07 * t * t], axis=1)
            canvas.line(curve + [0, 0.006], 0.016, head.shadow, 0.5, 0.004)
            canvas.line(curve, 0.013, _GOLD * 0.75, number=parts.NECK_L)
            for bead in curve:
                canvas.paint(oval(bead, (0.0095, 0.0095), 8), _GOLD)
            drop = oval(curve[7] + [0, 0.02], (0.02, 0.022), 12)
            canvas.paint(drop, _GOLD, number=parts.NECK_L)

    def _collar(self, cloth: np.ndarray) -> None:
        canvas, factors = self.canvas, self.factors
        suit = factors.clothing == "suit"
        shirt = _WHITE * 0.95 if suit else np.minimum(cloth * 1.15 + 0.08, 1)
        if suit:
            chest = _mirror(np.array([[0.135, 0.92], [0.1, 1.0], [0.02, 1.2]]))
            canvas.paint(chest, shirt, number=parts.CLOTH)
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
            canvas.paint(wing, shirt, number=parts.CLOTH)
            canvas.line(wing[1:], 0.006, shirt * 0.6, 0.8, 0.002)

    def _necktie(self) -> None:
        canvas = self.canvas
        hue = self.factors.hat_hue
        tone = _hsv(hue, 0.78, 0.55)
        blade = _mirror(np.array([[0.03, 0.99], [0.07, 1.2]]))
        canvas.paint(blade, tone, number=parts.CLOTH)
        for y in (1.02, 1.06, 1.10):
            stripe = np.array([[0.46, y + 0.02], [0.54, y - 0.02]])
            canvas.line(stripe, 0.012, tone * 0.5 + 0.4, 0.8, clip=canvas.layer(blade))
        knot = _mirror(np.array([[0.044, 0.945], [0.03, 0.995]]))
        canvas.paint(knot, tone * 0.85, number=parts.CLOTH)

    def earrings(self) -> None:
        if not self.factors.earrings:
            return
        for sign in (-1, 1):
            x = 0.5 + sign * (self.shape.half + 0.014)
            self.canvas.paint(
                oval((x, 0.634), (0.021, 0.032)), _GOLD * 0.7, number=parts.EAR_R
            )
            self.canvas.paint(oval((x, 0.634), (0.0155, 0.026)), _GOLD)
            self.canvas.paint(oval((x - 0.004, 0.62), (0.006, 0.009), 10), _WHITE)

    def hat(self) -> None:
        canvas, factors, half = self.canvas, self.factors, self.shape.half
        if factors.hat == "none":
            return
        head = self.head
        tone = _hsv(factors.hat_hue, 0.55, 0.28 + 0.5 * factors.cloth_value)
        dark = tone * 0.6
        wide = half + 0.058
        shade = _mirror(np.array([[0.95 * half, 0.36], [0.1, 0.385]]))
        shade = np.concatenate([shade, _mirror(np.array([[0.9 * half, 0.26]]))[::-1]])
        canvas.paint(shade, head.shadow, 0.5, 0.012, clip=head.face)
        dome = [[wide, 0.33], [wide + 0.004, 0.24], [wide - 0.035, 0.13]]
        dome = np.array([*dome, [0.66 * half, 0.045], [0.3 * half, 0.008]])
        dome = smooth(_mirror(dome), closed=False, steps=5)
        sag = np.array([[-0.6, 0.335], [-0.2, 0.318], [0.2, 0.318], [0.6, 0.335]])
        rim = smooth(sag * [half, 1] + [0.5, 0], False, 3)
        crown = np.concatenate([dome, rim])
        canvas.paint(crown, tone, number=parts.HAT)
        clip = canvas.layer(crown)
        away = -np.sign(head.light[0]) or 1.0
        canvas.glow((0.5 + 0.24 * away, 0.22), (0.12, 0.16), tone * 0.45, 0.8, clip)
        lit = tone * 0.6 + 0.38
        canvas.glow((0.5 - 0.13 * away, 0.12), (0.09, 0.07), lit, 0.5, clip)
        if factors.hat == "cap":
            for x in (-0.13, 0.0, 0.13):
                seam = [[0.5 + 0.25 * x, 0.01], [0.5 + 0.9 * x, 0.12], [0.5 + x, 0.31]]
                canvas.line(smooth(seam, False, 4), 0.005, dark, 0.7, clip=clip)
            visor = np.array(
                [[0.93 * half, 0.315], [0.86 * half, 0.352], [0.15, 0.372]]
            )
            top = np.array([[0.15, 0.285], [0.82 * half, 0.295]])
            points = np.concatenate([_mirror(visor), _mirror(top[::-1])[::-1]])
            points = smooth(points, steps=4)
            canvas.paint(points, dark, number=parts.HAT)
            canvas.glow((0.5 - 0.1 * away, 0.325), (0.09, 0.018), lit, 0.4)
        elif factors.hat == "beanie":
            low = np.array([[wide + 0.006, 0.345], [0.5 * half, 0.352]])
            top = np.array([[0.5 * half, 0.245], [wide + 0.008, 0.238]])
            band = np.concatenate([_mirror(low), _mirror(top[::-1])[::-1]])
            canvas.paint(band, tone * 0.82 + 0.1, number=parts.HAT)
            inside = canvas.layer(band)
            for x in np.linspace(-wide, wide, 19):
                rib = np.array([[0.5 + x, 0.23], [0.5 + x, 0.36]])
                canvas.line(rib, 0.008, dark, 0.5, clip=inside)
        else:
            band = np.array([[wide + 0.006, 0.315], [0.5 * half, 0.3]])
            top = np.array([[0.5 * half, 0.225], [wide + 0.008, 0.24]])
            band = np.concatenate([_mirror(band), _mirror(top[::-1])[::-1]])
            canvas.paint(band, dark * 0.55, number=parts.HAT)
            brim = oval((0.5, 0.322), (half + 0.19, 0.042), 40)
            canvas.paint(brim, tone * 0.85, number=parts.HAT)
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

    # Glasses and occluders.

    def glasses(self) -> None:
        factors = self.factors
        if factors.eyewear == "none" or factors.occluder == "sunglasses":
            return
        tone = factors.rim_tone
        rim = np.array([0.06, 0.05, 0.06]) if tone < 0.6 else _hsv(tone * 3, 0.6, 0.35)
        if tone > 0.88:
            rim = _GOLD * 0.7
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
            canvas.line(np.array(arm), 0.015, rim, number=parts.EYE_G)
        x = [centres[0, 0] + 0.079, 0.5 * centres[:, 0].sum(), centres[1, 0] - 0.079]
        y = [shape.eye_y - 0.004, shape.eye_y - 0.018, shape.eye_y - 0.004]
        bridge = smooth(np.stack([x, y], axis=1), False, 4)
        canvas.line(bridge, 0.014, rim, number=parts.EYE_G)
        for centre in centres:
            outer = self._lens(style, centre, thick / 2)
            inner = canvas.layer(self._lens(style, centre, -thick / 2))
            if glass is None:
                at = centre - [0.03, 0.028]
                canvas.glow(at, (0.03, 0.02), np.ones(3), 0.22, inner)
                canvas.paint(outer, rim, number=None, clip=1 - inner)
                part = canvas.mask(outer)
                if part is not None:
                    canvas.classes[part[0]][part[1] > 0.5] = parts.EYE_G
            else:
                canvas.paint(outer, glass, number=parts.EYE_G)
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
        tone = _hsv(0.55, 0.22, 0.93)
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
                canvas.line(strap * [sign, 1] + [0.5, 0], 0.009, _WHITE * 0.95)
        whole = np.concatenate([right, (right * [-1, 1])[-2:0:-1]])
        curve = smooth(self.shape.turn(whole), steps=4)
        canvas.paint(
            curve + [0, 0.008], self.head.shadow, 0.5, 0.008, clip=self.head.face
        )
        canvas.paint(curve, tone, number=parts.CLOTH)
        clip = canvas.layer(curve)
        dark = np.sign(self.head.light[0]) or 1.0
        canvas.glow((0.5 - 0.2 * dark, 0.75), (0.1, 0.13), tone * 0.65, 0.7, clip)
        canvas.glow((0.5 + 0.04 * dark, 0.66), (0.08, 0.06), np.ones(3), 0.5, clip)
        t = np.linspace(-1, 1, 9)
        for y in (0.66, 0.715, 0.77, 0.825):
            pleat = shape.turn(np.stack([0.9 * half * t, y + 0.018 * (1 - t * t)], 1))
            canvas.line(pleat, 0.008, tone * 0.7, 0.7, 0.002, clip=clip)

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
