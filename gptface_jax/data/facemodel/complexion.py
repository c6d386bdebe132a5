"""Natural colours of skin, hair, brows, lips and eyes, as albedo coefficients."""

from __future__ import annotations

import dataclasses

import numpy as np

from gptface_jax.data.facemodel import surface
from gptface_jax.data.facemodel.model import FaceModel
from gptface_jax.data.faces import palette

_SKIN = np.array(
    [[0.93, 0.80, 0.73], [0.88, 0.69, 0.58], [0.76, 0.56, 0.44], [0.58, 0.39, 0.28],
     [0.38, 0.25, 0.18]]
)  # fmt: skip
_LIP = np.array([0.86, 0.62, 0.68])  # of the skin, without make-up
_LIPSTICK = np.array([[0.70, 0.12, 0.18], [0.60, 0.16, 0.30], [0.78, 0.33, 0.34]])
_PALE, _BALD = 0.13, 0.12
# Shares of hair colours: with dark skin black, else any.
_HAIR = {"black": 0.25, "brown": 0.35, "blond": 0.2, "gray": 0.14, "red": 0.06}
_FLOOR = 0.25  # least standard deviation of a mode, in its unit before


@dataclasses.dataclass(frozen=True)
class Complexion:
    """Colours of the materials of `surface.MATERIALS` and of the iris, and words.

    Attributes:
      colours: float [5,3]: skin, hair, brows, lips, iris.
      skin: 0 pale .. 1 dark.
      hair: "black", ..., or "bald".
      eyes: colour of the iris.
      lipstick: whether the lips wear it.
    """

    colours: np.ndarray
    skin: float
    hair: str
    eyes: str
    lipstick: bool


def sample(rng: np.random.Generator) -> Complexion:
    """Colours of one person."""
    skin = rng.uniform(0, 0.12) if rng.random() < _PALE else rng.uniform(0.2, 1)
    at = skin * (len(_SKIN) - 1)
    tone = np.stack([np.interp(at, range(len(_SKIN)), c) for c in _SKIN.T])
    tone = tone + rng.normal(0, 0.012, 3)
    names = list(_HAIR)
    hair = "black" if skin > 0.7 else str(rng.choice(names, p=list(_HAIR.values())))
    hair_colour = palette.HAIR_COLOURS[hair] + rng.normal(0, 0.015, 3)
    brow = 0.75 * palette.BROW_COLOURS[hair] + 0.25 * tone
    if bald := rng.random() < _BALD:
        hair_colour = tone * 0.97
    dark = ("brown", "hazel")
    eyes = str(rng.choice(dark if skin > 0.6 else tuple(palette.EYE_COLOURS)))
    lipstick = bool(rng.random() < 0.2)
    lips = tone * _LIP
    if lipstick:
        lips = 0.85 * _LIPSTICK[rng.integers(len(_LIPSTICK))] + 0.15 * lips
    colours = np.stack([tone, hair_colour, brow, lips, palette.EYE_COLOURS[eyes]])
    return Complexion(
        np.clip(colours, 0.02, 0.98),
        float(skin),
        "bald" if bald else hair,
        eyes,
        lipstick,
    )


class Colouring:
    """Albedo coefficients of a model by the colours of its materials.

    Args:
      model: the face model.
    """

    def __init__(self, model: FaceModel):
        material, unit = surface.materials(model), np.zeros((15, len(model.mean), 3))
        self.mean = np.zeros((5, 3))
        for number in range(5):
            if (where := material == number).any():
                self.mean[number] = model.albedo_mean[where].mean(0)
            for channel in range(3):
                unit[3 * number + channel, where, channel] = 1
        self.map = surface.fit_albedo(model, unit, material >= 0)  # [15,A]

    def __call__(self, person: Complexion) -> np.ndarray:
        """float32 [A] for the colours of a person."""
        offset = (person.colours - self.mean).reshape(-1)
        return (offset @ self.map).astype(np.float32)


def standardised(model: FaceModel, people: int = 400) -> FaceModel:
    """The model with the mean colours of people, and modes of unit variance."""
    rng, colouring = np.random.default_rng(0), Colouring(model)
    found = np.stack([colouring(sample(rng)) for _ in range(people)])
    mean = np.tensordot(found.mean(0), model.albedo, 1)
    spread = np.hypot(found.std(0), _FLOOR).astype(np.float32)
    return dataclasses.replace(
        model,
        albedo_mean=(model.albedo_mean + mean).astype(np.float32),
        albedo=model.albedo * spread[:, None, None],
    )
