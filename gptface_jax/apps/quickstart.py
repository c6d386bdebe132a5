"""Text-guided edits of bundled pictures on one contact sheet."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import numpy as np
import tqdm

from gptface_jax.apps import api, pictures
from gptface_jax.core.errors import UserError
from gptface_jax.data import image as images
from gptface_jax.data import synthetic
from gptface_jax.pipelines import framing

ASTRONAUT = pathlib.Path(__file__).parents[1] / "assets" / "astronaut.jpg"
# Square around the astronaut's head: left, top, right, bottom.
HEAD = (140, 24, 308, 192)


@dataclasses.dataclass(frozen=True)
class Job:
    """One edit: a picture, the square the model sees, where, and the sentence."""

    name: str
    image: images.Source
    crop: api.Box | None
    region: str
    text: str


def bundled_jobs() -> list[Job]:
    """The public-domain portrait and three synthetic ones, edited six ways."""

    def portrait(index: int) -> np.ndarray:
        return synthetic.render(synthetic.sample_factors(2026, index), 256).image

    photo = os.fspath(ASTRONAUT)
    return [
        Job("astronaut", photo, HEAD, "mouth", "a woman with a serious face"),
        Job("astronaut", photo, HEAD, "hair", "a woman with black hair"),
        Job("astronaut", photo, HEAD, "hat", "a woman wearing a hat"),
        Job("portrait1", portrait(22), None, "hat", "a woman wearing a hat"),
        Job("portrait2", portrait(98), None, "mouth", "a woman smiling"),
        Job("portrait3", portrait(111), None, "lower-face", "a man with a beard"),
    ]


def photo_jobs(image: images.Source, crop: api.Box | None) -> list[Job]:
    """Four edits of one's own photo of an upright, centred face."""
    texts = {
        "hair": "a person with black hair",
        "mouth": "a person smiling",
        "hat": "a person wearing a hat",
        "lower-face": "a man with a beard",
    }
    return [Job("photo", image, crop, r, t) for r, t in texts.items()]


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
            seed=seed,
        )
        edit.save(folder / f"{number}-{job.name}-{job.region}.png")
        made.append(edit.details)
        view = framing.view_of(edit.details)
        before = view.picture(np.asarray(edit.before))
        after = view.picture(images.decode(edit.image))
        shown += [before, pictures.shade(before, view.mask(edit.mask)), after]
        captions += ["before", f"may change: {job.region}", f"“{job.text}”"]
    details = opened.details(True, "", seed, opened.decode) | {"edits": made}
    api.save_with_sidecar(pictures.sheet(shown, 6, captions), sheet, details)
    return sheet
