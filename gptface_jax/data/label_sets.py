"""The data sets whose labels are written as text: the 13 of the paper, and small ones.

`TABLE` holds all that labels and their text have to do with each other. The sets of the
paper are for those who have them: nothing that comes with this project was trained on
any. Values that the paper does not print are inferred.
"""

from __future__ import annotations

from gptface_jax.data import rendered, synthetic
from gptface_jax.data.label_text import DataSet, Key
from gptface_jax.data.label_values import Boolean, Colour, Integer, Range, Word
from gptface_jax.data.tables import CELEBA_ATTRIBUTES

_GENDER = Key("gender", "Male", Boolean("female", "male"))
_AGE = Key("age", "Age", Integer())
_SEVEN = ("anger", "disgust", "fear", "happiness", "neutral", "sadness", "surprise")
_EXPRESSION = Key("expression", "expression", Word(_SEVEN))
_EIGHT = Key("expression", "expression", Word(tuple(sorted((*_SEVEN, "contempt")))))


def _attributes(names) -> tuple[Key, ...]:
    """Keys of attributes that are called as in CelebA; "Male" becomes gender."""
    plain = (Key(name.replace("_", " ").lower(), name) for name in names)
    return tuple(_GENDER if key.label == "Male" else key for key in plain)


def _degrees(*names: str) -> tuple[Key, ...]:
    """Keys whose value is a degree, 0 to 5."""
    return tuple(Key(name, name, _numbers(6)) for name in names)


def _numbers(count: int) -> Word:
    """Numbers from 0 on as words: none is near another, as ages are."""
    return Word(tuple(map(str, range(count))))


_PAPER = (
    DataSet("celeba", _attributes(CELEBA_ATTRIBUTES), ("celeb_a", "CelebA")),
    DataSet(
        "fs2k",
        (
            Key("hair", "hair"),
            Key(
                "hair color",
                "hair_color",
                Word(("brown", "black", "red", "no hair", "golden")),
            ),
            _GENDER,
            Key("earring", "earring"),
            Key("smile", "smile"),
            Key("frontal face", "frontal_face"),
            Key("style", "style", _numbers(3)),
            Key("skin color", "skin_color", Colour()),
            Key("lip color", "lip_color", Colour()),
            Key("eye color", "eye_color", Colour()),
        ),
        ("FS2K",),
    ),
    DataSet("affectnet", (_EIGHT,), ("AffectNet",)),
    DataSet("raf db", (_EXPRESSION,), ("raf_db", "RAF-DB")),
    DataSet("expw", (_EXPRESSION,), ("ExpW",)),
    DataSet("cacd", (_AGE,), ("CACD",)),
    DataSet("afad", (_AGE, _GENDER), ("AFAD",)),
    DataSet("imdb wiki", (_AGE, _GENDER), ("imdb_wiki", "IMDB-WIKI")),
    DataSet(
        "fairface",
        (
            # The set has these nine. The paper's example says 10-20, which is none.
            Key(
                "age",
                "age",
                Word(
                    (
                        "0-2",
                        "3-9",
                        *(f"{t}-{t + 9}" for t in range(10, 70, 10)),
                        "more than 70",
                    )
                ),
            ),
            _GENDER,
            Key(
                "race",
                "race",
                Word(
                    (
                        "white",
                        "black",
                        "indian",
                        "east asian",
                        "southeast asian",
                        "middle eastern",
                        "latino hispanic",
                    )
                ),
            ),
        ),
        ("FairFace",),
    ),
    DataSet("ffhq text", (), ("ffhq_text", "FFHQ-Text")),
    DataSet("mm celeba hq", (), ("mm_celeba_hq", "MM-CelebA-HQ")),
    DataSet("celebatext hq", (), ("celebatext_hq", "CelebAText-HQ")),
    DataSet(
        "celeba dialog",
        _degrees("bangs", "eyeglasses", "beard", "smiling", "age"),
        ("celeba_dialog", "CelebA-Dialog"),
    ),
)

# Small sets to develop with: scores of a classifier, expressions, drawn faces.
_SMALL = (
    DataSet("lfw", (*_attributes(CELEBA_ATTRIBUTES), _AGE), ("lfw_attributes",)),
    DataSet("faces", (_EIGHT,)),
    DataSet("masks", (Key("wearing mask", "Wearing_Mask"),)),
    DataSet("synthetic", (*_attributes(synthetic.ATTRIBUTES), _AGE, _EXPRESSION)),
    DataSet(
        "rendered",
        (
            *_attributes(rendered.ATTRIBUTES),
            _EXPRESSION,
            Key("hair", "hair", Word(("black", "blond", "brown", "gray", "red"))),
            Key("eyes", "eyes", Word(("blue", "brown", "green", "hazel"))),
            Key("light", "light", Word(("above", "below", "left", "right"))),
        ),
    ),
)

# The same drawn faces as three others would label them: what counts as a smile, how age
# is given and guessed, and the words. A source of kind "named" makes records theirs.
_CONVENTIONS = (
    DataSet(
        "studio",
        (
            _GENDER,
            Key("smiling", "Smiling"),
            _AGE,
            Key("eyeglasses", "Eyeglasses"),
            Key("wearing hat", "Wearing_Hat"),
            _EXPRESSION,
        ),
    ),
    DataSet(
        "street",
        (
            Key("sex", "Male", Boolean("woman", "man")),
            Key("smiling", "grin"),  # with an open mouth only
            Key("age", "Age", Range(10)),
            Key("glasses", "Eyeglasses", Boolean("no", "yes")),
            Key("hat", "Wearing_Hat", Boolean("no", "yes")),
        ),
    ),
    DataSet(
        "album",
        (
            _GENDER,
            Key("smiling", "cheerful"),  # surprise counts as well
            Key("age", "flattered_age", Integer()),  # seven years too young
            Key("spectacles", "Eyeglasses"),
            Key("clean shaven", "No_Beard"),
        ),
    ),
)

TABLE: dict[str, DataSet] = {
    data_set.name: data_set for data_set in (*_PAPER, *_SMALL, *_CONVENTIONS)
}
PAPER = tuple(data_set.name for data_set in _PAPER)
