"""Learning 3D faces by analysis and synthesis, and from rendered truth (SPEC D.4, D.6).

A picture's codes give coefficients; the head that they mean is rendered with the
picture's own light and pose and compared with its pixels and landmarks. Where the truth
is known, as of rendered faces, coefficients are compared too: alone at first (warm
start), beside the photographs later. A text is to expect what the picture shows.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from gptface_jax.core import trees
from gptface_jax.nn.each_device import over_batch
from gptface_jax.ops import morphable, render
from gptface_jax.systems.facegpt import coefficients
from gptface_jax.systems.facegpt.coefficients import ENTRIES, GROUPS, TOLD
from gptface_jax.systems.facegpt.model import FaceGPT

RENDERED, PHOTOS = "rendered", "photos"
Encode = Callable[[Any, jax.Array], jax.Array]
# iBUG points that say most of an expression: nose and inner lips.
_WEIGHED = tuple(range(27, 36)) + tuple(range(60, 68))
_FLOOR = 1e-3  # of the likelihood of a pixel that may show anything
# Distance of the eyes' outer corners by the longer side of the box of all 68 points, of
# the mean head; and the least that is guessed where few points are known.
_CORNERS_BY_REACH, _LEAST_GUESS = 0.64, 0.1


@dataclasses.dataclass(frozen=True)
class ObjectiveConfig:
    """Weights of the terms, each a mean over what it counts.

    Attributes:
      truth: squared error of known coefficients in units of their usual deviation.
      calibration: likelihood of the variance that a picture's heads give.
      landmarks: distance of the 68 points as a share of the distance of the eyes' outer
        corners; `landmark_weight` times as much for nose and inner lips.
      photo: robust difference of the pixels that the head covers: a Gaussian of
        deviation `photo_std` (pixels in 0..1) with outliers, which may be occluded.
      prior: squares of identity, expression and albedo.
      light: light that is not grey.
      smooth: differences of albedo between neighbours, beyond those of the mean head.
      text: likelihood of identity, expression and albedo after the text: known ones,
        or those of the picture where none are known or `truth` is 0.
      codes: reconstruction by the codes of the discrete scheme, and their prediction.
      with_text: share of the pictures that are seen together with their text.
      warm_start: share of the steps before pixels are compared.
      splat: borders of the head have a gradient (`ops.render.splatted`); all pixels
        are compared then, on the picture as background.
      size: side of rendered pictures in pixels.
      focal: of a pinhole camera; 0 for weak perspective, the only one so far.
    """

    truth: float = 1.0
    calibration: float = 0.1
    landmarks: float = 5.0
    landmark_weight: float = 3.0
    photo: float = 1.0
    photo_std: float = 0.15
    prior: float = 1e-3
    light: float = 0.1
    smooth: float = 0.05
    text: float = 0.1
    codes: float = 1.0
    with_text: float = 0.0
    warm_start: float = 0.3
    splat: bool = False
    size: int = 64
    focal: float = 0.0

    def __post_init__(self):
        if not 0 <= self.warm_start <= 1:
            raise ValueError(f"warm_start is {self.warm_start}; use a share, 0 to 1")
        if not 0 <= self.with_text <= 1:
            raise ValueError(f"with_text is {self.with_text}; use a share, 0 to 1")
        if self.photo_std <= 0:
            raise ValueError(f"photo_std is {self.photo_std}; use more than 0")
        if self.size < 1:
            raise ValueError(f"size is {self.size}; use 1 pixel or more")
        if self.focal:
            raise ValueError(
                f"focal is {self.focal}; use 0: rendered faces, and heads as they are "
                "drawn and fitted, are seen in weak perspective"
            )


def face_size(landmarks: jax.Array, known: jax.Array) -> jax.Array:
    """Distance [B,1] of the outer corners of the eyes, as a share of the side.

    Where one of these is not known it is guessed by how far the known points reach.

    Args:
      landmarks: [B,68,2] as shares of the side; any number where one is not known.
      known: [B,68], above 0 where one is.
    """
    known = known[..., None] > 0
    away = jnp.linalg.norm(landmarks[:, 36] - landmarks[:, 45], axis=-1, keepdims=True)
    reach = jnp.max(jnp.where(known, landmarks, -jnp.inf), 1) - jnp.min(
        jnp.where(known, landmarks, jnp.inf), 1
    )
    guess = _CORNERS_BY_REACH * jnp.max(reach, -1, keepdims=True)
    both = known[:, 36] & known[:, 45]
    return jnp.where(both, jnp.maximum(away, 0.01), jnp.maximum(guess, _LEAST_GUESS))


def landmark_error(places: jax.Array, batch: Mapping[str, jax.Array]) -> jax.Array:
    """Distances [B,68] by the size of the face, of points as shares of the side."""
    square = jnp.sum((places - batch["landmarks"]) ** 2, -1)
    size = face_size(batch["landmarks"], batch["landmark_mask"])
    return jnp.sqrt(square + 1e-8) / size


def robust(difference: jax.Array, std: float) -> jax.Array:
    """Negative log-likelihood of colour differences [...,3], at most about 7.

    0 for none. A pixel is of the head with Gaussian noise, or shows anything else.
    """
    square = jnp.sum(difference**2, -1) / (2 * std**2)
    return -jnp.log((jnp.exp(-square) + _FLOOR) / (1 + _FLOOR))


def _mean(values: jax.Array, weight: jax.Array) -> jax.Array:
    """Mean of values [B,...] whose weights [B,...] count."""
    weight = jnp.broadcast_to(weight, values.shape)
    return jnp.sum(values * weight) / jnp.maximum(jnp.sum(weight), 1e-6)


def _by_group(units: Mapping[str, jax.Array], groups=GROUPS) -> jax.Array:
    """Means [B] over groups of the means over a group's numbers [B,n]."""
    return jnp.mean(jnp.stack([jnp.mean(units[g], -1) for g in groups]), axis=0)


class Terms:
    """The terms of the loss for a batch; a function of the parameters.

    Args:
      module: the model.
      objective: weights.
      encode: (constants, image float32 [B,S,S,3] in [-1,1]) -> codes [B,n], for batches
        without "image_ids".
      total_steps: of the training.
    """

    def __init__(
        self, module: FaceGPT, objective: ObjectiveConfig, encode: Encode | None,
        total_steps: int,
    ):  # fmt: skip
        self.module, self.objective, self.encode = module, objective, encode
        self.first = round(objective.warm_start * total_steps)
        self.discrete = module.config.faces.scheme == "discrete"

    def ids(self, constants, batch) -> jax.Array:
        """Codes [B,n] of the pictures."""
        if "image_ids" in batch:
            return batch["image_ids"]
        return jax.lax.stop_gradient(self.encode(constants, batch["image"]))

    def apply(self, params, method: str, *arguments, key=None):
        """A method of the model; what it drops out is by the key, nothing without."""
        layers = self.module.config.transformer
        drops = key is not None and max(layers.dropout, layers.drop_path) > 0
        rngs = {"dropout": key} if drops else None
        more = (not drops,) if method in _DROPPING else ()
        return self.module.apply(
            {"params": params}, *arguments, *more, method=method, rngs=rngs
        )

    def __call__(
        self, params, constants, batch, key, step, train: bool = False
    ) -> dict[str, jax.Array]:
        """Terms by name, without their weights; dropout and such in training only."""
        objective, basis = self.objective, constants["basis"]
        known = batch["known"].astype(jnp.float32)
        truth = coefficients.in_units({e: batch[e] for e in ENTRIES.values()})
        ids = self.ids(constants, batch)
        words = (
            self._seen_text(batch, trees.stream(key, "with_text")) if train else None
        )
        key_image, key_text = (
            trees.stream(key, name) if train else None for name in ("image", "text")
        )
        found: dict[str, jax.Array] = {}
        if self.discrete:
            coeffs = self.apply(params, "predicted", ids, words, key=key_image)
        else:
            means, variances = self.apply(
                params, "face_outputs", ids, words, key=key_image
            )
            coeffs = coefficients.to_coefficients(means)
        units = coefficients.in_units(coeffs)
        error = {g: (units[g] - truth[g]) ** 2 for g in GROUPS}
        found["truth"] = _mean(_by_group(error), known)
        if not self.discrete:
            fixed = jax.lax.stop_gradient(error)
            nll = {g: _gaussian(fixed[g], variances[g]) for g in GROUPS}
            found["calibration"] = _mean(_by_group(nll), known)
        heads = morphable.vertices(basis, coeffs["id_coeffs"], coeffs["exp_coeffs"])
        focal = objective.focal or None
        seen = render.project(heads, coeffs["pose"], objective.size, focal)
        places = (seen.places[:, basis["landmarks"]] + 0.5) / objective.size
        weight = jnp.ones(68).at[jnp.array(_WEIGHED)].set(objective.landmark_weight)
        found["landmarks"] = _mean(
            landmark_error(places, batch), weight * batch["landmark_mask"]
        )
        found["photo"] = jax.lax.cond(
            step >= self.first,
            lambda c: self.photo(basis, c, heads, batch["image"]),
            lambda c: jnp.float32(0),
            coeffs,
        )
        squares = {g: units[g] ** 2 for g in TOLD}
        found["prior"] = jnp.mean(_by_group(squares, TOLD))
        light = coeffs["sh_light"]
        found["light"] = jnp.mean((light - light.mean(-1, keepdims=True)) ** 2)
        offset = (
            morphable.colours(basis, coeffs["albedo_coeffs"]) - basis["albedo_mean"]
        )
        corners = offset[:, basis["triangles"]]
        found["smooth"] = jnp.mean((corners - jnp.roll(corners, 1, 2)) ** 2)
        target = units
        if objective.truth > 0:  # without, nothing is to learn from known coefficients
            told = known[:, None] > 0
            target = {g: jnp.where(told, truth[g], units[g]) for g in GROUPS}
        target = jax.lax.stop_gradient(target)
        if self.discrete:
            given = (ids, words), (None, batch["text_ids"])
            codes_key = trees.stream(key, "codes")
            found |= self._codes(params, given, target, codes_key, train)
        else:
            found["text"] = self._text(params, batch, target, key_text)
        return found

    def _seen_text(self, batch, key) -> jax.Array | None:
        """Text ids [B,m] beside pictures, [PAD] beside those that are seen alone."""
        if not self.objective.with_text:
            return None
        ids, pad = batch["text_ids"], self.module.config.vocab.pad_id
        shown = jax.random.uniform(key, (len(ids), 1)) < self.objective.with_text
        return jnp.where(shown, ids, pad)

    def photo(self, basis, coeffs, heads, image: jax.Array) -> jax.Array:
        """Mean robust difference of pictures in [-1,1] and rendered heads."""
        objective, triangles = self.objective, basis["triangles"]
        focal = objective.focal or None
        shown = over_batch(
            functools.partial(render.rasterise, size=objective.size),
            render.project(heads, coeffs["pose"], objective.size, focal),
            triangles,
        )
        drawn = render.render(
            heads, morphable.colours(basis, coeffs["albedo_coeffs"]), triangles,
            coeffs["sh_light"], coeffs["pose"], objective.size, focal=focal,
            shown=shown,
        )  # fmt: skip
        wanted, colour, weight = _resized(image, objective.size), drawn.colour, None
        if objective.splat:
            colour, _ = render.splatted(drawn, triangles, wanted)
            # Beside the head the picture is its own background; what it leaves counts.
            weight = jnp.ones_like(drawn.alpha)
        weight = drawn.alpha if weight is None else weight
        return _mean(robust(colour - wanted, objective.photo_std), weight)

    def _text(self, params, batch, target, key) -> jax.Array:
        """Negative log-likelihood of what the picture shows, after the text."""
        real = jnp.any(batch["text_ids"] != self.module.config.vocab.pad_id, axis=1)
        means, variances = self.apply(
            params, "face_outputs", None, batch["text_ids"], key=key
        )
        units = coefficients.in_units(coefficients.to_coefficients(means))
        nll = {g: _gaussian((units[g] - target[g]) ** 2, variances[g]) for g in TOLD}
        return _mean(_by_group(nll, TOLD), real)

    def _codes(self, params, given, target, key, train) -> dict[str, jax.Array]:
        """Terms of the discrete scheme: codes learnt, and predicted where hidden.

        Args:
          params, target, key, train: as of the call.
          given: ids of pictures and of texts for the pass after the picture, and for
            the pass after the text.
        """
        losses, codes = self.apply(params, "code_losses", target)
        ratio = jax.random.uniform(trees.stream(key, "ratio"), (len(codes), 1))
        drawn = jax.random.uniform(trees.stream(key, "hidden"), codes.shape)
        hide = drawn < jnp.maximum(ratio, 0.1)
        shown = self.module.apply(
            {"params": params}, jnp.where(hide, -1, codes), method="codes_to_ids"
        )
        found = {"codes": jnp.mean(losses)}
        # An empty text counts as well: guidance goes from what is likely without one.
        for name, ids in zip(("image", "text"), given):
            own = trees.stream(key, name) if train else None
            logits = self.apply(params, "code_logits", *ids, shown, key=own)
            nll = -jnp.take_along_axis(
                jax.nn.log_softmax(logits), codes[..., None], -1
            )[..., 0]
            found["text" if name == "text" else "code_nll"] = _mean(nll, hide)
        return found

    def total(self, found: Mapping[str, jax.Array]) -> jax.Array:
        """The loss."""
        weights = {
            **dataclasses.asdict(self.objective),
            "code_nll": self.objective.codes,
        }
        return sum(weights[name] * value for name, value in found.items())


_DROPPING = ("face_outputs", "predicted", "code_logits")


def _gaussian(square: jax.Array, log_variance: jax.Array) -> jax.Array:
    """Negative log-likelihood of squared errors but for the constant."""
    return 0.5 * (square * jnp.exp(-log_variance) + log_variance)


def _resized(image: jax.Array, size: int) -> jax.Array:
    """Pictures in [-1,1] as [B,size,size,3] in 0..1."""
    shape = (len(image), size, size, 3)
    if image.shape != shape:
        image = jax.image.resize(image, shape, "linear", antialias=True)
    return (image + 1) / 2


def make_loss(terms: Terms, feeds: tuple[str, ...]):
    """The training loss of a phase with batches of `feeds`; see `core.types.LossFn`."""

    def loss_fn(params, state, constants, batches, key, step):
        batch = {
            name: jnp.concatenate([batches[feed][name] for feed in feeds])
            for name in batches[feeds[0]]
        }
        found = terms(params, constants, batch, key, step, train=True)
        loss = terms.total(found)
        return loss, (state, {name: (value, 1.0) for name, value in found.items()})

    return loss_fn
