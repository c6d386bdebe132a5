"""Pictures of faces varied for perception, with their points and maps (SPEC C.6)."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageFilter

from gptface_jax.core.config import from_options
from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import geometry, image
from gptface_jax.data.geometry import Similarity
from gptface_jax.data.record import Record, decode_picture


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """How far a picture is varied; all at random, evenly and either way.

    Attributes:
      flip: probability of a mirror; what is left is then called right.
      rotation: radians.
      scale: share of the size.
      zoom: factor that the scale varies around: below 1 more is seen.
      shift: share of the side.
      occlusion: probability that a part is covered by noise or a colour.
      grey: probability of a picture without colours.
      colour: gain and offset of each channel, shares of the range.
      gamma: logarithm (base 2) of the exponent of brightness.
      blur: probability of a blur of up to a 64th of the side.
      noise: largest share of noise in the picture.
    """

    flip: float = 0.0
    rotation: float = 0.0
    scale: float = 0.0
    zoom: float = 1.0
    shift: float = 0.0
    occlusion: float = 0.0
    grey: float = 0.0
    colour: float = 0.0
    gamma: float = 0.0
    blur: float = 0.0
    noise: float = 0.0

    def __post_init__(self):
        for name in ("flip", "occlusion", "grey", "blur", "noise", "scale"):
            if not 0 <= (value := getattr(self, name)) <= 1:
                raise ValueError(f"{name} is {value}; use 0 to 1")
        if self.zoom <= 0 or self.scale >= 1:
            raise ValueError(
                f"zoom {self.zoom} or scale {self.scale} leaves no picture"
            )


_ATTRIBUTES = Augmentation(
    flip=0.5, rotation=0.1, occlusion=0.25, colour=0.1, gamma=0.3, grey=0.05
)
# Family of tasks -> as published, but for two: RandAugment, of attributes, is stood in
# for by its changes of light and a small rotation; and landmarks are shown a tenth
# smaller and not a fifth, since the faces of this project's sources fill less of the
# picture.
PUBLISHED: Mapping[str, Augmentation] = {
    "recog": Augmentation(flip=0.5),
    "age": _ATTRIBUTES,
    "biattr": _ATTRIBUTES,
    "affect": _ATTRIBUTES,
    "parsing": Augmentation(
        rotation=0.314, scale=0.1, shift=0.01, grey=0.1, gamma=0.3, blur=0.1
    ),
    "align": Augmentation(
        flip=0.5, rotation=0.174, scale=0.1, zoom=0.9, shift=0.05, occlusion=0.25,
        noise=0.1, grey=0.1, gamma=0.3, blur=0.1,
    ),
}  # fmt: skip


def of_family(family: str, options: Any) -> Augmentation | None:
    """How pictures of a family of tasks are varied; None for not at all.

    Args:
      family: a key of `PUBLISHED`.
      options: "none", or {family: entries of `Augmentation`, or "none"}.

    Raises:
      UserError: a family or an entry that there is not, or a value that makes no sense.
    """
    if options == "none":
        return None
    if not isinstance(options, Mapping):
        raise UserError(
            f"data.augmentation is {options!r}; use 'none', or a mapping by family"
        )
    for name in options:
        if name not in PUBLISHED:
            raise UserError(
                f"data.augmentation has '{name}'{nearest(name, PUBLISHED)}; known: "
                + ", ".join(PUBLISHED)
            )
    own = options.get(family, {})
    if own == "none":
        return None
    given = {**dataclasses.asdict(PUBLISHED[family]), **own}
    return from_options(Augmentation, given, f"data.augmentation.{family}.")


def shown(
    record: Record, size: int, options: Augmentation | None, rng: np.random.Generator
) -> Record:
    """The record as a picture of one size, varied; points and maps go with it.

    Args:
      record: with a picture, of which the central square is taken.
      size: side of the result.
      options: None shows it as it is.
      rng: of the variation.

    Returns:
      Record with `image` uint8 [size,size,3].

    Raises:
      UserError: a mirror, and landmarks or a map of no known scheme.
    """
    if options is None:
        return geometry.squared(record, size)
    picture = decode_picture(record)
    top, left, side, _ = image.central(picture.shape[:2], 1)
    way = Similarity(dx=-left, dy=-top).scaled(size / side)
    moved = way.then(_around(size, options, rng))
    # The mirror is of the result, so that the border that is repeated is the picture's.
    view = geometry.moved(record, moved, (size, size))
    if rng.random() < options.flip:
        view = geometry.mirrored(view)
    return dataclasses.replace(view, image=_light(view.image, options, rng))


def _around(size: int, options: Augmentation, rng: np.random.Generator) -> Similarity:
    """A rotation, scale and shift about the middle of a picture."""
    turn, scale, *shift = rng.uniform(-1, 1, 4)
    angle = options.rotation * turn
    factor = options.zoom * (1 + options.scale * scale)
    middle = size / 2
    x, y = middle + options.shift * size * np.array(shift)
    turned = Similarity(factor * math.cos(angle), factor * math.sin(angle))
    return Similarity(dx=-middle, dy=-middle).then(turned).then(Similarity(dx=x, dy=y))


def _light(
    picture: np.ndarray, options: Augmentation, rng: np.random.Generator
) -> np.ndarray:
    """The picture with other light, blur, noise and something before it."""
    size = len(picture)
    if rng.random() < options.blur:
        radius = rng.uniform(0, size / 64)
        blurred = Image.fromarray(picture).filter(ImageFilter.GaussianBlur(radius))
        picture = np.asarray(blurred)
    x = picture.astype(np.float32) / 255
    if rng.random() < options.grey:
        x = np.repeat(x.mean(-1, keepdims=True), 3, -1)
    if options.gamma:
        x = x ** np.float32(2 ** (options.gamma * rng.uniform(-1, 1)))
    if options.colour:
        gain, offset = options.colour * rng.uniform(-1, 1, (2, 3)).astype(np.float32)
        x = x * (1 + gain) + offset
    if options.noise:
        share = options.noise * rng.random()
        x = (1 - share) * x + share * rng.random(x.shape, np.float32)
    if rng.random() < options.occlusion:
        h, w = rng.uniform(0.1, 0.4, 2) * size
        top, left = rng.uniform(0, size - h), rng.uniform(0, size - w)
        part = x[int(top) : int(top + h) + 1, int(left) : int(left + w) + 1]
        flat = rng.random(3, np.float32)
        part[:] = rng.random(part.shape, np.float32) if rng.random() < 0.5 else flat
    return np.uint8(np.clip(x, 0, 1) * 255 + 0.5)
