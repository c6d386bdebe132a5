"""What every editor is asked to do, and what does it: a model, or another program.

The tasks of one seed are the same for all: photographs, masks and sentences. Another
program reads them from a folder (`write_jobs`) and leaves its pictures in a second one
(`by_other`).
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import time
from collections.abc import Callable, Sequence

import jax
import numpy as np
from PIL import Image

from gptface_jax.core import files
from gptface_jax.core.errors import UserError
from gptface_jax.data import captions, image_io, regions
from gptface_jax.data import image as images
from gptface_jax.data.record import Record
from gptface_jax.data.tasks import EDIT, PROMPTS
from gptface_jax.pipelines import perceived_regions, sequence_drawing
from gptface_jax.pipelines.compositing import BORDERS, Blend, paste
from gptface_jax.pipelines.framing import Framed
from gptface_jax.pipelines.perception import PerceptionModel
from gptface_jax.pipelines.sequence_model import SequenceModel, generate_options
from gptface_jax.pipelines.strength import Direction
from gptface_jax.pipelines.views import View
from gptface_jax.protocols.model import Model
from gptface_jax.protocols.records import pictures_of
from gptface_jax.systems.gptface.options import DecodeConfig

JOBS = "jobs.jsonl"


@dataclasses.dataclass(frozen=True)
class Task:
    """One change that is asked of every photograph.

    Attributes:
      attribute: what it is about.
      present: the sentences ask for it; otherwise they rule it out.
      regions: bool [B,S,S], what may change of each photograph.
      texts: a sentence for each photograph.
      stream: number of the attribute, for random numbers of its own.
    """

    attribute: str
    present: bool
    regions: np.ndarray
    texts: Sequence[str]
    stream: int

    @property
    def ids(self) -> list[str]:
        """Name of each edit."""
        side = "asked" if self.present else "opposite"
        return [f"{i:05d}_{self.attribute}_{side}" for i in range(len(self.texts))]


@dataclasses.dataclass(frozen=True)
class Edited:
    """Pictures of one task.

    Attributes:
      images: uint8 [B,S,S,3] as a user gets them.
      raw: uint8 [B,S,S,3] before compositing; None where nobody knows.
      seconds: of each edit; empty where nobody knows.
    """

    images: np.ndarray
    raw: np.ndarray | None = None
    seconds: Sequence[float] = ()


# (photographs uint8 [B,S,S,3], task, called with how many are done) -> Edited.
Edit = Callable[[np.ndarray, Task, Callable[[int], object]], Edited]


def tasks(
    records: Sequence[Record], attributes: Sequence[str], size: int, seed: int = 0,
    perception: PerceptionModel | None = None,
) -> list[Task]:  # fmt: skip
    """Two an attribute: sentences for it, then sentences against it.

    Args:
      records: the photographs, with labels.
      attributes: to ask for.
      size: of the photographs in pixels.
      seed: of the sentences.
      perception: sees the regions in each photograph, as `edit` takes them; without it
        they are those of an upright face.

    Raises:
      UserError: an attribute of which no region is known.
    """
    for name in attributes:
        if name not in regions.OF_ATTRIBUTE:
            raise UserError(
                f"no region is known where '{name}' shows; use "
                + ", ".join(regions.OF_ATTRIBUTE)
            )
    names = {name: regions.OF_ATTRIBUTE[name] for name in attributes}
    masks = _regions(records, sorted(set(names.values())), size, perception)
    return [
        Task(
            name,
            present,
            masks[names[name]],
            [
                captions.edit_text(
                    name, present, r.labels, np.random.default_rng([seed, i, stream])
                )
                for i, r in enumerate(records)
            ],
            stream,
        )
        for stream, name in enumerate(attributes)
        for present in (True, False)
    ]


def _regions(records, names: Sequence[str], size: int, perception):
    """Masks bool [B,S,S] of the named regions in the photographs."""
    whole = View.crop((0, 0, size, size))
    usual = {name: regions.region_mask(name, size) for name in names}
    rows = []
    for photo in pictures_of(records, size):
        seen = {}
        if perception is not None:
            seen, _ = perceived_regions.seen(
                perception, "+".join(names), photo, None, whole
            )
        rows.append([seen.get(name, usual[name]) for name in names])
    return dict(zip(names, np.swapaxes(rows, 0, 1)))


def pasted(
    photo: np.ndarray,
    decoded: np.ndarray,
    open_tokens: np.ndarray,
    region: np.ndarray,
    blend: Blend | None = None,
) -> np.ndarray:
    """A decoded picture in its photograph, as users get it; uint8 [S,S,3].

    Args:
      photo, decoded: uint8 [S,S,3].
      open_tokens: bool [h,w], what the model drew.
      region: bool [S,S], what might change.
      blend: how it is pasted; default `Blend()`.
    """
    side = photo.shape[0]
    framed = Framed(region, View.crop((0, 0, side, side)), {})
    return paste(photo, decoded, open_tokens, framed, blend).image


def by_model(
    model: Model,
    config: DecodeConfig,
    seed: int = 0,
    *,
    num_candidates: int = 1,
    borders: int = BORDERS,
    batch_size: int = 32,
    strength: Sequence[Direction] = (),
) -> Edit:
    """Edits by a model.

    Args:
      model: the model.
      config: of its decoder.
      seed: of the decoding.
      num_candidates: of each edit; the best by the model's own match is taken.
      borders: levels, see `Model.edit`.
      batch_size: edits decoded at once.
      strength: of attributes, in every edit.

    Raises:
      UserError: no candidates.
    """
    if num_candidates < 1:
        raise UserError(f"samples is {num_candidates}; use 1 candidate or more")
    blend = Blend(borders=borders)

    def edit(photos: np.ndarray, task: Task, done: Callable[[int], object]) -> Edited:
        key = jax.random.fold_in(jax.random.key(seed), task.stream)
        raw, drawn, seconds = [], [], []
        for start in range(0, len(photos), batch_size):
            numbers = np.arange(start, start + batch_size) % len(photos)
            keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(numbers)
            begin = time.perf_counter()
            batch = model.editor.edit(
                photos[numbers],
                task.regions[numbers],
                [task.texts[i] for i in numbers],
                config,
                keys,
                num_candidates=num_candidates,
                strength=[strength] * batch_size,
            )
            count = min(batch_size, len(photos) - start)
            raw.append(batch.images[:count])
            drawn.append(batch.open_tokens[:count])
            seconds.append((time.perf_counter() - begin) / batch_size)
            done(count)
        raw = np.concatenate(raw)
        images = [
            pasted(photo, decoded, tokens, region, blend)
            for photo, decoded, tokens, region in zip(
                photos, raw, np.concatenate(drawn), task.regions
            )
        ]
        return Edited(np.stack(images), raw, seconds)

    return edit


def by_redrawing(
    model: SequenceModel,
    seed: int = 0,
    *,
    blend: Blend | None = None,
    batch_size: int = 32,
) -> Edit:
    """Edits by a sequence model, which draws the whole picture anew after the sentence.

    Args:
      model: was trained to edit (`model.learnt.edits`).
      seed: of the drawing.
      blend: how what it draws of the region is pasted; with `composite=False` all of
        it counts, also what was to stay.
      batch_size: edits drawn at once.

    Raises:
      UserError: the model was not trained to.
    """
    sequence_drawing.check_edits(model)
    config = generate_options(model.synthesis)

    def edit(photos: np.ndarray, task: Task, done: Callable[[int], object]) -> Edited:
        if photos.shape[1] != model.size:
            raise UserError(
                f"the photographs have {photos.shape[1]} px, and the sequence model "
                f"draws {model.size}; give a --model of that size"
            )
        key = jax.random.fold_in(jax.random.key(seed), task.stream)
        codes = model.image_ids(photos)
        prefixes = np.stack(
            [
                model.edit_prefix(PROMPTS[EDIT], ids, text)[0]
                for ids, text in zip(codes, task.texts)
            ]
        )
        raw, seconds = [], []
        for start in range(0, len(photos), batch_size):
            numbers = np.arange(start, start + batch_size) % len(photos)
            keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(numbers)
            begin = time.perf_counter()
            drawn = model.generate(prefixes[numbers], config, keys[:, None])
            count = min(batch_size, len(photos) - start)
            raw.append(model.pictures(np.asarray(drawn.tokens)[:count, 0]))
            seconds.append((time.perf_counter() - begin) / batch_size)
            done(count)
        raw = np.concatenate(raw)
        pictures = [
            pasted(
                photo,
                decoded,
                images.pixels_to_tokens(region, model.grid),
                region,
                blend,
            )  # fmt: skip
            for photo, decoded, region in zip(photos, raw, task.regions)
        ]
        return Edited(np.stack(pictures), raw, seconds)

    return edit


def write_jobs(
    folder: str | os.PathLike, photos: np.ndarray, asked: Sequence[Task]
) -> pathlib.Path:
    """Writes what another program has to do: a photograph, mask and line an edit.

    Args:
      folder: new or empty; gets ID.png, ID_mask.png (white = may change) and
        jobs.jsonl, whose lines hold "id", "image", "mask" and "text", as those of
        `gptface edit --jobs` do.
      photos: uint8 [B,S,S,3].
      asked: of `tasks`.

    Returns:
      Path of jobs.jsonl, which is written last.

    Raises:
      UserError: a folder with anything in it.
    """
    folder = pathlib.Path(folder)
    if folder.exists() and any(folder.iterdir()):
        raise UserError(f"'{folder}' is not empty; choose a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for task in asked:
        for name, photo, text, region in zip(
            task.ids, photos, task.texts, task.regions
        ):
            Image.fromarray(photo).save(folder / f"{name}.png")
            mask = Image.fromarray(region.astype(np.uint8) * 255)
            mask.save(folder / f"{name}_mask.png")
            job = {"image": f"{name}.png", "mask": f"{name}_mask.png", "text": text}
            lines.append(json.dumps({"id": name, **job}))
    files.write_text(folder / JOBS, "\n".join(lines) + "\n")
    return folder / JOBS


def by_other(folder: str | os.PathLike, asked: Sequence[Task]) -> tuple[Edit, str]:
    """Edits that another program made of the tasks.

    They are taken as they are: nothing is composited, and what they change outside the
    mask counts as what they did.

    Args:
      folder: holds ID.png of every edit.
      asked: of `tasks`.

    Returns:
      The edits, and a digest of the files.

    Raises:
      UserError: pictures that are missing, or, when they are read, of another size.
    """
    folder = pathlib.Path(folder)
    paths = [folder / f"{name}.png" for task in asked for name in task.ids]
    if missing := [path for path in paths if not path.is_file()]:
        raise UserError(
            f"'{folder}' lacks {len(missing)} of {len(paths)} pictures, such as "
            f"{missing[0].name}; make those of every line of jobs.jsonl, of the same "
            "--images, --limit, --seed, --upright, --perception, --attributes and "
            "--decode-seeds"
        )
    digest = hashlib.sha256()
    for path in paths:
        digest.update(hashlib.sha256(path.read_bytes()).digest())

    def edit(photos: np.ndarray, task: Task, done: Callable[[int], object]) -> Edited:
        found = [image_io.decode(folder / f"{name}.png") for name in task.ids]
        for name, picture in zip(task.ids, found):
            if picture.shape != photos.shape[1:]:
                height, width = picture.shape[:2]
                side = photos.shape[1]
                raise UserError(
                    f"'{folder / name}.png' is {width} x {height}, its photograph "
                    f"{side} x {side}; scale it to that"
                )
        done(len(found))
        return Edited(np.stack(found))

    return edit, digest.hexdigest()[:16]
