"""Does a temperature that acts on the density of probability draw better codes?

    python benchmarks/density.py --model docs/snapshots/faces128 \\
        --images ../shared/data/lfw_attributes --split validation --upright

The eyes of held-out photographs are drawn anew without a text, at several temperatures,
with `density` and without. Against the tokenizer's reconstruction of the photograph, in
the drawn part alone: root mean square error (1 is the range from black to white), error
of the mean colour, how much redder than green and greener than blue the mean became,
and the size of the gradient as a share of the reconstruction's (below 1: blurred).
"""

from __future__ import annotations

import argparse

import jax
import numpy as np
from tables import aligned
from tqdm import tqdm

import gptface_jax
from gptface_jax.data import image, image_io, sources
from gptface_jax.pipelines import upright
from gptface_jax.systems.gptface.options import DecodeConfig

EYES = (5 / 16, 9 / 16, 4 / 16, 12 / 16)  # top, bottom, left, right, of the square


def squares(options: argparse.Namespace, model) -> np.ndarray:
    """Photographs uint8 [B,S,S,3] as the model sees them."""
    source = sources.open_source(
        {"kind": "parquet", "path": options.images, "split": options.split}
    )
    records = (source[i] for i in range(min(options.limit, len(source))))
    if options.upright:
        bring = upright.Upright(model.size, tuple(map(tuple, model.frame)))
        records = (record for record in bring(records) if not isinstance(record, str))
    return np.stack(
        [image.fit(image_io.decode(record.image), model.size) for record in records]
    )


def measured(drawn: np.ndarray, truth: np.ndarray) -> list[str]:
    """A row of the table, of pictures uint8 [B,h,w,3]."""
    drawn, truth = drawn / 255.0, truth / 255.0
    error, colour = drawn - truth, np.mean(drawn - truth, (1, 2))
    red, green, blue = colour.mean(0)
    sharp = [np.abs(np.diff(x, axis=2)).mean() for x in (drawn, truth)]
    values = (
        np.sqrt(np.mean(error**2)), np.sqrt(np.mean(colour**2)), red - green,
        green - blue, sharp[0] / sharp[1],
    )  # fmt: skip
    return [f"{value:.3f}" for value in values]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--images", required=True, help="Parquet folder of photographs")
    parser.add_argument("--split", default="validation")
    parser.add_argument("--upright", action="store_true", help="bring faces upright")
    parser.add_argument("--limit", type=int, default=64, help="pictures")
    parser.add_argument("--temperatures", type=float, nargs="+", default=[1, 0.6, 0.3])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    model = gptface_jax.load(options.model, system="gptface")
    photos = squares(options, model)
    side = model.size
    top, bottom, left, right = (round(side * share) for share in EYES)
    part = (slice(None), slice(top, bottom), slice(left, right))
    masks = np.zeros(photos.shape[:3], bool)
    masks[part] = True
    editor = model.editor
    truth = image.from_unit_range(editor.vqgan.decode(editor.image_ids(photos)))[part]
    keys = jax.random.split(jax.random.key(options.seed), len(photos))
    rows = [["", "rms", "rms of mean colour", "red - green", "green - blue", "sharp"]]
    ways = [(t, d) for t in options.temperatures for d in (0.0, 1.0)]
    for t, density in tqdm(ways, disable=None):
        config = DecodeConfig(
            guidance="none", temperature=t, temperature_end=t, density=density
        )
        drawn = [
            editor.edit(
                photos[i : i + options.batch], masks[i : i + options.batch],
                [""] * len(photos[i : i + options.batch]), config,
                keys[i : i + options.batch],
            ).images
            for i in range(0, len(photos), options.batch)
        ]  # fmt: skip
        name = f"temperature {t:g}, density {density:g}"
        rows.append([name, *measured(np.concatenate(drawn)[part], truth)])
    print(f"{len(photos)} photographs, model {options.model}, {model.digest}")
    print(aligned(rows))


if __name__ == "__main__":
    main()
