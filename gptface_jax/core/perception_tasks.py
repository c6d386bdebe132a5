"""Tasks of face perception as one table (SPEC part C).

A task is a family on a data set, "age_morph2": the family says how it is asked, learnt
and judged, the data set how many answers there are and what they are called. Further
ones need no row here: a model's config may name any "family_dataset" with its queries.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

# Of pixels in 0..1: what takes them to -1..1, and CLIP's statistics (SPEC C.2).
UNIT = ((0.5,) * 3, (0.5,) * 3)
CLIP = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))


@dataclasses.dataclass(frozen=True)
class Family:
    """How tasks of a family are asked, learnt and judged.

    Attributes:
      interpreter: what reads the queries: "value" (a number each), "map" (a map each),
        or "feature" (none: a vector of the picture).
      output: kind of prediction: "logits", "parsing", "landmarks" or "embedding".
      loss: of `systems.faceptor.objective`.
      metric: the main one on held-out pictures.
      statistics: (mean, std) of pixels in 0..1 with which released models were trained.
    """

    interpreter: str
    output: str
    loss: str
    metric: str
    statistics: tuple[tuple[float, ...], tuple[float, ...]] = UNIT

    @property
    def dense(self) -> bool:
        """Whether it is asked of the larger pictures."""
        return self.interpreter == "map"


FAMILIES: Mapping[str, Family] = {
    "recog": Family("feature", "embedding", "cosface", "verification"),
    "age": Family("value", "logits", "age", "mae"),
    "biattr": Family("value", "logits", "binary", "accuracy"),
    "affect": Family("value", "logits", "cross_entropy", "accuracy"),
    "parsing": Family("map", "parsing", "pixels", "f1", CLIP),
    "align": Family("map", "landmarks", "landmarks", "nme", CLIP),
}


@dataclasses.dataclass(frozen=True)
class DataSet:
    """Output size of a data set and the label scheme that names it.

    Schemes are those of `data.schemes`, "years" (0 .. 100), "celeba" (its attributes),
    "seven" (`EXPRESSIONS`) and "identity".
    """

    queries: int
    scheme: str


_YEARS, _SEVEN = DataSet(101, "years"), DataSet(7, "seven")
_CELEBA, _PEOPLE = DataSet(40, "celeba"), DataSet(0, "identity")
TABLE: Mapping[str, DataSet] = {
    # Of the released models.
    "recog_ms1mv3": _PEOPLE,
    "age_morph2": _YEARS,
    "age_utkface": _YEARS,
    "biattr_celeba": _CELEBA,
    "affect_affectnet": _SEVEN,
    "affect_rafdb": _SEVEN,
    "affect_ferplus": _SEVEN,
    "parsing_celebam": DataSet(19, "celebamask-hq"),
    "parsing_lapa": DataSet(11, "lapa"),
    "align_300w": DataSet(68, "ibug68"),
    "align_cofw": DataSet(29, "cofw29"),
    "align_wflw": DataSet(98, "wflw98"),
    "align_aflw": DataSet(19, "aflw19"),
    # Of drawn faces, whose truth is known.
    "recog_drawn": _PEOPLE,
    "age_drawn": _YEARS,
    "biattr_drawn": _CELEBA,
    "affect_drawn": _SEVEN,
    "parsing_drawn": DataSet(19, "celebamask-hq"),
    "align_drawn": DataSet(68, "ibug68"),
    # Of photographs: scores of a classifier, labels by people, predicted points.
    "biattr_lfw": _CELEBA,
    "affect_faces": _SEVEN,
    "align_frames": DataSet(68, "ibug68"),
}

# The order of AffectNet, with the words of this project's records.
EXPRESSIONS = (
    "neutral",
    "happiness",
    "sadness",
    "surprise",
    "fear",
    "disgust",
    "anger",
)

# Scheme of landmarks -> the points whose means are the two ends of a face's measure:
# outer corners of the eyes, and middles of the eyes (SPEC C.8).
ENDS: Mapping[str, Mapping[str, tuple[Sequence[int], Sequence[int]]]] = {
    "ibug68": {
        "inter_ocular": ([36], [45]),
        "inter_pupil": (range(36, 42), range(42, 48)),
    },
    "cofw29": {"inter_ocular": ([8], [9])},
    "wflw98": {"inter_ocular": ([60], [72]), "inter_pupil": ([96], [97])},
    "aflw19": {"inter_ocular": ([6], [11]), "inter_pupil": ([7], [10])},
}


def family(task: str) -> Family:
    """The family of a task.

    Raises:
      ValueError: its name begins with none.
    """
    word = task.partition("_")[0]
    if word not in FAMILIES or "_" not in task:
        raise ValueError(
            f"task {task!r} is of no known family; begin its name with one of "
            + ", ".join(f"{f}_" for f in FAMILIES)
        )
    return FAMILIES[word]


def scheme(task: str, queries: int) -> str:
    """The scheme of a task's answers; of a task without a row, by their number."""
    if task in TABLE:
        return TABLE[task].scheme
    same = [row for name, row in TABLE.items() if family(name) is family(task)]
    return next((row.scheme for row in same if row.queries == queries), "")
