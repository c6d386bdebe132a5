"""How well a tokenizer keeps pictures: PSNR, SSIM, codes, feature spaces, a judge.

Pictures are float32 [B,H,W,3]; what leaves [-1,1] is clipped, as it is when saved.
A batch gives sums and counts, which add over batches, devices and hosts.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from gptface_jax.core.errors import UserError
from gptface_jax.core.types import Batch
from gptface_jax.evaluate import agreement, distributions
from gptface_jax.evaluate.landmarks import landmark_figures
from gptface_jax.evaluate.perceived import Perceived, Perceiver
from gptface_jax.ops import losses, pictures, quantize

_SIGMA, _RADIUS = 1.5, 5
_RANGE = 2.0  # of the pixels


def _checked(image: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Both pictures as float32 within [-1,1]."""
    for x in (image, target):
        if not jnp.issubdtype(x.dtype, jnp.floating):
            raise ValueError(f"pictures are {x.dtype}; give float32 in [-1,1]")
    if image.shape != target.shape or image.ndim != 4:
        raise ValueError(
            f"pictures of shapes {image.shape} and {target.shape}; give two [B,H,W,C]"
        )
    return tuple(jnp.clip(x.astype(jnp.float32), -1.0, 1.0) for x in (image, target))


def psnr(image: jax.Array, target: jax.Array) -> jax.Array:
    """PSNR [B] in dB, of pictures whose dtype and shapes are checked."""
    return pictures.psnr(*_checked(image, target))


def _blur(x: jax.Array) -> jax.Array:
    """Gaussian window of 11 over axes 1 and 2, valid part only.

    Shifted sums: a convolution would run in reduced precision on accelerators.
    """
    window = np.exp(-(np.arange(-_RADIUS, _RADIUS + 1) ** 2) / (2 * _SIGMA**2))
    window = np.float32(window / window.sum())
    for axis in (1, 2):
        length = x.shape[axis] - 2 * _RADIUS
        x = sum(
            w * jax.lax.slice_in_dim(x, i, i + length, axis=axis)
            for i, w in enumerate(window)
        )
    return x


def ssim(image: jax.Array, target: jax.Array) -> jax.Array:
    """Structural similarity (Wang et al. 2004) of [B,H,W,3] in [-1,1]; float32 [B].

    Gaussian window of 11 pixels, sigma 1.5, mean over the channels and the positions
    where the window fits. Of intensities that start at black = 0, as everywhere in
    the literature: where mid-grey is 0, the term of the means loses its meaning.
    """
    x, y = (p + 1.0 for p in _checked(image, target))  # 0..2
    if min(x.shape[1:3]) <= 2 * _RADIUS:
        raise ValueError(
            f"pictures of {x.shape[1]} x {x.shape[2]} are smaller than SSIM's window "
            f"of {2 * _RADIUS + 1}; use larger ones"
        )
    # About one centre for both: squares of small numbers lose fewer digits.
    centre = jnp.mean(y, axis=(1, 2), keepdims=True)
    x, y = x - centre, y - centre
    blurred = _blur(jnp.concatenate([x, y, x * x, y * y, x * y], axis=-1))
    mx, my, xx, yy, xy = jnp.split(blurred, 5, axis=-1)
    xx, yy, xy = xx - mx**2, yy - my**2, xy - mx * my
    mx, my = mx + centre, my + centre
    c1, c2 = (0.01 * _RANGE) ** 2, (0.03 * _RANGE) ** 2
    numerator = (2 * mx * my + c1) * (2 * xy + c2)
    return jnp.mean(numerator / ((mx**2 + my**2 + c1) * (xx + yy + c2)), (1, 2, 3))


@functools.partial(jax.jit, static_argnames="codebook_size")
def code_counts(
    image_ids: jax.Array, weight: jax.Array, codebook_size: int
) -> jax.Array:
    """Count of each code in the pictures that count.

    Args:
      image_ids: int [B,h,w].
      weight: [B], 0 where a picture does not count, else 1.
      codebook_size: K.

    Returns:
      float32 [K].
    """
    # An id beyond the codebook is no code's.
    counted = jnp.where(weight[:, None, None] > 0, image_ids, codebook_size)
    return quantize.counts(counted, codebook_size)


def code_figures(counts: np.ndarray) -> dict[str, float]:
    """Figures of counts [K]: codes_used (share met at all) and perplexity (1..K)."""
    return {
        "codes_used": float(np.mean(counts > 0)),
        "perplexity": float(quantize.perplexity(jnp.asarray(counts, jnp.float32))),
    }


@jax.jit
def _sum(values: jax.Array, weight: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(sum, count) of [B] where weight is not 0, whatever stands elsewhere."""
    return losses.masked_sum(jnp.where(weight > 0, values, 0.0), weight > 0)


_PIXELS = {"psnr": jax.jit(psnr), "ssim": jax.jit(ssim)}
_attribute_sums = jax.jit(agreement.attribute_sums)


def _host(array: Any) -> np.ndarray:
    """The whole of a global array, on every host."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        array = multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


def _levels(image: np.ndarray) -> np.ndarray:
    """Pictures in [-1,1] as uint8; what is beyond is clipped."""
    image = np.nan_to_num(image).clip(-1, 1)
    return np.round((image + 1) * 127.5).astype(np.uint8)


class _Space:
    """Moments, and where people are known all features, in one feature space."""

    def __init__(self, features: Callable[[Any], Any]):
        self.features = features
        self.moments = distributions.Moments(), distributions.Moments()
        self.kept: tuple[list, list] = [], []

    def add(self, image, again, real: np.ndarray, keep: bool) -> None:
        for picture, moments, kept in zip((image, again), self.moments, self.kept):
            found = _host(self.features(picture))[real]
            moments.add(found)
            if keep:
                kept.append(found)

    def figures(self, name: str, identity: np.ndarray | None) -> dict[str, float]:
        result = {f"frechet/{name}": distributions.frechet_distance(*self.moments)}
        if identity is None:
            return result
        before, after = (np.concatenate(kept) for kept in self.kept)
        for when, queries in (("before", before), ("after", after)):
            hits, count = agreement.identity_sums(queries, before, identity)
            if count:
                result[f"identity_{when}/{name}"] = hits / count
        return result


def evaluate(
    batches: Iterable[Batch],
    encode: Callable[[Any], Any],
    decode: Callable[[Any], Any],
    codebook_size: int,
    *,
    distances: Mapping[str, Callable[[Any, Any], Any]] | None = None,
    features: Mapping[str, Callable[[Any], Any]] | None = None,
    judge: Callable[[Any], Any] | None = None,
    attributes: Sequence[str] = (),
    landmarks: Callable[[np.ndarray], np.ndarray] | None = None,
    perceiver: Perceiver | None = None,
) -> dict[str, float]:
    """Figures of reconstructions.

    The callables are compiled by the caller. Arrays may be of the host, of a device,
    or global ones of any mesh; every host then gets the same figures.

    Args:
      batches: mappings with "image" float32 [B,S,S,3] in [-1,1]; "weight" [B], 0
        where a picture only fills up its batch, else 1 (without it all count); and
        "identity" int [B], who is shown, where that may be asked: only for people
        who do not exist.
      encode, decode: pictures -> image_ids int [B,h,w] -> pictures.
      codebook_size: K.
      distances: name of the feature space -> (image, target) -> [B].
      features: name of the feature space -> image -> [B,D].
      judge: image -> logits [B,A], one an attribute.
      attributes: names of the judge's outputs.
      landmarks: uint8 [B,H,W,3] -> float32 [B,68,2] iBUG points in pixels, NaN where
        there is no face.
      perceiver: a perception model that looks at both.

    Returns:
      psnr (dB), ssim, distance/NAME: means over the pictures; codes_used,
      perplexity: see `code_figures`; agreement/ATTRIBUTE and others: see
      `agreement.attribute_figures`; frechet/NAME of the photographs and their
      reconstructions, num_images of each; identity_before/NAME and
      identity_after/NAME: share of the pictures, before and after reconstruction,
      whose nearest other photograph shows the same person; landmark_error/PART,
      faces_before and faces_after: see `landmarks.landmark_figures`;
      parsing_agreement and landmark_shift: see `perceived.Perceived`; num_images.

    Raises:
      UserError: no pictures, or fewer than 2 where features are asked for.
    """
    per_picture = _PIXELS | {f"distance/{n}": d for n, d in (distances or {}).items()}
    gathered = _Gathered(
        codebook_size, per_picture, features or {}, judge, landmarks, perceiver
    )
    for batch in batches:
        image_ids = encode(batch["image"])
        gathered.add(batch, image_ids, jnp.clip(decode(image_ids), -1.0, 1.0))
    return gathered.figures(attributes)


class _Gathered:
    """Sums, features and points of the batches so far; arguments as of `evaluate`.

    Args:
      per_picture: name -> (image, target) -> [B], whose means are figures.
    """

    def __init__(
        self, codebook_size, per_picture, features, judge, landmarks, perceiver
    ):
        self.codebook_size, self.per_picture = codebook_size, per_picture
        self.spaces = {name: _Space(function) for name, function in features.items()}
        self.judge, self.landmarks = judge, landmarks
        self.perceived = Perceived(perceiver) if perceiver else None
        self.totals: dict[str, Any] | None = None
        self.points: tuple[list, list] = [], []
        self.people: list[np.ndarray] = []

    def add(self, batch: Batch, image_ids: jax.Array, again: jax.Array) -> None:
        """Adds a batch with its codes [B,h,w] and its reconstructions [B,S,S,3]."""
        image = batch["image"]
        weight = batch.get("weight", np.ones(len(image), np.float32))
        sums = {n: _sum(f(again, image), weight) for n, f in self.per_picture.items()}
        sums["codes"] = code_counts(image_ids, weight, self.codebook_size)
        if self.judge:
            found = self.judge(image), self.judge(again)
            sums["judge"] = _attribute_sums(*found, weight)
        # float64 on the host: float32 would stop counting at 2^24.
        sums = jax.tree.map(np.float64, sums)
        self.totals = jax.tree.map(np.add, self.totals, sums) if self.totals else sums
        real, known = _host(weight) > 0, "identity" in batch
        for space in self.spaces.values():
            space.add(image, again, real, known)
        if real.any() and (self.landmarks or self.perceived):
            shown = [_levels(_host(picture)[real]) for picture in (image, again)]
            if self.landmarks:
                for picture, found in zip(shown, self.points):
                    found.append(self.landmarks(picture))
            if self.perceived:
                self.perceived.add(*shown)
        if known:
            self.people.append(_host(batch["identity"])[real])

    def figures(self, attributes: Sequence[str]) -> dict[str, float]:
        """The figures of all that was added, see `evaluate`.

        Raises:
          UserError: nothing was, or fewer than 2 pictures where features are asked for.
        """
        totals = self.totals or {}
        count = int(totals["psnr"][1]) if totals else 0
        if not count:
            raise UserError("no pictures to measure; check what was given")
        result = {name: float(np.divide(*totals[name])) for name in self.per_picture}
        result |= code_figures(totals["codes"])
        if self.judge:
            result |= agreement.attribute_figures(totals["judge"], attributes)
        if self.landmarks:
            result |= landmark_figures(*map(np.concatenate, self.points))
        if self.perceived:
            result |= self.perceived.figures()
        identity = np.concatenate(self.people) if self.people else None
        for name, space in self.spaces.items():
            result |= space.figures(name, identity)
        return {**result, "num_images": count}
