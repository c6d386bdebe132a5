"""Words for attributes and expressions, and what labels claim."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

# A score says something only beyond these.
LOW, HIGH = 0.1, 0.9


@dataclasses.dataclass(frozen=True)
class Phrases:
    """Wordings of an attribute.

    Attributes:
      slot: "with" (with ...), "wearing" (wearing ...), "doing" (a participle or
        a phrase that stands alone).
      present, absent: alternatives; those of `absent` always stand alone.
      weight: how readily it is mentioned.
    """

    slot: str
    present: tuple[str, ...]
    absent: tuple[str, ...] = ()
    weight: float = 1.0


PHRASES: dict[str, Phrases] = {
    "Smiling": Phrases(
        "doing",
        ("smiling", "with a smile", "smiling happily"),
        ("with a serious face", "looking serious", "not smiling"),
        3.0,
    ),
    "Eyeglasses": Phrases(
        "wearing",
        ("glasses", "eyeglasses", "a pair of glasses"),
        ("with bare eyes", "bare-eyed", "without glasses"),
        3.0,
    ),
    "Wearing_Hat": Phrases(
        "wearing",
        ("a hat", "a hat on the head", "some headwear"),
        ("bareheaded", "with a bare head", "without a hat"),
        3.0,
    ),
    "Wearing_Mask": Phrases(
        "wearing",
        ("a face mask", "a surgical mask"),
        ("unmasked", "without a face mask"),
        3.0,
    ),
    "Mouth_Slightly_Open": Phrases(
        "with",
        ("an open mouth", "the mouth open", "parted lips"),
        ("with a closed mouth", "with closed lips"),
        1.5,
    ),
    "No_Beard": Phrases(
        "doing",
        ("clean-shaven", "with a shaven chin", "without a beard"),
        ("bearded", "with a beard"),
        1.5,
    ),
    "Mustache": Phrases(
        "with",
        ("a mustache", "a moustache"),
        ("with a bare upper lip", "without a mustache"),
        1.5,
    ),
    "Bald": Phrases("with", ("a bald head", "no hair on the head"), (), 2.0),
    "Bangs": Phrases("with", ("bangs", "a fringe over the forehead"), (), 1.5),
    "Receding_Hairline": Phrases("with", ("a receding hairline",), (), 0.5),
    "Wearing_Lipstick": Phrases(
        "wearing",
        ("lipstick", "red lipstick"),
        ("with bare lips", "without lipstick"),
        1.5,
    ),
    "Wearing_Necktie": Phrases(
        "wearing", ("a tie", "a necktie"), ("tieless", "without a tie"), 1.0
    ),
    "Wearing_Earrings": Phrases(
        "wearing",
        ("earrings", "a pair of earrings"),
        ("with bare ears", "without earrings"),
        1.0,
    ),
    "Wearing_Necklace": Phrases("wearing", ("a necklace",), (), 1.0),
    "Goatee": Phrases("with", ("a goatee", "a small chin beard"), (), 1.0),
    "Sideburns": Phrases("with", ("sideburns",), (), 0.5),
    "5_o_Clock_Shadow": Phrases("with", ("stubble", "a day's stubble"), (), 0.5),
    "Big_Nose": Phrases("with", ("a big nose", "a large nose"), (), 0.5),
    "Pointy_Nose": Phrases("with", ("a pointy nose",), (), 0.5),
    "Big_Lips": Phrases("with", ("full lips", "big lips"), (), 0.5),
    "Narrow_Eyes": Phrases("with", ("narrow eyes",), ("with wide eyes",), 0.5),
    "Bags_Under_Eyes": Phrases("with", ("bags under the eyes",), (), 0.3),
    "Bushy_Eyebrows": Phrases("with", ("bushy eyebrows", "thick eyebrows"), (), 0.7),
    "Arched_Eyebrows": Phrases("with", ("arched eyebrows",), (), 0.3),
    "Pale_Skin": Phrases("with", ("pale skin",), (), 0.7),
    "Rosy_Cheeks": Phrases("with", ("rosy cheeks",), (), 0.5),
    "High_Cheekbones": Phrases("with", ("high cheekbones",), (), 0.2),
    "Oval_Face": Phrases("with", ("an oval face",), (), 0.2),
    "Chubby": Phrases("with", ("a round face", "chubby cheeks"), (), 0.4),
    "Double_Chin": Phrases("with", ("a double chin",), (), 0.3),
    "Heavy_Makeup": Phrases("wearing", ("heavy makeup",), (), 0.5),
}
# Hair words share one noun: "with wavy blond hair".
HAIR_COLOURS = {
    "Black_Hair": ("black", "dark"),
    "Blond_Hair": ("blond", "blonde"),
    "Brown_Hair": ("brown",),
    "Gray_Hair": ("gray", "grey"),
}
HAIR_SHAPES = {"Wavy_Hair": ("wavy", "curly"), "Straight_Hair": ("straight",)}
# Tag lists, as beside stock pictures: present, absent ("" = not said). An absence has
# a word of its own: "glasses, no hat" and "no glasses, hat" are the same bag of words,
# and a young model reads bags.
TAGS = {
    "Smiling": ("smiling", "serious"),
    "Eyeglasses": ("glasses", "bare eyes"),
    "Wearing_Hat": ("hat", "bareheaded"),
    "Wearing_Mask": ("face mask", "unmasked"),
    "Mouth_Slightly_Open": ("open mouth", "closed mouth"),
    "No_Beard": ("clean-shaven", "beard"),
    "Mustache": ("mustache", "bare upper lip"),
    "Wearing_Lipstick": ("lipstick", "bare lips"),
    "Wearing_Necktie": ("tie", "tieless"),
    "Wearing_Earrings": ("earrings", "bare ears"),
    "Narrow_Eyes": ("narrow eyes", "wide eyes"),
    "Black_Hair": ("black hair", ""),
    "Blond_Hair": ("blond hair", ""),
    "Brown_Hair": ("brown hair", ""),
    "Gray_Hair": ("gray hair", ""),
    "Wavy_Hair": ("wavy hair", ""),
    "Straight_Hair": ("straight hair", ""),
}
EXPRESSIONS = {
    "happiness": "happy",
    "surprise": "surprised",
    "anger": "angry",
    "sadness": "sad",
    "disgust": "disgusted",
    "fear": "scared",
    "neutral": "calm",
}


def known(labels: Mapping[str, float], name: str) -> bool | None:
    """True, False, or None where the score is not confident or absent."""
    score = labels.get(name)
    if score is None or LOW <= score <= HIGH:
        return None
    return score > HIGH


def claims(labels: Mapping[str, float]) -> list[tuple[str, bool]]:
    """The (attribute, present) pairs that could be said of a picture."""
    result = []
    for name in (*PHRASES, *HAIR_COLOURS, *HAIR_SHAPES):
        state = known(labels, name)
        if state is None:
            continue
        if not state and not (name in PHRASES and PHRASES[name].absent):
            continue
        if name == "Mustache" and not state and known(labels, "Male") is False:
            continue  # nobody says it
        if name == "No_Beard" and state and known(labels, "Male") is False:
            continue
        if name == "Wearing_Lipstick" and not state and known(labels, "Male"):
            continue
        if name == "Wearing_Earrings" and not state and known(labels, "Male"):
            continue
        result.append((name, state))
    return result
