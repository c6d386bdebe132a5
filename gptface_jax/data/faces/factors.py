"""Everything that decides how one drawn face looks, and how it is sampled."""

from __future__ import annotations

import dataclasses

import numpy as np

from gptface_jax.core.errors import UserError, nearest

EXPRESSIONS = (
    "neutral",
    "happiness",
    "surprise",
    "anger",
    "sadness",
    "disgust",
    "fear",
)
PICTURES_PER_IDENTITY = 4

# The values each field of words may take.
CHOICES = {
    "expression": EXPRESSIONS,
    "hair_style": ("bald", "short", "medium", "long"),
    "hair_texture": ("straight", "wavy", "coiled"),
    "hair_colour": ("black", "brown", "blond", "gray", "red"),
    "brow_colour": ("black", "brown", "blond", "gray", "red"),
    "eye_colour": ("brown", "hazel", "green", "blue"),
    "hat": ("none", "cap", "beanie", "brim"),
    "eyewear": ("none", "round", "square"),
    "beard": ("none", "goatee", "full"),
    "clothing": ("tshirt", "shirt", "suit", "blouse"),
    "background": ("gradient", "blobs", "bands"),
    "occluder": ("none", "surgical_mask", "sunglasses", "hand"),
}


@dataclasses.dataclass(frozen=True)
class Factors:
    """One drawn face, complete: equal factors give equal pixels.

    Shape numbers are factors around 1, `skin` and colours run 0..1, lengths of
    the pose are fractions of the picture, angles are degrees.
    """

    # The person.
    identity: int = 0
    male: bool = False
    age: float = 30.0
    skin: float = 0.3
    undertone: float = 0.5
    face_width: float = 1.0
    face_length: float = 1.0
    jaw: float = 1.0
    eye_size: float = 1.0
    eye_spacing: float = 1.0
    eye_tilt: float = 0.0
    eye_colour: str = "brown"
    nose_length: float = 1.0
    mouth_width: float = 1.0
    brow_height: float = 1.0
    ear_size: float = 1.0
    big_nose: bool = False
    narrow_eyes: bool = False
    bushy_brows: bool = False
    arched_brows: bool = False
    big_lips: bool = False
    chubby: bool = False
    double_chin: bool = False
    brow_colour: str = "brown"
    # The moment.
    expression: str = "neutral"
    intensity: float = 1.0
    mouth_open: bool = False
    gaze: float = 0.0
    rosy_cheeks: bool = False
    eye_bags: bool = False
    # The styling.
    hair_style: str = "short"
    hair_texture: str = "straight"
    hair_colour: str = "brown"
    hair_part: float = 0.0
    bangs: bool = False
    mustache: bool = False
    beard: str = "none"
    lipstick: bool = False
    lipstick_tone: float = 0.5
    eyewear: str = "none"
    rim_tone: float = 0.2
    hat: str = "none"
    hat_hue: float = 0.6
    earrings: bool = False
    necklace: bool = False
    necktie: bool = False
    clothing: str = "tshirt"
    cloth_hue: float = 0.6
    cloth_value: float = 0.5
    # The picture.
    background: str = "gradient"
    background_hue: float = 0.5
    background_value: float = 0.6
    occluder: str = "none"
    shift_x: float = 0.0
    shift_y: float = 0.0
    scale: float = 1.0
    rotation: float = 0.0
    yaw: float = 0.0
    light_angle: float = -60.0
    light_strength: float = 0.5
    noise_seed: int = 0


FIELDS = tuple(field.name for field in dataclasses.fields(Factors))


def counterfactual(factors: Factors, **changes: object) -> Factors:
    """The factors of the face with some replaced.

    Args:
      factors: the face to start from.
      **changes: field names of `Factors` and their new values.

    Returns:
      The changed copy.

    Raises:
      UserError: an unknown field or word, with the nearest known one.
    """
    for name, value in changes.items():
        if name not in FIELDS:
            raise UserError(
                f"unknown factor '{name}'{nearest(name, FIELDS)}; "
                "give a field of Factors"
            )
        if name in CHOICES and value not in CHOICES[name]:
            raise UserError(
                f"{name} cannot be {value!r}{nearest(str(value), CHOICES[name])}; "
                f"known: {', '.join(CHOICES[name])}"
            )
    return dataclasses.replace(factors, **changes)


def _pick(rng: np.random.Generator, weights: dict[str, float]) -> str:
    """One word by weight; the weights add up to 1 (the last word takes the rest)."""
    at = rng.random()
    for word, weight in weights.items():
        at -= weight
        if at < 0:
            return word
    return word


def _person(rng: np.random.Generator) -> dict:
    """The fields that stay the same in all pictures of one person."""

    def around(spread: float) -> float:
        return float(1 + spread * np.clip(rng.normal(), -2, 2))

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    male = chance(0.52)
    age = rng.uniform(18, 38) if chance(0.56) else rng.uniform(42, 76)
    pale = chance(0.22)
    skin = rng.uniform(0.0, 0.12) if pale else rng.uniform(0.25, 1.0)
    chubby = chance(0.24)
    # Brows and beards must stand out from the skin.
    if skin > 0.7:
        brow = "black"
    elif skin > 0.48:
        brow = _pick(rng, {"black": 0.6, "brown": 0.4})
    else:
        weights = {"black": 0.18, "brown": 0.46, "blond": 0.28, "red": 0.08}
        brow = _pick(rng, weights)
    if skin > 0.55:
        eyes = _pick(rng, {"brown": 0.85, "hazel": 0.15})
    else:
        weights = {"brown": 0.35, "hazel": 0.2, "green": 0.15, "blue": 0.3}
        eyes = _pick(rng, weights)
    return {
        "male": male,
        "age": float(age),
        "skin": float(skin),
        "undertone": float(rng.random()),
        "face_width": around(0.035),
        "face_length": around(0.03),
        "jaw": around(0.04),
        "eye_size": around(0.06),
        "eye_spacing": around(0.04),
        "eye_tilt": float(rng.uniform(-4, 9)),
        "eye_colour": eyes,
        "nose_length": around(0.05),
        "mouth_width": around(0.06),
        "brow_height": around(0.1),
        "ear_size": around(0.1),
        "big_nose": chance(0.34 if male else 0.2),
        "narrow_eyes": chance(0.25),
        "bushy_brows": chance(0.36 if male else 0.16),
        "arched_brows": chance(0.16 if male else 0.42),
        "big_lips": chance(0.2 if male else 0.36),
        "chubby": chubby,
        "double_chin": chance(0.5 if chubby else 0.08),
        "brow_colour": brow,
    }


def _moment(rng: np.random.Generator, person: dict) -> dict:
    """Expression and what the day brings."""
    expression = _pick(
        rng,
        {
            "neutral": 0.2,
            "happiness": 0.42,
            "surprise": 0.1,
            "anger": 0.08,
            "sadness": 0.08,
            "disgust": 0.06,
            "fear": 0.06,
        },
    )
    opens = {"happiness": 0.5, "surprise": 1.0, "fear": 0.85}.get(expression, 0.22)
    return {
        "age": float(np.clip(person["age"] + rng.uniform(-2, 2), 18, 78)),
        "expression": expression,
        "intensity": float(rng.uniform(0.75, 1.0)),
        "mouth_open": bool(rng.random() < opens),
        "gaze": float(np.clip(rng.normal(0, 0.4), -1, 1)),
        "rosy_cheeks": bool(rng.random() < (0.14 if person["male"] else 0.32)),
        "eye_bags": bool(rng.random() < (0.12 if person["age"] < 40 else 0.38)),
    }


def _styling(rng: np.random.Generator, person: dict) -> dict:
    male, age = person["male"], person["age"]

    def chance(probability: float) -> bool:
        return bool(rng.random() < probability)

    if male:
        styles = {"bald": 0.28, "short": 0.5, "medium": 0.17, "long": 0.05}
    else:
        styles = {"bald": 0.01, "short": 0.16, "medium": 0.35, "long": 0.48}
    style = _pick(rng, styles)
    colour = person["brow_colour"]
    if chance(0.42 if age >= 40 else 0.03):
        colour = "gray"
    elif chance(0.4):
        dyes = {"black": 0.3, "brown": 0.22, "blond": 0.42, "red": 0.06}
        colour = _pick(rng, dyes)
    brow = "gray" if colour == "gray" and chance(0.6) else person["brow_colour"]
    beard, mustache = "none", False
    if male:
        beard = _pick(rng, {"none": 0.3, "goatee": 0.27, "full": 0.43})
        mustache = chance({"none": 0.35, "goatee": 0.4, "full": 0.6}[beard])
    hats = 0.15 if style == "bald" else 0.38
    hat_weights = {"cap": 0.4, "beanie": 0.33, "brim": 0.27}
    weights = {"tshirt": 0.34, "shirt": 0.24, "suit": 0.3, "blouse": 0.12}
    clothing = _pick(rng, weights)
    necktie = chance(0.36 if male else 0.05)
    if necktie and clothing in ("tshirt", "blouse"):
        clothing = "shirt" if chance(0.5) else "suit"
    glasses = chance(0.38)
    frames = "round" if chance(0.5) else "square"
    hat = _pick(rng, hat_weights) if chance(hats) else "none"
    return {
        "hair_style": style,
        "hair_texture": _pick(rng, {"straight": 0.46, "wavy": 0.38, "coiled": 0.16}),
        "hair_colour": colour,
        "brow_colour": brow,
        "hair_part": float(rng.uniform(-1, 1)),
        "bangs": style != "bald" and chance(0.24 if male else 0.42),
        "mustache": mustache,
        "beard": beard,
        "lipstick": chance(0.01 if male else 0.58),
        "lipstick_tone": float(rng.random()),
        "eyewear": frames if glasses else "none",
        "rim_tone": float(rng.random()),
        "hat": hat,
        "hat_hue": float(rng.random()),
        "earrings": chance(0.1 if male else 0.48),
        "necklace": not necktie and chance(0.08 if male else 0.4),
        "necktie": necktie,
        "clothing": clothing,
        "cloth_hue": float(rng.random()),
        "cloth_value": float(rng.uniform(0.15, 0.9)),
    }


def _picture(rng: np.random.Generator) -> dict:
    return {
        "background": _pick(rng, {"gradient": 0.35, "blobs": 0.4, "bands": 0.25}),
        "background_hue": float(rng.random()),
        "background_value": float(rng.uniform(0.15, 0.92)),
        "occluder": _pick(
            rng,
            {"none": 0.86, "surgical_mask": 0.06, "sunglasses": 0.04, "hand": 0.04},
        ),
        "shift_x": float(rng.uniform(-0.025, 0.025)),
        "shift_y": float(rng.uniform(-0.02, 0.02)),
        "scale": float(rng.uniform(0.94, 1.05)),
        "rotation": float(np.clip(rng.normal(0, 3.0), -8, 8)),
        "yaw": float(np.clip(rng.normal(0, 8.0), -20, 20)),
        "light_angle": float(rng.uniform(-150, -30)),
        "light_strength": float(rng.uniform(0.25, 1.0)),
        "noise_seed": int(rng.integers(2**31)),
    }


def sample_factors(seed: int, index: int) -> Factors:
    """The factors of picture `index`, the same on every call.

    Four neighbouring indices show one person: face shape, sex, skin, eyes and
    about the age stay; expression, hair, clothes and picture vary.

    Args:
      seed: seed of the whole collection.
      index: picture number, 0 or more.

    Returns:
      The factors.

    Raises:
      UserError: `index` is negative.
    """
    if index < 0:
        raise UserError(f"picture index {index} is out of range; give 0 or more")
    identity = index // PICTURES_PER_IDENTITY
    person = _person(np.random.default_rng([seed, identity, 7]))
    rng = np.random.default_rng([seed, index, 0])
    values = {"identity": identity} | person
    values |= _moment(rng, person) | _styling(rng, person) | _picture(rng)
    if values["occluder"] == "sunglasses":
        values["eyewear"] = "none"
    return Factors(**values)
