"""One rendered head: what decides its picture, by chance, and what words say of it."""

from __future__ import annotations

import dataclasses

import numpy as np

from gptface_jax.data import rendering
from gptface_jax.data.facemodel import FaceModel
from gptface_jax.data.facemodel.complexion import Colouring, Complexion
from gptface_jax.data.facemodel.complexion import sample as sample_complexion
from gptface_jax.data.faces import palette

# Expression word -> weights of shapes at full strength; both sides alike.
RECIPES = {
    "neutral": {},
    "happiness": {"mouthSmile": 1.0, "cheekSquint": 0.6, "jawOpen": 0.2,
                  "mouthUpperUp": 0.3},
    "surprise": {"browInnerUp": 0.9, "browOuterUp": 0.9, "eyeWide": 0.9,
                 "jawOpen": 0.8},
    "anger": {"browDown": 1.0, "noseSneer": 0.5, "mouthPress": 0.7, "eyeSquint": 0.4,
              "mouthFrown": 0.4},
    "sadness": {"browInnerUp": 0.9, "mouthFrown": 1.0, "mouthShrugLower": 0.5,
                "eyeLookDown": 0.4},
    "disgust": {"noseSneer": 1.0, "mouthUpperUp": 0.9, "browDown": 0.5,
                "cheekSquint": 0.6, "mouthFrown": 0.4},
    "fear": {"browInnerUp": 1.0, "browOuterUp": 0.4, "eyeWide": 1.0,
             "mouthStretch": 0.9, "jawOpen": 0.25},
}  # fmt: skip
# How often: the two that are common in photographs first.
_SHARES = {"neutral": 0.28, "happiness": 0.27, "surprise": 0.1, "anger": 0.1,
           "sadness": 0.09, "disgust": 0.08, "fear": 0.08}  # fmt: skip
# Hair colour -> attribute, as in CelebA.
_HAIR = {"black": "Black_Hair", "brown": "Brown_Hair", "blond": "Blond_Hair",
         "gray": "Gray_Hair"}  # fmt: skip
# Attribute -> identity mode and the least of it; below 0 the attribute is absent.
_MODES = {"Big_Nose": ("nose_width", 1.0), "Chubby": ("cheek_fullness", 1.0),
          "Big_Lips": ("lip_thickness", 1.0), "Narrow_Eyes": ("eye_narrow", 0.9),
          "Double_Chin": ("double_chin", 1.0)}  # fmt: skip
_PALE, _DARK = 0.12, 0.2
ATTRIBUTES = ("Smiling", "Mouth_Slightly_Open", "Pale_Skin", *_HAIR.values(), "Bald",
              "Wearing_Lipstick", *_MODES)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Head:
    """A head in front of a camera.

    Attributes:
      id_coeffs, exp_coeffs, albedo_coeffs: float32, see `FaceModel`.
      sh_light: float32 [9,3].
      pose: float32 [6], see `data.rendering`.
      expression: a word of `RECIPES`.
      person: colours.
      angles: yaw (positive: to the picture's right), pitch (down) and roll in degrees.
      lit_from: where the light is, [3] in the camera's coordinates, of length 1.
    """

    id_coeffs: np.ndarray
    exp_coeffs: np.ndarray
    albedo_coeffs: np.ndarray
    sh_light: np.ndarray
    pose: np.ndarray
    expression: str
    person: Complexion
    angles: tuple[float, float, float]
    lit_from: np.ndarray


def shapes(model: FaceModel, word: str, strength: float) -> np.ndarray:
    """Expression coefficients [E] of a word at a strength in 0..1.

    Shapes that the model lacks are left out.
    """
    found = np.zeros(len(model.expression), np.float32)
    for name, weight in RECIPES[word].items():
        for full in (name, f"{name}_L", f"{name}_R"):
            if full in model.expression_names:
                found[model.expression_names.index(full)] = weight * strength
    return found


def can_show(model: FaceModel, word: str) -> bool:
    """Whether the model has most shapes of an expression, by their weights."""
    names = {_of_both_sides(name) for name in model.expression_names}
    recipe = RECIPES[word]
    found = sum(weight for name, weight in recipe.items() if name in names)
    return 2 * found >= sum(recipe.values())


def _of_both_sides(name: str) -> str:
    return name.removesuffix("_L").removesuffix("_R")


def sample(model: FaceModel, colouring: Colouring, rng: np.random.Generator) -> Head:
    """A head by chance."""
    id_coeffs = np.clip(rng.normal(size=len(model.identity)), -2.5, 2.5)
    person = sample_complexion(rng)
    albedo = colouring(person) + rng.normal(0, 0.2, len(model.albedo))
    word = str(rng.choice(list(_SHARES), p=list(_SHARES.values())))
    word = word if can_show(model, word) else "neutral"
    exp_coeffs = shapes(model, word, rng.uniform(0.7, 1.1))
    # Nobody's face is still: a few shapes move a little, looks and lids more.
    stirred = rng.random(len(exp_coeffs)) < 0.12
    exp_coeffs = exp_coeffs + stirred * rng.uniform(0, 0.25, len(exp_coeffs))
    exp_coeffs *= rng.uniform(0.85, 1.0, len(exp_coeffs))
    angles = np.clip(rng.normal(0, [20, 8, 6]), -60, 60)
    pose = np.r_[
        rotation_vector(*np.deg2rad(angles)), rng.normal(0, 0.05, 2),
        rng.normal(0.12, 0.09),
    ]  # fmt: skip
    way, light = _light(rng)
    as_float = (
        np.float32(x)
        for x in (id_coeffs, np.clip(exp_coeffs, 0, 1), albedo, light, pose)
    )
    return Head(*as_float, word, person, tuple(angles), way)


def rotation_vector(yaw: float, pitch: float, roll: float) -> np.ndarray:
    """Rotation vector [3] of a turn about y, then x, then z, in radians."""
    turns = ((0, yaw, 0), (pitch, 0, 0), (0, 0, roll))
    whole = np.eye(3)
    for vector in turns:
        whole = rendering.rotation(np.array(vector, float)) @ whole
    return rendering.vector_of(whole)


def _light(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A direction [3], and the light [9,3] of a lamp there in a room that is lit."""
    way = rng.normal(size=3) * [1, 0.7, 0.5] + [0, 0.35, 0.9]
    way[2] = abs(way[2])
    way /= np.linalg.norm(way)
    lamp = rng.uniform(0.2, 0.6) * (1 + rng.normal(0, 0.05, 3))
    room = rng.uniform(0.35, 0.65) * (1 + rng.normal(0, 0.03, 3))
    light = rendering.ambient(1.0) * room
    # A lamp's light on a matt surface: Ramamoorthi and Hanrahan 2001, equation 8.
    bands = np.repeat([np.pi, 2 * np.pi / 3, np.pi / 4], [1, 3, 5])
    return way, light + (bands * rendering.harmonics(way))[:, None] * lamp


def labels(model: FaceModel, head: Head) -> dict[str, float]:
    """Attributes as in CelebA, 1 present and 0 absent.

    What is between is left out, and what the model cannot show.
    """
    person, found = head.person, {}

    def shape(name: str) -> float:
        """Mean weight of both sides' shapes; NaN without any, which is between."""
        values = [
            head.exp_coeffs[i]
            for i, full in enumerate(model.expression_names)
            if _of_both_sides(full) == name
        ]
        return float(np.mean(values)) if values else np.nan

    pale = 1 - person.skin if _coloured(model, palette.SKIN) else np.nan
    for name, value, present, absent in (
        ("Smiling", shape("mouthSmile"), 0.5, 0.2),
        ("Mouth_Slightly_Open", shape("jawOpen"), 0.2, 0.08),
        ("Pale_Skin", pale, 1 - _PALE, 1 - _DARK),
    ):
        if value >= present or value <= absent:
            found[name] = float(value >= present)
    if _coloured(model, palette.HAIR):
        for colour, name in _HAIR.items():
            found[name] = float(person.hair == colour)
        found["Bald"] = float(person.hair == "bald")
    if _coloured(model, palette.U_LIP, palette.L_LIP):
        found["Wearing_Lipstick"] = float(person.lipstick)
    for name, (mode, least) in _MODES.items():
        if mode in model.identity_names:
            value = head.id_coeffs[model.identity_names.index(mode)]
            if value >= least or value <= 0.3:
                found[name] = float(value >= least)
    return found


def _coloured(model: FaceModel, *regions: int) -> bool:
    """Whether the model has one of these regions, and colours of people."""
    return len(model.albedo) > 0 and bool(np.isin(regions, model.regions).any())


def facts(model: FaceModel, head: Head) -> dict[str, str]:
    """Further facts for captions: colours of hair and eyes, pose and light."""
    yaw, pitch, _ = head.angles
    found = {}
    if _coloured(model, palette.L_EYE, palette.R_EYE):
        found["eyes"] = head.person.eyes
    if head.person.hair != "bald" and _coloured(model, palette.HAIR):
        found["hair"] = head.person.hair
    if abs(yaw) > 20 or abs(pitch) > 12:
        side = ("right" if yaw > 0 else "left") if abs(yaw) > 20 else ""
        up = ("down" if pitch > 0 else "up") if abs(pitch) > 12 else ""
        found["pose"] = " and ".join(x for x in (side, up) if x)
    else:
        found["pose"] = "straight"
    x, y, _ = head.lit_from
    if max(abs(x), abs(y)) > 0.45:
        places = ("right", "left") if abs(x) > abs(y) else ("above", "below")
        found["light"] = places[0 if (x if abs(x) > abs(y) else y) > 0 else 1]
    return found


def detail(said: dict[str, str]) -> str:
    """Words for the facts that a caption leaves out: ", looking left, ..." """
    parts = []
    if said["pose"] != "straight":
        parts.append(f"looking {said['pose']}")
    if "light" in said:
        side = said["light"]
        where = f"from {side}" if side in ("above", "below") else f"from the {side}"
        parts.append(f"lit {where}")
    return "".join(f", {part}" for part in parts)
