"""Photos through tokenizers and back: figures, and a picture that compares them."""

from __future__ import annotations

import functools
import os
import pathlib
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np
import tqdm
from PIL import Image, ImageDraw, ImageFont

from gptface_jax.core.errors import UserError, nearest
from gptface_jax.core.types import Batch
from gptface_jax.data import image, photo_batches, sources, transforms
from gptface_jax.data.record import Record
from gptface_jax.evaluate import reconstruction
from gptface_jax.experiments import opening, perceptual
from gptface_jax.pipelines import faces, networks, pictures
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer
from gptface_jax.pipelines.perception import PerceptionModel
from gptface_jax.protocols import feature_space
from gptface_jax.protocols.judge import on_pictures
from gptface_jax.protocols.perception import perceived_by
from gptface_jax.systems.vqgan import PerceptualConfig

_psnr, _ssim = jax.jit(reconstruction.psnr), jax.jit(reconstruction.ssim)
Paths = Sequence[str | os.PathLike]
_COLUMNS, _GAP = 8, 8


def names_of(paths: Paths) -> list[str]:
    """The folders' names; the paths as given where two folders have one name.

    Raises:
      UserError: the same path twice.
    """
    names = [pathlib.Path(os.path.abspath(p)).name for p in paths]
    if len(set(names)) < len(names):
        names = [os.fspath(p) for p in paths]
    if len(set(names)) < len(names):
        twice = next(n for n in names if names.count(n) > 1)
        raise UserError(f"'{twice}' is given twice; name every tokenizer once")
    return names


def judged_by(
    judge: str | os.PathLike, attributes: Sequence[str] = ()
) -> dict[str, Any]:
    """Arguments that a judge adds to `evaluate.reconstruction.evaluate`.

    Args:
      judge: training run or model directory of a classifier.
      attributes: which of its verdicts count; all, if none are named.

    Returns:
      Its arguments judge and attributes, and distances and features in the feature
      space of the judge, named after its folder.

    Raises:
      UserError: an attribute that the judge does not know.
    """
    network = opening.open_network(judge, "judge")
    known = network.config.attributes
    for name in attributes:
        if name not in known:
            raise UserError(
                f"judge '{judge}' does not know '{name}'{nearest(name, known)}; it "
                f"judges {', '.join(known)}"
            )
    chosen = np.array([known.index(name) for name in attributes or known])
    logits = on_pictures(network)
    (name,) = names_of([judge])
    return {
        "judge": lambda picture: logits(picture)[:, chosen],
        "attributes": attributes or known,
        **_compared_in(name, feature_space.of_judge(network)),
    }


def _compared_in(name: str, space: feature_space.FeatureSpace) -> dict[str, Any]:
    """Arguments distances and features of `evaluate.reconstruction.evaluate`."""
    return {"distances": {name: space.distance}, "features": {name: space.embed}}


def lpips_by(path: str) -> Callable:
    """LPIPS as a function (picture, target) -> [B], see `interop.lpips.load`."""
    opened = perceptual.open_distance(PerceptualConfig(1.0, "lpips", path))
    return functools.partial(jax.jit(opened.distance), jax.device_put(opened.params))


def mesh_landmarks(photos: np.ndarray) -> np.ndarray:
    """The 68 points float32 [B,68,2] of the largest faces in uint8 [B,H,W,3], or NaN.

    `landmarks` of `evaluate.reconstruction.evaluate`, by the face mesh.
    """
    found = [faces.largest(x) for x in faces.find_all(list(photos))]
    nothing = np.full((68, 2), np.nan, np.float32)
    return np.stack([nothing if f is None else f.landmarks for f in found])


def taught_by(network: networks.Network) -> PerceptualConfig:
    """What a VQGAN's training compared pictures by; weight 0 where it is not known."""
    meta = network.meta
    config = meta.get("config") or meta.get("training", {}).get("vqgan", {})
    given = config.get("objective", {}).get("perceptual") or {}
    names = ("weight", "network", "path")
    return PerceptualConfig(**{k: given[k] for k in names if k in given})


def _note_own_measures(name, network, judge, efficientnet, lpips) -> None:
    """Says on stderr if a VQGAN is measured in the features that it was trained by."""
    taught = taught_by(network)
    same = os.path.abspath(judge or "") == os.path.abspath(taught.path)
    asked = {
        "classifier": judge and same,
        feature_space.EFFICIENTNET: efficientnet,
        "lpips": lpips,
    }
    if taught.weight and asked.get(taught.network):
        print(
            f"note: '{name}' was trained by the distance in the features of "
            f"{taught.path or taught.network}; figures in these features flatter it "
            "beside tokenizers that were not",
            file=sys.stderr,
        )


def _batches(
    source: Sequence[Record],
    size: int,
    batch_size: int,
    with_identity: bool,
    progress: bool,
) -> Iterator[Batch]:
    """Batches for `evaluate`: all of one size, the last one filled up with weight 0."""
    batch_size = max(1, min(batch_size, len(source)))
    loaded = photo_batches.photo_batches(source, size, batch_size, progress)
    for records, photos in loaded:
        fill = [(0, batch_size - len(photos))]
        batch = {
            "image": image.to_unit_range(np.pad(photos, fill + [(0, 0)] * 3, "edge")),
            "weight": np.pad(np.ones(len(photos), np.float32), fill),
        }
        if with_identity:
            people = np.array([r.identity for r in records])
            batch["identity"] = np.pad(people, fill, "edge")
        yield batch


def figure(
    rows: Mapping[str, Sequence[np.ndarray]], cell: int, columns: int = _COLUMNS
) -> np.ndarray:
    """Pictures to compare: one below the other, every row labelled at its left.

    Args:
      rows: label -> uint8 pictures [H,W,3], the same number in each; more than
        `columns` of them go on in another block of rows.
      cell: side of a picture.
      columns: of a block.

    Returns:
      uint8 [H,W,3].
    """
    font = ImageFont.load_default(max(12, cell // 8))
    labels, cells = [], []
    count = len(next(iter(rows.values())))
    columns = min(columns, count)
    for start in range(0, count, columns):
        for label, shown in rows.items():
            labels.append(label)
            part = list(shown[start : start + columns])
            blank = np.full_like(part[0], 255)
            cells += part + [blank] * (columns - len(part))
    sheet = Image.fromarray(pictures.sheet(cells, columns, cell=cell, gap=_GAP))
    margin = max(round(font.getlength(label)) for label in rows) + 16
    page = Image.new("RGB", (margin + sheet.width, sheet.height), (255, 255, 255))
    page.paste(sheet, (margin, 0))
    draw = ImageDraw.Draw(page)
    for i, label in enumerate(labels):
        middle = _GAP + i * (cell + 2 * _GAP) + cell // 2
        corner = (margin - 4, middle)
        draw.text(corner, label, fill=(20, 20, 20), font=font, anchor="rm")
    return np.asarray(page)


def _size(network: networks.Network, resolution: int | None) -> int:
    """The side of the pictures that a tokenizer is measured with."""
    size, f = resolution or network.config.resolution, network.config.factor
    if size < f or size % f:
        raise UserError(
            f"resolution {size} is no multiple of the tokenizer's {f} pixels a token; "
            f"use {max(f, size // f * f)}"
        )
    return size


def _measures(judge, attributes, efficientnet: bool, lpips) -> dict[str, Any]:
    """Arguments of `evaluate.reconstruction.evaluate` beside the pictures."""
    measures: dict[str, Any] = {"distances": {}, "features": {}}
    if judge:
        measures |= judged_by(judge, attributes)
    if efficientnet:
        space = feature_space.efficientnet()
        for kind, more in _compared_in(feature_space.EFFICIENTNET, space).items():
            measures[kind] |= more
    if lpips:
        measures["distances"]["lpips"] = lpips_by(lpips)
    return measures


def reconstruct(
    spec: Mapping[str, Any],
    tokenizers: Paths,
    out: str | os.PathLike | None = None,
    *,
    judge: str | os.PathLike | None = None,
    attributes: Sequence[str] = (),
    lpips: str | None = None,
    efficientnet: bool = False,
    landmarks: Callable[[np.ndarray], np.ndarray] | None = None,
    perception: PerceptionModel | None = None,
    resolution: int | None = None,
    shown: int = 16,
    batch_size: int = 64,
    progress: bool = True,
) -> dict[str, dict[str, float]]:
    """Photos through VQGANs and back.

    Args:
      spec: the photos.
      tokenizers: VQGAN training runs or model directories.
      out: file for a picture of the originals above a row for each tokenizer.
      judge: training run or model directory of a classifier that says what the
        pictures show, and whose features compare them.
      attributes: which of the judge's verdicts are reported; all, if none.
      lpips: weights of LPIPS, see `interop.lpips.load`.
      efficientnet: also the distance and the Frechet distance in the features of
        EfficientNet-lite0. They depend on the size of the pictures.
      landmarks: finds the 68 points of a face, see `evaluate.reconstruction.evaluate`.
      perception: looks at the pictures before and after, in the size that it has.
      resolution: of the pictures in all tokenizers; by default each one's own.
      shown: photos in that picture.
      batch_size: pictures at once.
      progress: show a bar.

    Returns:
      Folder's name of each tokenizer -> figures of `evaluate.reconstruction`. A note on
      stderr names tokenizers that were trained by one of these measures.

    Raises:
      UserError: a resolution that a tokenizer cannot have, what cannot be read, or an
        ending of `out` that is no picture format.
    """
    if out:
        pictures.check(out)
    source = sources.open_source(spec, report=True)
    some = range(min(shown, len(source)))
    picks = [transforms.decode_picture(source[i]) for i in some]
    drawn = spec["kind"] == "synthetic"  # of no others may be asked who they are
    measures = _measures(judge, attributes, efficientnet, lpips)
    measures["landmarks"] = landmarks
    measures["perceiver"] = perceived_by(perception) if perception else None
    # All are opened before the first is measured: a wrong one should not come late.
    opened = [opening.open_network(path, "vqgan") for path in tokenizers]
    sizes = [_size(network, resolution) for network in opened]
    figures, rows = {}, {}
    for name, network, size in zip(names_of(tokenizers), opened, sizes):
        _note_own_measures(name, network, judge, efficientnet, lpips)
        vqgan = ImageTokenizer(network)
        batches = _batches(source, size, batch_size, drawn, progress)
        figures[name] = _figures(vqgan, batches, **measures)
        rows[name] = _again(vqgan, picks, size)
    if out:
        pictures.save(_page(picks, rows, max(sizes)), out)
    return figures


def _figures(vqgan: ImageTokenizer, batches, **measures) -> dict[str, float]:
    """Figures of `evaluate.reconstruction` for one tokenizer."""
    codes = vqgan.config.codebook_size
    return reconstruction.evaluate(
        batches, vqgan.encode, vqgan.decode, codes, **measures
    )


def _page(picks, rows: Mapping[str, np.ndarray], size: int) -> np.ndarray:
    """Photos of any size above what tokenizers make of them; uint8 [H,W,3]."""
    originals = [image.fit(photo, size) for photo in picks]
    return figure({"original": originals, **rows}, max(96, size))


def _again(vqgan: ImageTokenizer, picks, size: int) -> np.ndarray:
    """Photos of any size through a tokenizer and back; uint8 [B,S,S,3]."""
    photos = np.stack([image.fit(photo, size) for photo in picks])
    again = vqgan.decode(vqgan.encode(image.to_unit_range(photos)))
    return image.from_unit_range(again)


def reconstruct_at_own_size(
    spec: Mapping[str, Any],
    tokenizer: str | os.PathLike,
    out: str | os.PathLike,
    *,
    tile: int = 64,
    overlap: int = 8,
    progress: bool = True,
) -> dict[str, float]:
    """Photos of any size through a VQGAN and back, one after another.

    What is larger than a tile is encoded and decoded in tiles, with the memory of one.

    Args:
      spec: the photos.
      tokenizer: VQGAN training run or model directory.
      out: folder that gets 00000.png, ... of the photos' own sizes.
      tile, overlap: in tokens, see `ImageTokenizer.decode_tiled`.
      progress: show a bar.

    Returns:
      Means over the photos: psnr (dB), ssim, tokens; tiled, the share of photos cut
      into tiles; num_images.

    Raises:
      UserError: a folder with other files in it, or a photo that cannot be read.
    """
    source = sources.open_source(spec, report=True)
    folder = pathlib.Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise UserError(f"'{out}' is not empty; choose a new folder")
    vqgan = ImageTokenizer(opening.open_network(tokenizer, "vqgan"), batch_size=1)
    f, rows = vqgan.config.factor, []
    for i in tqdm.trange(len(source), unit="image", disable=not progress):
        photo = transforms.decode_picture(source[i])[None]
        size = photo.shape[1:3]
        tiled = max(size) > tile * f
        margin = -(-overlap // 2)  # on each side
        ids = vqgan.encode_tiled(photo, tile, margin) if tiled else vqgan.encode(photo)
        again = (
            vqgan.decode_tiled(ids, tile, overlap, size)
            if tiled
            else vqgan.decode(ids, size)
        )
        pictures.save(image.from_unit_range(again)[0], folder / f"{i:05d}.png")
        pair = again.clip(-1, 1), image.to_unit_range(photo)
        quality = [float(m(*pair)[0]) for m in (_psnr, _ssim)]
        rows.append([*quality, ids.size, tiled])
    if not rows:
        raise UserError("no pictures to reconstruct; check what was given")
    names = ("psnr", "ssim", "tokens", "tiled")
    means = np.mean(rows, axis=0, dtype=np.float64)
    return {**dict(zip(names, map(float, means))), "num_images": len(rows)}
