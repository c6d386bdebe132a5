"""A trained FaceGPT with its tokenizers: photographs and texts in, 3D heads out."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image

from gptface_jax.core import files
from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data import image as images
from gptface_jax.data import rendering
from gptface_jax.data.facemodel import FaceModel
from gptface_jax.data.rendered.head import rotation_vector
from gptface_jax.data.text import TextTokenizer
from gptface_jax.nn.transformer import on_any_device
from gptface_jax.pipelines import framing, mesh_files
from gptface_jax.pipelines.face_view import SeesFaces
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer
from gptface_jax.pipelines.networks import Network
from gptface_jax.pipelines.views import View
from gptface_jax.systems.facegpt import coefficients, predict
from gptface_jax.systems.facegpt.coefficients import ENTRIES, TOLD
from gptface_jax.systems.facegpt.predict import SampleConfig

_SIDE = 192  # of turntables, in pixels
_TURNS = (-70, -45, -20, 0, 20, 45, 70)  # degrees
_GREY = 0.55
# What of a head can be kept -> its group of coefficients.
PARTS = {
    "identity": "id", "expression": "exp", "albedo": "albedo", "light": "light",
    "pose": "pose",
}  # fmt: skip
KEPT = ("identity", "albedo")  # unless something else is said
_GROUP_OF = {entry: group for group, entry in ENTRIES.items()}
_SHARP = 2  # pixels that are averaged, along each side
_NEVER_BOTH = (
    "this model was not trained on a photo and a text together, so that its head of "
    "both is a guess; leave the text out, or train with objective.faces.with_text"
)
_ALL_TEXTS = (
    "cfg moves away from what is likely without a text, and this model was trained on "
    "none; leave cfg at 1, or train with data.captions.empty_fraction"
)


@dataclasses.dataclass(frozen=True)
class Head3D:
    """A head of a morphable model, with the photo that it was made of, if any.

    Attributes:
      coeffs: "id_coeffs" [I], "exp_coeffs" [E], "albedo_coeffs" [A], "sh_light" [9,3],
        "pose" [6], float32; see `data.rendering`. The pose is in the square of `view`.
      model: the face model.
      details: what the JSON file says beside: seed, options, digests, notes.
      photo: uint8 [H,W,3], or None.
      view: the square of the photo that was looked at, or None.
    """

    coeffs: Mapping[str, np.ndarray]
    model: FaceModel
    details: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    photo: np.ndarray | None = None
    view: View | None = None

    @property
    def vertices(self) -> np.ndarray:
        """float32 [V,3] mm, not turned."""
        return self.model.vertices(self.coeffs["id_coeffs"], self.coeffs["exp_coeffs"])

    @property
    def colours(self) -> np.ndarray:
        """Albedo float32 [V,3] in 0..1."""
        return np.clip(self.model.colours(self.coeffs["albedo_coeffs"]), 0, 1)

    @property
    def expressions(self) -> dict[str, float]:
        """Weights of the shapes by ARKit's names, the strongest first."""
        names = self.model.expression_names or map(str, range(10**6))
        pairs = zip(names, self.coeffs["exp_coeffs"].tolist())
        return dict(sorted(pairs, key=lambda pair: -pair[1]))

    @property
    def angles(self) -> dict[str, float]:
        """Degrees: yaw to the picture's right, pitch downwards, roll."""
        turn = rendering.rotation(self.coeffs["pose"][:3].astype(np.float64))
        # Of a turn about y, then x, then z.
        pitch = np.arcsin(np.clip(turn[2, 1], -1, 1))
        yaw = np.arctan2(-turn[2, 0], turn[2, 2])
        roll = np.arctan2(-turn[0, 1], turn[1, 1])
        named = {"yaw": yaw, "pitch": pitch, "roll": roll}
        return {name: float(np.degrees(value)) for name, value in named.items()}

    def changed(self, **coeffs: Any) -> Head3D:
        """The head with other coefficients, such as pose=np.zeros(6).

        Raises:
          UserError: an unknown name, another shape, or numbers that are not finite.
        """
        made = _checked_coeffs(coeffs, self.model)
        return dataclasses.replace(self, coeffs={**self.coeffs, **made})

    def posed(self, yaw: float, pitch: float, roll: float) -> Head3D:
        """The head turned to these `angles`, in degrees, where it is."""
        turn = rotation_vector(*np.deg2rad([yaw, pitch, roll]))
        return self.changed(pose=[*turn, *self.coeffs["pose"][3:]])

    def lit(self, side: float, up: float, brightness: float = 1.0) -> Head3D:
        """The head with its light moved by degrees, and brighter.

        Args:
          side: to the picture's right, about the vertical.
          up: upwards.
          brightness: a factor.
        """
        if not all(map(math.isfinite, (side, up, brightness))):
            raise UserError(
                f"side {side}, up {up} and brightness {brightness} of a light: use "
                "finite numbers"
            )
        turn = rendering.rotation(np.array([-np.deg2rad(up), 0, 0]))
        turn = rendering.rotation(np.array([0, np.deg2rad(side), 0])) @ turn
        light = rendering.turned_light(self.coeffs["sh_light"], turn)
        return self.changed(sh_light=brightness * light)

    def render(self, size: int = _SIDE) -> tuple[np.ndarray, np.ndarray]:
        """Picture uint8 [S,S,3] on grey, and coverage float32 [S,S] in 0..1."""
        colour, solid = self._drawn(size)
        shown = colour + (1 - solid[..., None]) * _GREY
        return np.uint8(np.round(shown * 255)), solid

    def over(self, square: np.ndarray) -> np.ndarray:
        """The head over a picture uint8 [S,S,3] in which its pose is, uint8 [S,S,3]."""
        colour, solid = self._drawn(len(square))
        shown = colour * 255 + (1 - solid[..., None]) * square
        return np.uint8(np.round(shown))

    def _drawn(self, size: int) -> tuple[np.ndarray, np.ndarray]:
        """Colours [S,S,3] in 0..1, times the coverage float32 [S,S]; and that."""
        fine, vertices = size * _SHARP, self.vertices
        turn = rendering.rotation(self.coeffs["pose"][:3].astype(np.float64))
        places, nearness = rendering.projected(vertices, self.coeffs["pose"], fine)
        found = rendering.rasterise(places, nearness, self.model.triangles, fine)
        colour = rendering.shade(
            found, vertices, self.model.triangles, self.colours,
            self.coeffs["sh_light"], turn,
        )  # fmt: skip
        solid = (found.triangle >= 0)[..., None]
        whole = np.concatenate([np.where(solid, colour, 0), solid], -1)
        whole = whole.reshape(size, _SHARP, size, _SHARP, 4).mean((1, 3))
        return whole[..., :3], np.float32(whole[..., 3])

    def turntable(self, size: int = _SIDE) -> np.ndarray:
        """The head from seven sides in a plain light, uint8 [S,7*S,3]."""
        light = rendering.ambient(0.7)
        light[2], light[1] = 0.35, 0.2  # before it, and a little above
        turned = [
            self.changed(
                sh_light=light, pose=[0, np.deg2rad(angle), 0, 0, 0, 0.05]
            ).render(size)[0]
            for angle in _TURNS
        ]
        return np.concatenate(turned, axis=1)

    def overlay(self) -> np.ndarray:
        """The photo with the head over it, uint8 [H,W,3].

        Raises:
          UserError: the head is of no photo.
        """
        if self.photo is None or self.view is None:
            raise UserError("this head is of a text; there is no photo to lay it on")
        side = self.view.side
        # Colours times coverage, so that what is behind is mixed in but once.
        colour, solid = self._drawn(min(side, 1024))
        square, mask = (
            images.resize(np.uint8(np.round(x * 255)), (side, side))
            for x in (colour, np.repeat(solid[..., None], 3, 2))
        )
        result = self.photo.copy()
        rows, columns = self.view.slices
        inside = self.view.covered(self.photo.shape[:2])[rows, columns, None]
        share = self.view.back(mask) / 255.0 * inside
        mixed = inside * self.view.back(square) + (1 - share) * result[rows, columns]
        result[rows, columns] = np.uint8(np.clip(np.round(mixed), 0, 255))
        return result

    def described(self) -> dict[str, Any]:
        """The head as JSON types."""
        coeffs = {k: np.asarray(v).tolist() for k, v in self.coeffs.items()}
        found = {**self.details, "face_model": self.model.digest, "angles": self.angles}
        found["expressions"] = {
            k: round(v, 4) for k, v in self.expressions.items() if v > 0.02
        }
        if self.view is not None:
            found |= self.view.described()
        return {**found, "coefficients": coeffs}

    def save(self, path: str | os.PathLike) -> list[pathlib.Path]:
        """Writes the mesh, pictures of it and its coefficients.

        Args:
          path: FILE.glb or FILE.obj.

        Returns:
          The paths: the mesh, FILE.turntable.png, of a photo FILE.overlay.png, and
          FILE.json.

        Raises:
          UserError: another ending, or a place that cannot be written.
        """
        path = pathlib.Path(path)
        mesh_files.check(path)
        try:
            mesh_files.write(path, self.vertices, self.model.triangles, self.colours)
            paths = mesh_files.outputs(path, self.photo is not None)
            shown = [self.turntable()]
            if self.photo is not None:
                shown.append(self.overlay())
            for place, picture in zip(paths[1:], shown):
                with files.replacing(place) as partial:
                    Image.fromarray(picture).save(partial, "PNG")
            files.write_text(paths[-1], files.json_text(self.described(), 1))
        except OSError as error:
            raise UserError(
                f"cannot write '{path}': {error.strerror or error}; free space or "
                "choose another place"
            ) from None
        return paths


def opened(path: str | os.PathLike, model: FaceModel) -> Head3D:
    """The head of a FILE.json that `Head3D.save` wrote.

    Raises:
      UserError: no such file, one of another face model, or other coefficients than a
        head has.
    """
    try:
        found = json.loads(pathlib.Path(path).expanduser().read_text("utf-8"))
        coeffs = {n: found["coefficients"][n] for n in ENTRIES.values()}
        digest = found["face_model"]
    except OSError as error:
        raise UserError(
            f"'{path}' cannot be read ({error.strerror or error})"
        ) from None
    except (ValueError, KeyError, TypeError):
        raise UserError(
            f"'{path}' holds no head; give the FILE.json beside a head of face3d"
        ) from None
    if digest not in model.digests:
        raise UserError(
            f"'{path}' is a head of face model {digest}, and this model knows "
            f"{model.digest}; make it again with this one"
        )
    try:
        return Head3D(_checked_coeffs(coeffs, model), model)
    except UserError as error:
        raise UserError(f"'{path}': {error}") from None


def _checked_coeffs(
    coeffs: Mapping[str, Any], model: FaceModel
) -> dict[str, np.ndarray]:
    """Coefficients of heads of a face model, float32.

    Raises:
      UserError: an unknown name, another shape, or numbers that are not finite.
    """
    shapes = {
        "id_coeffs": (len(model.identity),), "exp_coeffs": (len(model.expression),),
        "albedo_coeffs": (len(model.albedo),), "sh_light": (9, 3), "pose": (6,),
    }  # fmt: skip
    if unknown := sorted(set(coeffs) - set(shapes)):
        raise UserError(
            f"a head has no {', '.join(unknown)}; it has {', '.join(shapes)}"
        )
    found = {}
    for name, value in coeffs.items():
        try:
            found[name] = np.asarray(value, np.float32)
        except (TypeError, ValueError):
            raise UserError(
                f"{name} of a head holds what is no number; give {list(shapes[name])}"
            ) from None
        if found[name].shape != shapes[name]:
            raise UserError(
                f"{name} of a head is {list(found[name].shape)}; give "
                f"{list(shapes[name])}"
            )
        if not np.isfinite(found[name]).all():
            raise UserError(
                f"{name} of a head holds numbers that are not finite; give finite ones"
            )
    return found


def mean_frame(model: FaceModel) -> np.ndarray:
    """Where the mean head has eyes, nose and corners of the mouth, [5,2] as shares."""
    pose = np.array([0, 0, 0, 0, 0, 0.12])
    places, _ = rendering.projected(model.mean[model.landmarks], pose, 1)
    shares = places + 0.5
    groups = (range(36, 42), range(42, 48), (30,), (48,), (54,))
    return np.float32([shares[list(g)].mean(0) for g in groups])


class Face3DModel(SeesFaces):
    """A VQGAN, a FaceGPT and a face model that belong together.

    Args:
      network: the FaceGPT.
      vqgan: made its codes.
      tokenizer: of the text.
      face_model: whose coefficients it knows.
      frame: see `SeesFaces`; default where its mean head has them.
      card: the model card.
      dtype: of the transformer's activations; by default the network's.
      with_text: share of the pictures that it was trained on together with their text.
      without_text: share of its texts that were left out in training.

    Raises:
      UserError: networks that do not belong together.
    """

    OPTIONS = SampleConfig

    def __init__(
        self, network: Network, vqgan: ImageTokenizer, tokenizer: TextTokenizer,
        face_model: FaceModel, frame: Any = None, card: str = "",
        dtype: str | None = None, with_text: float = 0.0, without_text: float = 0.0,
    ):  # fmt: skip
        config = network.config
        if config.vocab.codebook_size != vqgan.config.codebook_size:
            raise UserError(
                f"the tokenizer has {vqgan.config.codebook_size} codes, the "
                f"transformer {config.vocab.codebook_size}; they do not belong together"
            )
        self.network, self.vqgan, self.tokenizer = network, vqgan, tokenizer
        self.face_model, self.card = face_model, card
        self.with_text, self.without_text = with_text, without_text
        frame = mean_frame(face_model) if frame is None else frame
        self.frame = framing.checked_frame(frame)
        layers = on_any_device(config.transformer)
        if dtype:
            layers = dataclasses.replace(layers, dtype=dtype)
        config = dataclasses.replace(config, transformer=layers)
        self.module = type(network.module)(config)
        self._params = jax.tree.map(jnp.asarray, network.params)

    def __repr__(self) -> str:
        return f"<gptface_jax.{type(self).__name__} {self.digest}, {self.size} px>"

    @property
    def digest(self) -> str:
        """Digest of both networks' weights."""
        return f"{self.vqgan.network.digest}-{self.network.digest}"

    @property
    def size(self) -> int:
        """See `SeesFaces`."""
        grid = self.network.config.layout.grid
        return grid[0] * self.vqgan.config.factor

    def image_ids(self, pixels: np.ndarray) -> np.ndarray:
        """Codes int32 [B,n] of pictures uint8 [B,S,S,3]."""
        return self.vqgan.encode(pixels).reshape(len(pixels), -1)

    def text_ids(self, texts: list[str]) -> np.ndarray:
        """int32 [B,m] with [PAD] after them."""
        slots = self.network.config.layout.max_text_tokens
        return self.tokenizer.encode(texts, slots)

    def expected(
        self,
        image_ids: np.ndarray | None = None,
        text_ids: np.ndarray | None = None,
        known: Mapping[str, np.ndarray] | None = None,
    ) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
        """`predict.expected` by the model's parameters, as numpy arrays."""
        found = predict.expected(self.module, self._params, image_ids, text_ids, known)
        return jax.tree.map(np.asarray, found)

    def of_photo(
        self, photo: np.ndarray, text: str = "", face: Any = None, align: bool = True
    ) -> Head3D:
        """The head of a photo uint8 [H,W,3]; a text tells of it besides."""
        (_, view), notes = self.seen(photo, face, align)
        if text and not self.with_text:
            notes = [*notes, _NEVER_BOTH]
        pixels = images.resize(view.picture(photo), (self.size,) * 2)[None]
        words = self.text_ids([text]) if text else None
        coeffs, deviations = self.expected(self.image_ids(pixels), words)
        options = {"align": align, "face": face if isinstance(face, int) else None}
        details = self.details(text, None, options, notes, deviations)
        return Head3D(_first(coeffs), self.face_model, details, photo, view)

    def of_text(
        self, text: str, seed: int | None = None, config: SampleConfig | None = None,
        like: Head3D | None = None, keep: Sequence[str] = KEPT,
    ) -> Head3D:  # fmt: skip
        """A head after a text: the expected one, or by a seed one of many.

        A text says nothing of pose and light: the head looks at the viewer.

        Args:
          text: what it looks like.
          seed, config: of a head drawn by chance.
          like: a head some of whose coefficients are kept.
          keep: which, of `PARTS`.

        Raises:
          UserError: a head of another face model, an unknown part, or options that
            would do nothing.
        """
        config = config or SampleConfig()
        used = self._used_options(config, seed)
        if like is None and tuple(keep) != KEPT:
            raise UserError(
                f"keep {list(keep)} says what stays of the head `like`, which is "
                "missing; give both or none"
            )
        words = self.text_ids([text])
        known = self._known(like, keep) if like else {}
        coeffs, deviations = self.expected(None, words, known)
        if seed is not None:
            key = jax.random.key(seed)
            drawn = predict.drawn(
                self.module, self._params, None, words, key, config, known
            )
            coeffs = jax.tree.map(np.asarray, drawn)
        light = rendering.ambient(0.7)
        light[2], light[1] = 0.35, 0.2
        plain = {"sh_light": light, "pose": np.float32([0, 0, 0, 0, 0, 0.05])}
        plain = {n: x for n, x in plain.items() if _GROUP_OF[n] not in known}
        options = {name: getattr(config, name) for name in used}
        if like:
            options["keep"] = list(keep)
        unsure = {group: x for group, x in deviations.items() if group not in known}
        details = self.details(text, seed, options, [], unsure)
        return Head3D({**_first(coeffs), **plain}, self.face_model, details)

    def _used_options(self, config: SampleConfig, seed: int | None) -> list[str]:
        """Names of the options that decide about a head after a text.

        Raises:
          UserError: another one was changed.
        """
        fields = dataclasses.fields(config)
        changed = [f.name for f in fields if getattr(config, f.name) != f.default]
        if seed is None:
            if changed:
                raise UserError(
                    f"{', '.join(changed)} decides how a head is drawn by chance; give "
                    "a seed as well, or leave it out"
                )
            return []
        scheme = self.network.config.faces.scheme
        used = [f.name for f in fields]
        if scheme != "discrete":
            used = ["temperature"]
        if idle := [name for name in changed if name not in used]:
            raise UserError(
                f"{', '.join(idle)} is of models whose heads are codes (scheme "
                f"'discrete'), and this one's scheme is '{scheme}'; leave it out"
            )
        if config.cfg != 1 and not self.without_text:
            raise UserError(f"cfg is {config.cfg:g}: {_ALL_TEXTS}")
        return used

    def _known(self, like: Head3D, keep: Sequence[str]) -> dict[str, np.ndarray]:
        """Coefficients [1,...] of the kept parts in units, by group."""
        for name in keep:
            if name not in PARTS:
                raise UserError(
                    f"no part '{name}' to keep{nearest(name, PARTS)}; there are "
                    + ", ".join(PARTS)
                )
        if like.model.digest != self.face_model.digest:
            raise UserError(
                f"the head to keep parts of is one of face model {like.model.digest}, "
                f"and this model knows {self.face_model.digest}; make it with this one"
            )
        units = coefficients.in_units({n: x[None] for n, x in like.coeffs.items()})
        return {PARTS[name]: np.asarray(units[PARTS[name]]) for name in keep}

    def details(self, text, seed, options, notes, deviations) -> dict[str, Any]:
        """What the JSON file of a head says beside it."""
        found = {"model": self.digest, "text": text, "options": options}
        if seed is not None:
            found["seed"] = seed
        if deviations:  # in units of the deviation of people
            found["uncertainty"] = {
                group: float(np.sqrt(np.mean(deviations[group] ** 2)))
                for group in TOLD
                if group in deviations
            }
        return {**found, "notes": list(notes)}


def _first(coeffs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: coeffs[name][0] for name in ENTRIES.values()}
