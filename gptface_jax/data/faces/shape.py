"""The curves of a face from its factors, and the 68 landmarks on them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from gptface_jax.data.faces.canvas import smooth
from gptface_jax.data.faces.factors import Factors


@dataclasses.dataclass(frozen=True)
class Mood:
    """Movements of the parts in an expression, 0 = rest."""

    smile: float = 0.0  # corners of the mouth up
    mouth_width: float = 1.0
    gap: float = 0.026  # opening of the mouth when it is open
    lips: float = 1.0  # thickness
    sneer: float = 0.0  # upper lip and nose up
    brow: float = 0.0  # brows up
    inner: float = 0.0  # inner ends of the brows up
    eye: float = 1.0  # opening of the eyes
    cheek: float = 0.0  # cheeks up


_MOODS = {
    "neutral": Mood(),
    "happiness": Mood(
        smile=1, mouth_width=1.22, gap=0.04, lips=0.85, brow=0.1, eye=0.8
    ),
    "surprise": Mood(smile=-0.1, mouth_width=0.74, gap=0.085, brow=1.15, eye=1.42),
    "anger": Mood(
        smile=-0.5, mouth_width=0.95, lips=0.72, brow=-0.55, inner=-1.25, eye=0.84
    ),
    "sadness": Mood(smile=-0.95, mouth_width=0.9, brow=0.1, inner=1.15, eye=0.74),
    "disgust": Mood(
        smile=-0.65, mouth_width=0.95, gap=0.03, sneer=1, brow=-0.5, inner=-0.6, eye=0.6
    ),
    "fear": Mood(
        smile=-0.6,
        mouth_width=1.12,
        gap=0.05,
        lips=0.8,
        brow=0.85,
        inner=0.95,
        eye=1.36,
    ),
}


def mood(factors: Factors) -> Mood:
    """The expression at its intensity."""
    full, rest = _MOODS[factors.expression], Mood()
    part = factors.intensity
    values = {
        field.name: getattr(rest, field.name)
        + part * (getattr(full, field.name) - getattr(rest, field.name))
        for field in dataclasses.fields(Mood)
    }
    if not factors.mouth_open:
        values["gap"] = 0.0
    return Mood(**values)


class Shape:
    """All curves in face units, after the turn of the head (yaw).

    Attributes:
      jaw: [17,2] from the subject's right ear over the chin to the left one.
      outline: closed curve of the face with the skull.
      brows, eyes: pairs (picture left, picture right) of curves.
      irises: pairs of centres; `iris` is their radius.
      nose: closed curve; bridge [4,2] and base [5,2] its landmarks.
      lip_upper, lip_lower, mouth: closed curves.
    """

    def __init__(self, factors: Factors) -> None:
        self.factors = factors
        self.mood = mood(factors)
        self.half = 0.272 * factors.face_width * (1.045 if factors.chubby else 1.0)
        self._sway = math.sin(math.radians(factors.yaw))
        self._face()
        self._brows()
        self._eyes()
        self._nose()
        self._mouth()

    def turn(self, points: np.ndarray, out: float = 0.0) -> np.ndarray:
        """Face units, after yaw, of face-relative points (x from -half to half).

        The face is a half cylinder: what lies in front moves with the turn;
        `out` is how far a point stands out of it (the tip of the nose).
        """
        points = np.array(points, np.float64)
        across = points[:, 0] / (1.15 * self.half)
        depth = np.sqrt(np.maximum(1 - across**2, 0.2)) - 0.45
        points[:, 0] += self._sway * (0.2 * depth + out) + 0.5
        return points

    def _face(self) -> None:
        factors, half = self.factors, self.half
        firm = factors.jaw * (1.06 if factors.male else 0.965)
        full = 1.13 if factors.chubby else 1.0
        drop = 0.35 * self.mood.gap
        self.chin = 0.56 + 0.335 * factors.face_length * (
            1.02 if factors.male else 0.985
        )
        across = np.array([1.0, 0.99, 0.965, 0.915, 0.80, 0.635, 0.43, 0.215, 0.0])
        wide = np.array([1, 1, 1, firm, firm * full, firm * full, firm * full, firm, 1])
        down = np.array([0.455, 0.535, 0.612, 0.69, 0.765, 0.826, 0.868, 0.889, 0.895])
        down = 0.455 + (down - 0.455) * (self.chin - 0.455) / 0.44
        down[4:] += drop
        across = half * np.minimum(
            across * wide, [1, 0.99, 0.985, 0.97, 0.91, 2, 2, 2, 2]
        )
        right = np.stack([-across, down], axis=1)
        left = np.stack([across, down], axis=1)[-2::-1]
        jaw = np.concatenate([right, left])
        skull = half * np.array([0.985, 0.92, 0.785, 0.56, 0.29])
        height = np.array([0.37, 0.285, 0.215, 0.168, 0.147])
        crown = np.stack([skull, height], axis=1)
        crown = np.concatenate([crown, [[0, 0.14]], (crown * [-1, 1])[::-1]])
        self.jaw = self.turn(jaw)
        self.outline = self.turn(smooth(np.concatenate([jaw, crown]), steps=3))
        self.chin += drop

    def _brows(self) -> None:
        factors, mood = self.factors, self.mood
        reach = 0.118 * factors.eye_spacing
        t = np.linspace(-1, 1, 5)  # from the outer end to the inner end
        arch = 0.026 if factors.arched_brows else 0.009
        top = 0.402 - 0.016 * (factors.brow_height - 1) - 0.028 * mood.brow
        y = top - arch * np.array([-1.0, 0.55, 1.0, 0.45, -0.35])
        y = y - 0.019 * mood.inner * np.array([-0.5, -0.3, 0.0, 0.55, 1.0])
        x = -reach - 0.004 + 0.068 * t * (1.04 if factors.male else 1.0)
        x = x + (0.008 if factors.bushy_brows else 0.0) * np.array([0, 0, 0, 0.5, 1])
        left = np.stack([x, y], axis=1)
        right = (left * [-1, 1])[::-1]  # from the inner end to the outer end
        self.brow_points = (self.turn(left), self.turn(right))
        thick = 0.017 * (1.1 if factors.male else 0.85)
        thick = thick * (1.85 if factors.bushy_brows else 1.0)
        profile = thick * np.array([0.45, 0.85, 1.0, 1.05, 0.85])
        self.brow_widths = (profile, profile[::-1])

    def _eyes(self) -> None:
        factors, mood = self.factors, self.mood
        reach = 0.118 * factors.eye_spacing
        half = 0.0545 * factors.eye_size
        open_ = (0.48 if factors.narrow_eyes else 1.0) * factors.eye_size
        upper = 0.0295 * open_ * mood.eye * (0.95 if factors.male else 1.05)
        lower = 0.0175 * open_ * (1 - 0.35 * max(mood.smile, 0))
        self.eye_y = 0.475
        lean = math.radians(factors.eye_tilt) - 0.06 * mood.inner
        t = np.linspace(-1, 1, 11)
        lid = 1 - np.abs(t) ** 2.3
        top = np.stack([t * half, -upper * lid], axis=1)
        bottom = np.stack([t * half, lower * lid], axis=1)[-2:0:-1]
        curve = np.concatenate([top, bottom])
        cos, sin = math.cos(lean), math.sin(lean)
        # Outer corners (left in the picture's left eye) move up.
        curve = curve @ np.array([[cos, sin], [-sin, cos]])
        left = curve + [-reach, self.eye_y]
        right = curve * [-1, 1] + [reach, self.eye_y]
        self.eyes = (self.turn(left), self.turn(right))
        self.upper_lids = (self.eyes[0][:11], self.eyes[1][:11])
        at = np.array([0, 3, 7, 10, 13, 17])
        a, b = self.eyes
        self.eye_points = (a[at], b[at][[3, 2, 1, 0, 5, 4]])
        self.eye_half, self.eye_upper = half, upper
        self.iris = 0.0245 * (0.5 + 0.5 * factors.eye_size)
        look = 0.016 * factors.gaze
        middle = self.eye_y + (lower - upper) * 0.3
        self.irises = self.turn([[-reach + look, middle], [reach + look, middle]])

    def _nose(self) -> None:
        factors, mood = self.factors, self.mood
        wide = 0.053 * (1.42 if factors.big_nose else 1.0)
        wide = wide * (1.05 if factors.male else 0.94) * (1 + 0.1 * mood.sneer)
        tip = 0.475 + 0.14 * factors.nose_length * (1.05 if factors.big_nose else 1)
        tip -= 0.008 * mood.sneer
        self.nose_wide, self.tip = wide, tip
        self.base = tip + 0.026
        y = np.linspace(self.eye_y - 0.005, tip, 4)
        out = np.array([0.0, 0.02, 0.045, 0.07])
        zero = np.zeros(4)
        self.bridge = self.turn(np.stack([zero, y], axis=1), out)
        x = wide * np.array([-0.72, -0.38, 0.0, 0.38, 0.72])
        drop = np.array([-0.006, 0.001, 0.006, 0.001, -0.006])
        self.nose_base = self.turn(np.stack([x, self.base + drop], axis=1), 0.04)
        side = np.array(
            [
                [0.020, self.eye_y - 0.02],
                [0.020, self.eye_y + 0.04],
                [0.55 * wide, tip - 0.045],
                [0.97 * wide, tip - 0.012],
                [1.0 * wide, tip + 0.008],
                [0.8 * wide, self.base],
                [0.38 * wide, self.base + 0.006],
                [0.0, self.base + 0.011],
            ]
        )
        whole = np.concatenate([side, (side * [-1, 1])[-2::-1]])
        rise = np.clip((whole[:, 1] - self.eye_y) / (tip - self.eye_y), 0, 1)
        self.nose = smooth(self.turn(whole, 0.04 * rise), steps=3)
        self.nostrils = self.turn(
            [[-0.42 * wide, self.base - 0.001], [0.42 * wide, self.base - 0.001]], 0.045
        )
        self.nose_tip = self.turn([[0, tip]], 0.07)[0]
        self.wings = self.turn([[-wide, tip], [wide, tip]], 0.04)

    def _mouth(self) -> None:
        factors, mood = self.factors, self.mood
        self.mouth_y = 0.738 + 0.5 * (self.chin - 0.895) - 0.012 * max(mood.smile, 0)
        self.mouth_half = 0.096 * factors.mouth_width * mood.mouth_width
        thick = (1.75 if factors.big_lips else 1.0) * mood.lips
        thick = thick * (0.85 if factors.male else 1.08)
        self._upper, self._lower = 0.0165 * thick, 0.0235 * thick
        t = np.linspace(-1, 1, 17)
        top, bottom = self.lip(t, "top"), self.lip(t, "bottom")
        inner = np.linspace(-1, 1, 15)
        above, below = self.lip(inner, "above"), self.lip(inner, "below")
        self.mouth = np.concatenate([above, below[-2:0:-1]])
        self.parting = 0.5 * (above + below)
        self.lip_upper = np.concatenate([top, above[::-1]])
        self.lip_lower = np.concatenate([below, bottom[::-1]])

    def lip(self, t: np.ndarray, edge: str) -> np.ndarray:
        """Points [N,2] on one edge of the lips; t runs from corner to corner.

        Edges from above: "top", "above" and "below" (the opening), "bottom".
        """
        t = np.asarray(t, np.float64)
        mood, bow = self.mood, 1 - t**2
        bend = 0.036 * mood.smile
        y = self.mouth_y + bend * (0.45 - t**2)
        up, down = 0.35 * mood.gap, 0.65 * mood.gap
        if edge in ("top", "above"):
            y = y - up * bow - 0.012 * mood.sneer * bow
        else:
            y = y + down * np.sqrt(np.maximum(bow, 0))
        if edge == "top":
            dip = 0.28 * np.exp(-((t / 0.16) ** 2))
            y = y - self._upper * (np.maximum(bow, 0) ** 0.75) * (1.18 - dip)
        elif edge == "bottom":
            y = y + self._lower * np.maximum(bow, 0) ** 0.6
        x = self.mouth_half * t * (0.93 if edge in ("above", "below") else 1.0)
        return self.turn(np.stack([x, y], axis=1), 0.015)

    def landmarks(self) -> np.ndarray:
        """The 68 iBUG points in face units, float64 [68,2]."""
        return np.concatenate(
            [
                self.jaw,
                *self.brow_points,
                self.bridge,
                self.nose_base,
                *self.eye_points,
                self.lip(np.array([-1, -0.62, -0.22, 0, 0.22, 0.62, 1]), "top"),
                self.lip(np.array([0.62, 0.3, 0, -0.3, -0.62]), "bottom"),
                self.lip(np.array([-1, -0.4, 0, 0.4]), "above"),
                self.lip(np.array([1, 0.4, 0, -0.4]), "below"),
            ]
        )
