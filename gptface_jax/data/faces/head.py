"""Draws skin, ears, neck, eyes, brows, nose, mouth, beard and the marks of age."""

from __future__ import annotations

import math

import numpy as np

from gptface_jax.data.faces.canvas import Canvas, oval, ribbon, smooth
from gptface_jax.data.faces.factors import Factors
from gptface_jax.data.faces.palette import (
    BROW_COLOURS,
    DARK,
    EYE_COLOURS,
    L_BROW,
    L_EAR,
    L_EYE,
    L_LIP,
    MOUTH,
    NECK,
    NOSE,
    R_BROW,
    R_EAR,
    R_EYE,
    SKIN,
    U_LIP,
    skin_colour,
)
from gptface_jax.data.faces.shape import Shape


class Head:
    """Paints the head of one face onto a canvas, in the order of the calls."""

    def __init__(self, canvas: Canvas, shape: Shape, factors: Factors) -> None:
        self.canvas, self.shape, self.factors = canvas, shape, factors
        self.skin = skin_colour(factors)
        self.shadow = self.skin * [0.55, 0.44, 0.40]
        angle = math.radians(factors.light_angle)
        self.light = np.array([math.cos(angle), math.sin(angle)])
        self.power = factors.light_strength
        self.face = canvas.layer(shape.outline)

    def _shaded(self, box: tuple, centre: tuple, radius: tuple) -> np.ndarray:
        """Skin on a rounded body under the side light: [h,w,3]."""
        canvas = self.canvas
        u = (canvas.x[box] - np.float32(centre[0])) * np.float32(1 / radius[0])
        v = (canvas.y[box] - np.float32(centre[1])) * np.float32(1 / radius[1])
        turned = np.float32(0.27 * self.power * self.light[0]) * u
        turned += np.float32(0.14 * self.light[1]) * v
        rim = np.maximum(u * u + v * v - np.float32(0.42), 0) * np.float32(0.3)
        level = np.clip(1.0 + turned - rim, 0.35, 1.22).astype(np.float32)
        # Shadows of skin turn warm: blue and green fall faster than red.
        tint = level[..., None] * np.array([0.16, 0.0, -0.06], np.float32)
        tint = np.array([-0.16, 0.0, 0.06], np.float32) + tint
        return self.skin.astype(np.float32) * (level[..., None] - tint)

    def neck(self) -> None:
        canvas, shape, factors = self.canvas, self.shape, self.factors
        half = shape.half * (0.68 if factors.male else 0.54)
        half *= 1.1 if factors.chubby else 1.0
        right = np.array(
            [[half, 0.6], [half, 0.86], [half * 1.1, 0.93], [2.4 * half, 1.03]]
        )
        right = np.concatenate([right, [[2.6 * half, 1.2]]])
        points = np.concatenate([right, (right * [-1, 1])[::-1]]) + [0.5, 0]
        part = canvas.mask(points)
        if part is None:
            return
        box, cover = part
        canvas.blend(box, cover, self._shaded(box, (0.5, 0.7), (0.3, 0.6)), NECK)
        clip = np.zeros_like(self.face)
        clip[box] = cover
        canvas.paint(
            shape.jaw + [0.012 * -self.light[0], 0.05],
            self.shadow,
            0.75,
            0.03,
            clip=clip,
        )

    def ears(self) -> None:
        canvas, shape, factors = self.canvas, self.shape, self.factors
        turn = math.sin(math.radians(factors.yaw))
        for sign, number in ((-1, L_EAR), (1, R_EAR)):
            wide = 0.036 * factors.ear_size * (1 - 1.5 * sign * turn)
            tall = 0.072 * factors.ear_size
            x = 0.5 + sign * (shape.half - 0.004)
            y = 0.525
            lobes = [[0, -1], [0.85, -0.85], [1.15, -0.35], [0.85, 0.3], [0.45, 0.9]]
            lobes = np.array([*lobes, [-0.1, 1.0]]) * [sign * wide, tall] + [x, y]
            ear = np.concatenate([smooth(lobes, closed=False), [[x - sign * 0.02, y]]])
            tone = self.skin * (0.86 + 0.1 * self.power * sign * self.light[0])
            canvas.paint(ear, tone * [1.02, 0.95, 0.93], number=number)
            inner = (lobes - [x, y]) * [0.62, 0.62] + [x, y]
            canvas.line(smooth(inner, False, 3), 0.011, self.shadow, 0.55, 0.004)

    def skin_area(self) -> None:
        """The face itself, with light, blush and the marks of age."""
        canvas, shape, factors = self.canvas, self.shape, self.factors
        part = canvas.mask(shape.outline)
        if part is None:
            return
        box, cover = part
        shaded = self._shaded(box, (0.5, 0.52), (shape.half * 1.02, 0.40))
        canvas.blend(box, cover, shaded, SKIN)
        side = self.light[0]
        bright = np.minimum(self.skin * 1.22 + 0.05, 1)
        gloss = 0.16 + 0.18 * self.power
        for x in (-0.155, 0.155):
            lit = gloss * (1 + 1.2 * np.sign(x) * side * self.power)
            at = shape.turn([[x, 0.60 - 0.012 * shape.mood.smile]])[0]
            canvas.glow(at, (0.05, 0.04), bright, max(lit, 0.05), self.face)
        canvas.glow((0.5 + 0.06 * side, 0.31), (0.11, 0.055), bright, gloss, self.face)
        # The sockets, the sides of the nose and the dip under the lip.
        for x in (-0.118, 0.118):
            at = shape.turn([[x * factors.eye_spacing, 0.452]])[0]
            canvas.glow(at, (0.062, 0.03), self.shadow, 0.3, self.face)
        canvas.glow(
            (0.5, shape.mouth_y + 0.062), (0.05, 0.014), self.shadow, 0.22, self.face
        )
        if factors.rosy_cheeks:
            red = self.skin * [1.02, 0.52, 0.55]
            for at in shape.turn([[-0.165, 0.625], [0.165, 0.625]]):
                canvas.glow(at, (0.06, 0.046), red, 0.75, self.face)
        self._folds()

    def _folds(self) -> None:
        """Wrinkles, folds beside the mouth, bags, double chin."""
        canvas, shape, factors = self.canvas, self.shape, self.factors
        old = float(np.clip((factors.age - 36) / 30, 0, 1))
        smile = max(shape.mood.smile, 0)
        deep = min(0.75 * old + 0.4 * smile + 0.25 * shape.mood.sneer, 0.85)
        if deep > 0.02:
            wide, tip = shape.nose_wide, shape.tip
            end = shape.mouth_half + 0.022
            for sign in (-1, 1):
                points = [[wide + 0.006, tip], [wide + 0.032, tip + 0.05]]
                points = np.array([*points, [end, shape.mouth_y + 0.005]]) * [sign, 1]
                curve = shape.turn(smooth(points, False, 4))
                taper = (0.012 + 0.006 * old) * np.linspace(0.5, 1, len(curve))
                canvas.line(
                    curve, taper, self.shadow, 0.7 * deep, 0.005, clip=self.face
                )
        lines = max(old, max(shape.mood.brow, 0) * 0.5)
        if lines > 0.05:
            x = np.linspace(-0.13, 0.13, 9)
            taper = (0.008 + 0.005 * old) * np.sin(np.linspace(0.1, np.pi - 0.1, 9))
            rows = []
            for y in (0.262, 0.298, 0.334):
                wave = 0.006 * np.cos(x * 24 + y * 90)
                curve = shape.turn(np.stack([x, y + wave], axis=1))
                rows.append(ribbon(curve, taper))
            canvas.paint(rows, self.shadow, 0.68 * lines, 0.003, clip=self.face)
        if old > 0.1:
            # Hollow cheeks and the lines that run down from the mouth.
            for x in (-0.19, 0.19):
                hollow = shape.turn([[x, 0.70]])[0]
                canvas.glow(hollow, (0.03, 0.06), self.shadow, 0.34 * old, self.face)
            out, low = shape.mouth_half, shape.mouth_y
            down = np.array([[out, low], [out + 0.012, low + 0.03], [out, low + 0.065]])
            rows = [ribbon(shape.turn(down * [sign, 1]), 0.01) for sign in (-1, 1)]
            canvas.paint(rows, self.shadow, 0.55 * old, 0.004, clip=self.face)
        frown = max(-shape.mood.inner, 0)
        if frown > 0.2:
            rows = []
            for x in (-0.018, 0.018):
                curve = shape.turn([[x, 0.375], [x * 1.1, 0.4], [x * 0.8, 0.43]])
                rows.append(ribbon(curve, 0.009))
            canvas.paint(rows, self.shadow, 0.5 * frown, 0.003, clip=self.face)
        self._around_the_eyes(old)
        if factors.double_chin:
            self._double_chin()

    def _around_the_eyes(self, old: float) -> None:
        """Crow's feet by age (0 to 1), and bags."""
        canvas, shape, factors = self.canvas, self.shape, self.factors
        for sign, eye in zip((-1, 1), shape.eyes, strict=True):
            outer = eye[0]
            if old > 0.1:
                rows = []
                for rise in (-0.014, 0.002, 0.018):
                    reach = [0.045 * sign, rise * 1.6]
                    curve = np.array([outer + [0.012 * sign, rise], outer + reach])
                    rows.append(ribbon(curve, 0.0075))
                canvas.paint(rows, self.shadow, 0.7 * old, 0.002, clip=self.face)
            middle = eye.mean(0)
            if factors.eye_bags:
                t = np.linspace(-1, 1, 9)
                x, y = middle[0] + 0.05 * t, middle[1] + 0.024 + 0.02 * (1 - t * t)
                curve = np.stack([x, y], axis=1)
                dusk = self.skin * [0.62, 0.46, 0.52]
                canvas.line(
                    curve, 0.02 * (1.05 - t * t), dusk, 0.8, 0.005, clip=self.face
                )
                canvas.glow(middle + [0, 0.027], (0.04, 0.012), dusk, 0.55, self.face)

    def _double_chin(self) -> None:
        canvas, shape = self.canvas, self.shape
        rim = smooth(shape.jaw[4:13], closed=False, steps=3)
        t = np.linspace(-1, 1, len(rim))
        sag = np.stack([-0.012 * t, 0.048 * (1 - t * t)], axis=1)
        curve = rim + sag
        fold = np.concatenate([curve, rim[::-1]])
        canvas.paint(fold, self.skin * 0.9, number=SKIN)
        width = 0.02 * (1.02 - t**4)
        canvas.line(curve, width, self.shadow, 0.75, 0.006)
        canvas.line(shape.jaw[5:12] + [0, -0.004], 0.016, self.shadow, 0.55, 0.006)

    def _sides(self, cover: np.ndarray, left: int, right: int) -> None:
        """Marks what is covered with one class per side of the face."""
        seen = cover > 0.5
        middle = self.canvas.x < self.shape.bridge[0, 0]
        self.canvas.classes[seen & middle] = left
        self.canvas.classes[seen & ~middle] = right

    def eyes(self) -> None:
        canvas, shape, factors = self.canvas, self.shape, self.factors
        iris, size = EYE_COLOURS[factors.eye_colour], shape.iris
        curves, lids, centres = list(shape.eyes), shape.upper_lids, shape.irises

        def discs(radius: float, move: tuple, count: int = 20) -> list[np.ndarray]:
            offset = size * np.array(move)
            return [oval(at + offset, (radius * size,) * 2, count) for at in centres]

        white = canvas.layer(curves)
        canvas.paint(curves, np.array([0.93, 0.91, 0.89]))
        self._sides(white, L_EYE, R_EYE)
        under_lids = [ribbon(lid + [0, 0.006], 0.016) for lid in lids]
        canvas.paint(under_lids, self.shadow, 0.5, 0.004, clip=white)
        canvas.paint(discs(1.0, (0, 0)), iris * 0.45, clip=white)
        canvas.paint(discs(0.8, (0, 0.08)), iris, clip=white)
        glint = np.minimum(iris * 1.7 + 0.1, 1)
        for centre in centres:
            low = centre + [0, 0.4 * size]
            canvas.glow(low, (0.4 * size, 0.3 * size), glint, 0.8, white)
        canvas.paint(discs(0.42, (0, 0), 14), DARK, clip=white)
        spots = discs(0.2, (0.32 * np.sign(self.light[0]), -0.36), 10)
        canvas.paint(spots, np.ones(3), 0.95, clip=white)
        t = np.linspace(-1, 1, 11)
        heavy = np.maximum((0.010 if factors.male else 0.0155) * (1.15 - t * t), 0.005)
        edges = [ribbon(lid, heavy) for lid in lids]
        if not factors.male:
            for lid, away in zip(lids, (-1, 1), strict=True):
                lash = np.array([lid[1], lid[0], lid[0] + [0.02 * away, -0.014]])
                edges.append(ribbon(lash, [0.012, 0.011, 0.002]))
        canvas.paint(edges, DARK, 0.9)
        lower = [ribbon(np.concatenate([eye[11:], eye[:1]]), 0.005) for eye in curves]
        creases = [ribbon(lid[1:-1] + [0, -0.013], 0.006) for lid in lids]
        canvas.paint(lower + creases, self.shadow, 0.6, 0.002, clip=self.face)

    def brows(self) -> None:
        canvas, shape, factors = self.canvas, self.shape, self.factors
        colour = BROW_COLOURS[factors.brow_colour] * 0.82
        colour = colour + 0.12 * (self.skin - colour)
        soft, hard = [], []
        for points, widths in zip(shape.brow_points, shape.brow_widths, strict=True):
            curve = smooth(points, closed=False, steps=4)
            width = np.interp(np.linspace(0, 4, len(curve)), np.arange(5), widths)
            soft.append(ribbon(curve, 1.3 * width))
            hard.append(ribbon(curve, width))
        canvas.paint(soft, colour, 0.35, 0.005)
        canvas.paint(hard, colour, 0.85, 0.002)
        self._sides(canvas.layer(hard), L_BROW, R_BROW)

    def nose(self) -> None:
        canvas, shape = self.canvas, self.shape
        face, side = self.face, self.light[0]
        wide, tip = shape.nose_wide, shape.nose_tip
        area = canvas.mask(shape.nose)
        if area is not None:
            canvas.classes[area[0]][area[1] > 0.5] = NOSE
        bright = np.minimum(self.skin * 1.2 + 0.06, 1)
        dark = -1 if side > 0 else 1
        flank = shape.bridge * [1, 1] + [dark * 0.42 * wide, 0.0]
        flank[0, 0] -= dark * 0.008
        power = 0.22 + 0.4 * abs(side) * self.power
        widths = np.array([0.012, 0.016, 0.024, 0.034])
        canvas.line(flank, widths, self.shadow, power, 0.010, clip=face)
        canvas.line(
            shape.bridge - [dark * 0.006, 0], 0.016, bright, 0.35, 0.006, clip=face
        )
        canvas.glow(tip, (0.4 * wide, 0.018), bright, 0.5, face)
        canvas.glow(
            (tip[0] + dark * 0.2 * wide, shape.base + 0.012),
            (0.85 * wide, 0.013),
            self.shadow,
            0.55,
            face,
        )
        for sign, wing in zip((-1, 1), shape.wings, strict=True):
            bend = np.array([[0.75, -1.5], [1.0, -0.4], [0.98, 0.5], [0.6, 1.0]])
            bend[:, 0] -= 1
            curve = smooth(bend * [sign * wide, 0.022] + wing, False, 3)
            taper = 0.011 * np.sin(np.linspace(0.2, 2.6, len(curve)))
            canvas.line(curve, taper, self.shadow, 0.75, 0.003, clip=face)
        for hole in shape.nostrils:
            canvas.paint(
                oval(hole, (0.27 * wide, 0.0085), 14), self.shadow * 0.45, 0.85, 0.002
            )

    def mouth(self) -> None:
        canvas, shape, factors = self.canvas, self.shape, self.factors
        mood = shape.mood
        if factors.lipstick:
            tone = factors.lipstick_tone
            lips = np.array([0.78 - 0.22 * tone, 0.06, 0.13 + 0.16 * tone])
        else:
            lips = self.skin * np.array([0.86, 0.60, 0.60])
        canvas.paint(shape.lip_upper, lips * 0.84, blur=0.002, number=U_LIP)
        canvas.paint(shape.lip_lower, lips, blur=0.002, number=L_LIP)
        if mood.gap > 0:
            opening = canvas.layer(shape.mouth)
            canvas.paint(shape.mouth, np.array([0.22, 0.05, 0.06]), number=MOUTH)
            happy = mood.smile > 0.3
            t = np.linspace(-0.92, 0.92, 13)
            above = shape.lip(t, "above")
            # A smile bares the whole upper row, else a straight edge shows.
            ends = above + [0, 0.66 * mood.gap]
            if not happy:
                ends[:, 1] = above[:, 1].min() + 0.3 * mood.gap
                ends[:, 1] = np.maximum(ends[:, 1], above[:, 1])
            teeth = np.concatenate([above, ends[::-1]])
            ivory = np.array([0.95, 0.93, 0.89]) * (1.0 if happy else 0.88)
            canvas.paint(teeth, ivory, blur=0.002, clip=opening)
            canvas.glow(
                (shape.lip([0.0], "below")[0]),
                (0.05, 0.3 * mood.gap),
                np.array([0.65, 0.25, 0.27]),
                0.7,
                opening,
            )
            canvas.line(above, 0.006, self.shadow * 0.5, 0.5, 0.002)
        else:
            curve = shape.parting
            taper = 0.011 * np.sqrt(np.sin(np.linspace(0.25, np.pi - 0.25, len(curve))))
            canvas.line(curve, taper, self.shadow * 0.55, 0.9, 0.001)
        middle = shape.lip([0.0], "bottom")[0] - [0, 0.011]
        gloss = 0.5 if factors.lipstick else 0.3
        canvas.glow(middle, (0.032, 0.007), np.minimum(lips + 0.35, 1), gloss)
        for corner, sign in zip(shape.lip([-1.0, 1.0], "above"), (-1, 1), strict=True):
            deep = 0.35 + 0.3 * abs(mood.smile)
            at = corner + [0.008 * sign, -0.003 * mood.smile]
            canvas.glow(at, (0.011, 0.011), self.shadow, deep, self.face)
