"""Schemes of landmarks and of parsing maps, and what left and right are in a mirror."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gptface_jax.core.errors import UserError, nearest


def _swapped(count: int, *pairs: tuple[int, int], first: int = 0) -> np.ndarray:
    """0 .. count-1 with the two of each pair, counted from `first`, exchanged."""
    result = np.arange(count)
    if pairs:
        left, right = np.array(pairs).T - first
        result[left], result[right] = right, left
    return result


def _mesh() -> np.ndarray:
    """The face mesh: first its middle line and one side, then the other in the same
    order."""
    middle = [0, 1, 2, *range(4, 7), *range(8, 20), 94, 151, 152]
    middle += [164, 168, 175, 195, 197, 199, 200]
    side = [i for i in range(248) if i not in middle]
    return _swapped(468, *zip(side, range(248, 468)))


# Point i of a mirrored face is point `LANDMARKS[name][i]` of the face.
LANDMARKS: Mapping[str, np.ndarray] = {
    # Eyes, tip of the nose, corners of the mouth.
    "five": _swapped(5, (0, 1), (3, 4)),
    # AFLW with 19 points, COFW and WFLW, as in the data sets.
    "aflw19": _swapped(
        19, (1, 6), (2, 5), (3, 4), (7, 12), (8, 11), (9, 10), (13, 15), (16, 18),
        first=1,
    ),
    "cofw29": _swapped(
        29, (1, 2), (3, 4), (5, 7), (6, 8), (9, 10), (11, 12), (13, 15), (14, 16),
        (17, 18), (19, 20), (23, 24),
        first=1,
    ),
    # iBUG 300-W, also called Multi-PIE.
    "ibug68": _swapped(
        68, *((i, 16 - i) for i in range(8)), *((i, 43 - i) for i in range(17, 22)),
        (31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46),
        *((i, 102 - i) for i in range(48, 51)), (58, 56), (59, 55), (60, 64), (61, 63),
        (67, 65),
    ),
    "wflw98": _swapped(
        98, *((i, 32 - i) for i in range(16)), *((i, 79 - i) for i in range(33, 38)),
        *((i, 88 - i) for i in range(38, 42)), (55, 59), (56, 58),
        *((i, 132 - i) for i in range(60, 65)), (65, 75), (66, 74), (67, 73),
        *((i, 158 - i) for i in range(76, 79)), (83, 87), (84, 86), (88, 92), (89, 91),
        (93, 95), (96, 97),
    ),
    # MediaPipe's face mesh.
    "mesh468": _mesh(),
}  # fmt: skip
_HALVES = ("background", "skin", "l_brow", "r_brow", "l_eye", "r_eye")
# Names of classes 0, 1, ...; l_ and r_ are the picture's left and right, but for l_lip,
# which is the lower one.
PARSING: Mapping[str, tuple[str, ...]] = {
    "celebamask-hq": (
        *_HALVES, "eye_g", "l_ear", "r_ear", "ear_r", "nose", "mouth", "u_lip", "l_lip",
        "neck", "neck_l", "cloth", "hair", "hat",
    ),
    "lapa": (*_HALVES, "nose", "u_lip", "mouth", "l_lip", "hair"),
}  # fmt: skip


def of_points(count: int) -> str:
    """Name of the scheme with so many points; "" where none has."""
    names = [name for name, order in LANDMARKS.items() if len(order) == count]
    return names[0] if names else ""


def five_points(landmarks: np.ndarray) -> np.ndarray:
    """Eyes, nose and mouth corners [..., 5, 2] of the 68 landmarks [..., 68, 2]."""
    eyes = landmarks[..., 36:42, :].mean(-2), landmarks[..., 42:48, :].mean(-2)
    return np.stack([*eyes, *(landmarks[..., i, :] for i in (30, 48, 54))], -2)


def five_of(landmarks: np.ndarray, scheme: str) -> np.ndarray | None:
    """Eyes, nose and mouth corners [..., 5, 2] of the points of a scheme; None where it
    does not tell them."""
    if scheme == "ibug68":
        return five_points(landmarks)
    chosen = {"five": range(5), "wflw98": (96, 97, 54, 76, 82)}.get(scheme)
    return None if chosen is None else landmarks[..., list(chosen), :]


def mirrored_points(name: str, count: int) -> np.ndarray:
    """Permutation int [P]: point i of a mirrored face is point `[i]` of the face.

    Args:
      name: of `LANDMARKS`.
      count: P, points that there are.

    Raises:
      UserError: an unknown name, or a scheme of another number of points.
    """
    order = LANDMARKS[_known(name, LANDMARKS)]
    if len(order) != count:
        raise UserError(
            f"{count} landmarks are not of the scheme '{name}', which has {len(order)}"
        )
    return order


def mirrored_classes(name: str) -> np.ndarray:
    """Table uint8 [256]: where a face shows class k its mirror shows `[k]`.

    Numbers that are no class, such as 255 for what does not count, stay.

    Raises:
      UserError: an unknown name.
    """
    names = PARSING[_known(name, PARSING)]
    table = np.arange(256, dtype=np.uint8)
    for number, left in enumerate(names):
        if left.startswith("l_") and (right := "r_" + left[2:]) in names:
            other = names.index(right)
            table[[number, other]] = other, number
    return table


def classes_as(source: str, target: str) -> np.ndarray:
    """Table uint8 [256]: class k of one scheme is class `[k]` of another.

    By their names: what the other does not know is its background; glasses are 255,
    which does not count, for what lies under them is not known. So are numbers that are
    no class.

    Raises:
      UserError: an unknown name, or a target with classes that the source lacks.
    """
    names, wanted = (PARSING[_known(name, PARSING)] for name in (source, target))
    if lacking := [name for name in wanted if name not in names]:
        raise UserError(
            f"classes of '{source}' cannot be told as those of '{target}', which has "
            f"'{lacking[0]}'"
        )
    table = np.full(256, 255, np.uint8)
    for number, name in enumerate(names):
        if name in wanted:
            table[number] = wanted.index(name)
        elif name != "eye_g":
            table[number] = 0
    return table


def _known(name: str, schemes: Mapping[str, object]) -> str:
    if name not in schemes:
        raise UserError(
            f"the scheme {name!r} is unknown{nearest(name, schemes)}, so that left and "
            f"right cannot be told in a mirror; known: {', '.join(schemes)}"
        )
    return name
