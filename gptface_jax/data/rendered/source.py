"""The source of kind "rendered": heads by chance, as records with exact labels."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data import fingerprint, rendering, textures
from gptface_jax.data.facemodel import FaceModel, complexion, open_model, opening
from gptface_jax.data.faces import palette
from gptface_jax.data.phrases import EXPRESSIONS
from gptface_jax.data.record import Record
from gptface_jax.data.rendered import head as heads
from gptface_jax.data.rendered.head import Head

SMALLEST, LARGEST = 16, 1024
_WORD = 0.6  # probability that a text names the expression, if it did not before
_SHARP = 2  # pixels that are averaged, along each side


@dataclasses.dataclass(frozen=True)
class Picture:
    """A head as a camera sees it.

    Attributes:
      image: uint8 [S,S,3].
      parsing: uint8 [S,S], classes "celebamask-hq".
      depth: float32 [S,S] mm towards the viewer from the middle of the head, NaN
        where none is.
      landmarks: float32 [68,2] pixels, centres at integers; hidden ones too.
      vertices: float32 [V,3] mm, of the head that has not been turned.
    """

    image: np.ndarray
    parsing: np.ndarray
    depth: np.ndarray
    landmarks: np.ndarray
    vertices: np.ndarray


def draw(
    model: FaceModel, head: Head, size: int, rng: np.random.Generator | None = None
) -> Picture:
    """The picture of a head, on a background by chance; grey without `rng`."""
    vertices = model.vertices(head.id_coeffs, head.exp_coeffs)
    turn = rendering.rotation(head.pose[:3].astype(np.float64))
    fine = size * _SHARP
    places, nearness = rendering.projected(vertices, head.pose, fine)
    found = rendering.rasterise(places, nearness, model.triangles, fine)
    colour = rendering.shade(
        found, vertices, model.triangles, model.colours(head.albedo_coeffs),
        head.sh_light, turn,
    )  # fmt: skip
    behind, cloth = _behind(head, fine, rng)
    colour = np.where((found.triangle >= 0)[..., None], colour, behind)
    colour = colour.reshape(size, _SHARP, size, _SHARP, 3).mean((1, 3))
    # Classes and depth of the middle of each pixel.
    places, nearness = rendering.projected(vertices, head.pose, size)
    middle = rendering.rasterise(places, nearness, model.triangles, size)
    shown = middle.triangle >= 0
    classes = np.append(model.regions, palette.CLOTH)[middle.triangle]
    clothed = cloth[_SHARP // 2 :: _SHARP, _SHARP // 2 :: _SHARP]
    depth = middle.interpolated((vertices @ turn.T)[:, 2:], model.triangles)[..., 0]
    return Picture(
        np.clip(np.round(colour * 255), 0, 255).astype(np.uint8),
        np.where(shown | clothed, classes, 0).astype(np.uint8),
        np.where(shown, depth, np.nan).astype(np.float32),
        places[model.landmarks].astype(np.float32),
        vertices.astype(np.float32),
    )


def _behind(head: Head, size: int, rng) -> tuple[np.ndarray, np.ndarray]:
    """Background [S,S,3] with shoulders in front of it, and where those are."""
    if rng is None:
        return np.full((size, size, 3), 0.5), np.zeros((size, size), bool)
    if rng.random() < 0.5:
        picture = textures.draw(size // _SHARP, rng) / 255.0
        picture = picture.repeat(_SHARP, 0).repeat(_SHARP, 1)
    else:
        ends = rng.uniform(0.1, 0.95) + rng.normal(0, 0.12, (2, 3))
        share = np.linspace(0, 1, size)[:, None, None]
        picture = ends[0] * (1 - share) + ends[1] * share
        picture = np.tile(np.clip(picture, 0, 1), (1, size, 1))
    at = (np.arange(size) + 0.5) / size * 2 - 1
    scale = np.exp(head.pose[5]) / rendering.REACH
    x, y = np.meshgrid((at - head.pose[3]) / scale, (-at - head.pose[4]) / scale)
    wide, high = rng.uniform(170, 210), rng.uniform(75, 95)
    shoulders = (x / wide) ** 2 + ((y + 215) / high) ** 2 < 1
    cloth = np.clip(rng.uniform(0.05, 0.9) + rng.normal(0, 0.15, 3), 0, 1)
    # Darker to the sides, as what is round.
    shade = 0.9 - 0.3 * (x / wide)[..., None] ** 2
    return np.where(shoulders[..., None], cloth * shade, picture), shoulders


class RenderedFaces(Sequence):
    """`count` rendered heads as records, made when asked for.

    Record i shows head number `offset + i` of the endless collection of `seed`. It can
    be pickled, indexed in any order and from many processes at once.

    Args:
      size: side of the pictures in pixels.
      count: number of records.
      seed: of the collection.
      offset: number of the first head.
      model: face model, see `data.facemodel.open_model`.
      max_vertices: budget of its mesh; 0 for all.
      num_identity: first modes of identity that heads differ in; 0 for all. A FaceGPT
        with fewer modes than its face model is trained on such faces.
      rho, style: see `data.captions.caption`.

    Raises:
      UserError: a size or number that makes no sense, or no such face model.
    """

    def __init__(
        self, size: int = 128, count: int = 10000, seed: int = 0, offset: int = 0,
        model: str = opening.PROCEDURAL, max_vertices: int = 0, rho: float = 1.0,
        style: str = "strong", num_identity: int = 0,
    ):  # fmt: skip
        if count < 0 or offset < 0:
            raise UserError(
                f"count {count} and offset {offset} of the rendered faces must not be "
                "negative"
            )
        if not SMALLEST <= size <= LARGEST:
            raise UserError(
                f"rendered faces of size {size}: use {SMALLEST} to {LARGEST} pixels"
            )
        self.size, self.count, self.seed, self.offset = size, count, seed, offset
        self.model, self.max_vertices = model, max_vertices
        self.rho, self.style, self.num_identity = rho, style, num_identity
        _ = self._tools  # a model that is not there is an error here already

    def __getstate__(self):
        return {k: v for k, v in self.__dict__.items() if k != "_tools"}

    @functools.cached_property
    def _tools(self) -> tuple[FaceModel, complexion.Colouring]:
        model = open_model(self.model, self.max_vertices, self.num_identity)
        return model, complexion.Colouring(model)

    @property
    def face_model(self) -> FaceModel:
        """Whose coefficients the records hold."""
        return self._tools[0]

    def fingerprint(self) -> str:
        # Of the older digest, so that runs from before the other go on.
        return fingerprint.few_words(self.face_model.digests[1])

    def __len__(self) -> int:
        return self.count

    def _rng(self, index: int, use: int) -> np.random.Generator:
        number = self.offset + range(self.count)[index]
        return np.random.default_rng([self.seed, number, use])

    def head(self, index: int) -> Head:
        """The head of record `index`; negative ones count from the end."""
        return heads.sample(*self._tools, self._rng(index, 0))

    def __getitem__(self, index: int) -> Record:
        """Record `index`: image uint8 [S,S,3] with everything that is known of it."""
        from gptface_jax.data.captions import caption

        head, model = self.head(index), self.face_model
        shown = draw(model, head, self.size, self._rng(index, 1))
        truth, said = heads.labels(model, head), heads.facts(model, head)
        text = caption(
            truth, self._rng(index, 2), expression=head.expression, style=self.style,
            rho=self.rho,
        )  # fmt: skip
        rng = self._rng(index, 3)
        word = EXPRESSIONS[head.expression]
        if self.rho == 1 and word not in text and rng.random() < _WORD:
            text += f", looking {word}"
        more = text + heads.detail(said)
        return Record(
            image=shown.image,
            text=text,
            texts=(text, more) if more != text else (),
            labels=truth,
            facts=said,
            expression=head.expression,
            landmarks=shown.landmarks,
            parsing=shown.parsing,
            face3d={
                "model": model.digest,
                **{name: getattr(head, name) for name in COEFFICIENTS},
                "vertices": shown.vertices,
                "depth": shown.depth,
            },
            identity=self.offset + range(self.count)[index],
            source="rendered",
        )


# Entries of `Record.face3d` that a face model and a camera make a picture of.
COEFFICIENTS = ("id_coeffs", "exp_coeffs", "albedo_coeffs", "sh_light", "pose")
