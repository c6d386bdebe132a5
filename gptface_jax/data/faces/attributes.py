"""CelebA-style labels of a drawn face, and setting one of them."""

from __future__ import annotations

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data.faces.factors import Factors, counterfactual

# CelebA calls a face young up to about this age in years.
YOUNG_BELOW = 40.0
PALE_BELOW = 0.18
# Score of an attribute that cannot be seen in this picture.
UNSEEN = 0.5

ATTRIBUTES = (
    "Smiling",
    "Eyeglasses",
    "Male",
    "Wearing_Hat",
    "Mustache",
    "No_Beard",
    "Goatee",
    "Bald",
    "Bangs",
    "Black_Hair",
    "Blond_Hair",
    "Brown_Hair",
    "Gray_Hair",
    "Wavy_Hair",
    "Straight_Hair",
    "Wearing_Lipstick",
    "Young",
    "Pale_Skin",
    "Big_Nose",
    "Narrow_Eyes",
    "Bushy_Eyebrows",
    "Arched_Eyebrows",
    "Mouth_Slightly_Open",
    "Wearing_Earrings",
    "Wearing_Necktie",
    "Wearing_Necklace",
    "Rosy_Cheeks",
    "Big_Lips",
    "Double_Chin",
    "Chubby",
    "Bags_Under_Eyes",
)

_HAIR_COLOURS = {
    "Black_Hair": "black",
    "Blond_Hair": "blond",
    "Brown_Hair": "brown",
    "Gray_Hair": "gray",
}
_TEXTURES = {"Wavy_Hair": "wavy", "Straight_Hair": "straight"}
_FLAGS = {
    "Male": "male",
    "Mustache": "mustache",
    "Bangs": "bangs",
    "Wearing_Lipstick": "lipstick",
    "Big_Nose": "big_nose",
    "Narrow_Eyes": "narrow_eyes",
    "Bushy_Eyebrows": "bushy_brows",
    "Arched_Eyebrows": "arched_brows",
    "Mouth_Slightly_Open": "mouth_open",
    "Wearing_Earrings": "earrings",
    "Wearing_Necktie": "necktie",
    "Wearing_Necklace": "necklace",
    "Rosy_Cheeks": "rosy_cheeks",
    "Big_Lips": "big_lips",
    "Double_Chin": "double_chin",
    "Chubby": "chubby",
    "Bags_Under_Eyes": "eye_bags",
}

_UNDER_MASK = (
    "Smiling",
    "Mustache",
    "No_Beard",
    "Goatee",
    "Wearing_Lipstick",
    "Big_Nose",
    "Mouth_Slightly_Open",
    "Rosy_Cheeks",
    "Big_Lips",
    "Double_Chin",
)
_BEHIND_HAND = (
    "Eyeglasses",
    "Narrow_Eyes",
    "Bushy_Eyebrows",
    "Arched_Eyebrows",
    "Bags_Under_Eyes",
)
_BEHIND_SUNGLASSES = ("Narrow_Eyes", "Bags_Under_Eyes")
_HIDDEN = {
    "none": (),
    "surgical_mask": _UNDER_MASK,
    "hand": _BEHIND_HAND,
    "sunglasses": _BEHIND_SUNGLASSES,
}


def _truth(factors: Factors) -> dict[str, bool]:
    """Every attribute as it is, seen or not."""
    hair = factors.hair_style != "bald"
    truth = {name: bool(getattr(factors, field)) for name, field in _FLAGS.items()}
    for name, colour in _HAIR_COLOURS.items():
        truth[name] = hair and factors.hair_colour == colour
    for name, texture in _TEXTURES.items():
        truth[name] = hair and factors.hair_texture == texture
    truth["Bangs"] = hair and factors.bangs
    truth["Smiling"] = factors.expression == "happiness"
    truth["Eyeglasses"] = factors.eyewear != "none" or factors.occluder == "sunglasses"
    truth["Wearing_Hat"] = factors.hat != "none"
    truth["No_Beard"] = factors.beard == "none"
    truth["Goatee"] = factors.beard == "goatee"
    truth["Bald"] = not hair
    truth["Young"] = factors.age < YOUNG_BELOW
    truth["Pale_Skin"] = factors.skin < PALE_BELOW
    return truth


def hidden(factors: Factors) -> frozenset[str]:
    """The attributes that cannot be seen in the picture of `factors`."""
    names = set(_HIDDEN[factors.occluder])
    if factors.hat != "none":
        names |= {"Bangs"}
        if factors.hair_style == "bald":
            names |= {"Bald"}
        if factors.hair_style == "short":
            names |= {"Wavy_Hair", "Straight_Hair"}
    return frozenset(names)


def labels(factors: Factors) -> dict[str, float]:
    """The truth about a drawn face, as CelebA would name it.

    No_Beard says that the chin has neither beard nor goatee; a mustache does not
    count. Smiling is the expression "happiness". Coiled hair is neither straight
    nor wavy.

    Returns:
      Every name of `ATTRIBUTES` with 0.0 or 1.0, or 0.5 where an occluder or a
      hat hides it, and "Age" in years.
    """
    unseen = hidden(factors)
    truth = _truth(factors)
    scores = {
        name: UNSEEN if name in unseen else float(truth[name]) for name in ATTRIBUTES
    }
    scores["Age"] = float(factors.age)
    return scores


def _changes(factors: Factors, name: str, present: bool) -> dict:
    """The fields that make attribute `name` true or false."""
    hair = factors.hair_style != "bald"
    grown = {} if hair else {"hair_style": "short" if factors.male else "long"}
    if name in _HAIR_COLOURS:
        if present:
            return grown | {"hair_colour": _HAIR_COLOURS[name]}
        return {"hair_colour": "black" if name == "Brown_Hair" else "brown"}
    if name in _TEXTURES:
        return (grown if present else {}) | {
            "hair_texture": _TEXTURES[name] if present else "coiled"
        }
    if name == "Bangs":
        return (grown if present else {}) | {"bangs": present}
    if name == "Bald":
        return {"hair_style": "bald"} if present else grown
    if name == "Smiling":
        return {"expression": "happiness" if present else "neutral"}
    if name == "Eyeglasses":
        shades = {"occluder": "none"} if factors.occluder == "sunglasses" else {}
        return {"eyewear": "square" if present else "none"} | shades
    if name == "Wearing_Hat":
        return {"hat": "cap" if present else "none"}
    if name == "No_Beard":
        return {"beard": "none" if present else "full"}
    if name == "Goatee":
        return {"beard": "goatee" if present else "none"}
    if name == "Young":
        return {"age": 25.0 if present else 62.0}
    if name == "Pale_Skin":
        return {"skin": 0.05 if present else 0.4}
    if name == "Male" and not present:
        return {"male": False, "beard": "none", "mustache": False}
    if name == "Wearing_Necktie" and present:
        collar = {"clothing": "shirt"} if factors.clothing in _NO_COLLAR else {}
        return {"necktie": True, "necklace": False} | collar
    if name == "Wearing_Necklace" and present:
        return {"necklace": True, "necktie": False}
    return {_FLAGS[name]: present}


_NO_COLLAR = ("tshirt", "blouse")


def set_attribute(factors: Factors, name: str, present: bool) -> Factors:
    """The factors with one attribute true or false, and visible.

    Changes only that and what it forces: hair colours exclude each other, hair
    grows where it must, a tie needs a collar, and an occluder or hat that would
    hide the attribute comes off.

    Args:
      factors: the face to start from.
      name: one of `ATTRIBUTES`.
      present: whether the face shall have it.

    Returns:
      The changed copy; `factors` itself where it already shows what is asked.

    Raises:
      UserError: an unknown attribute, with the nearest one.
    """
    if name not in ATTRIBUTES:
        raise UserError(
            f"unknown attribute '{name}'{nearest(name, ATTRIBUTES)}; "
            "give one of synthetic.ATTRIBUTES"
        )
    changed = factors
    if _truth(factors)[name] != present:
        changed = counterfactual(factors, **_changes(factors, name, present))
    if name in _HIDDEN[changed.occluder]:
        changed = counterfactual(changed, occluder="none")
    if name in hidden(changed):
        changed = counterfactual(changed, hat="none")
    return changed
