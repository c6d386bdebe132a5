"""Text-guided edits of bundled pictures on one contact sheet."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import numpy as np
import tqdm
from PIL import Image

from gptface_jax.apps import api
from gptface_jax.core.errors import UserError
from gptface_jax.data import image_io, synthetic
from gptface_jax.pipelines import pictures, views

ASTRONAUT = pathlib.Path(__file__).parents[1] / "assets" / "astronaut.jpg"
TILT = 25  # degrees, clockwise


@dataclasses.dataclass(frozen=True)
class Job:
    """One edit.

    Attributes:
      name: of its files.
      image: the picture.
      region: where it is edited.
      text: the sentence.
      align: find the face; drawn ones fill their square as the model knows it.
      crop: square that an upright face fills, where none is to be found.
    """

    name: str
    image: image_io.Source
    region: str
    text: str
    align: bool = True
    crop: api.Box | None = None


def bundled_jobs() -> list[Job]:
    """A public-domain photograph, as it is and tilted, and drawn faces, six edits."""

    def portrait(index: int) -> np.ndarray:
        return synthetic.render(synthetic.sample_factors(2026, index), 256).image

    photo = Image.open(ASTRONAUT)
    tilted = photo.rotate(-TILT, Image.Resampling.BICUBIC, fillcolor=(90, 90, 90))
    return [
        Job("astronaut", photo, "mouth", "a woman with a serious face"),
        Job("astronaut", photo, "hair", "a woman with black hair"),
        Job("tilted", tilted, "hat", "a woman wearing a hat"),
        Job("portrait1", portrait(22), "hat", "a woman wearing a hat", align=False),
        Job("portrait2", portrait(98), "mouth", "a woman smiling", align=False),
        Job(
            "portrait3", portrait(111), "lower-face", "a man with a beard", align=False
        ),
    ]


def photo_jobs(image: image_io.Source, crop: api.Box | None) -> list[Job]:
    """Four edits of one's own photo."""
    texts = {
        "hair": "a person with black hair",
        "mouth": "a person smiling",
        "hat": "a person wearing a hat",
        "lower-face": "a man with a beard",
    }
    return [Job("photo", image, r, t, crop=crop) for r, t in texts.items()]


def run(
    out: str | os.PathLike = "gptface-quickstart",
    *,
    image: str | os.PathLike | None = None,
    crop: api.Box | None = None,
    model: str = "demo",
    seed: int = 1,
    progress: bool = True,
) -> pathlib.Path:
    """Makes the edits and writes them, with one sheet of all, into a folder.

    Returns:
      Path of the contact sheet.
    """
    folder = pathlib.Path(out)
    if folder.exists() and not folder.is_dir():
        raise UserError(f"'{out}' is a file; choose another --out")
    opened = api.load(model)
    jobs = photo_jobs(image, crop) if image else bundled_jobs()
    folder.mkdir(parents=True, exist_ok=True)
    sheet, *_ = api.outputs(folder / "sheet.png")
    shown, captions, made = [], [], []
    bar = tqdm.tqdm(jobs, unit="edit", disable=not progress)
    for number, job in enumerate(bar, 1):
        bar.set_description(job.text)
        edit = opened.edit(
            job.image,
            job.text,
            region=job.region,
            crop=job.crop,
            align=job.align,
            seed=seed,
        )
        edit.save(folder / f"{number}-{job.name}-{job.region}.png")
        made.append(edit.details)
        view = views.view_of(edit.details)
        photo = np.asarray(edit.before)
        before, after = view.picture(photo), view.picture(image_io.decode(edit.image))
        first = pictures.squares_seen(photo, [view]) if view.face else before
        shown += [first, pictures.shade(before, view.mask(edit.mask)), after]
        found = "the face is found" if view.face else "before"
        captions += [found, f"may change: {job.region}", f"“{job.text}”"]
    details = opened.details(True, "", seed, opened.decode) | {"edits": made}
    api.save_with_sidecar(pictures.sheet(shown, 6, captions), sheet, details)
    return sheet
