"""The same edits of drawn faces upright and turned, shifted, shrunk (G17).

    python benchmarks/unaligned.py --judge runs/judge_synthetic --limit 64

Faces are drawn at 128 px and moved about the middle; the region moves with them. After
the edit the picture is moved back, for the judge knows upright faces only. Upright ones
are resampled as often. Shares of edits in which the judge sees the attribute.
"""

from __future__ import annotations

import argparse

import numpy as np
import tables
from PIL import Image

import gptface_jax
from gptface_jax.apps import evaluation, networks, pictures
from gptface_jax.data import captions, image, probe, regions
from gptface_jax.data.synthetic import SyntheticFaces
from gptface_jax.evaluate import edits

SIDE = 128
# Name -> (degrees, shift right and down as shares of the side, scale).
MOVES = {
    "upright": (0, 0, 0, 1.0),
    "turned 10 degrees": (10, 0, 0, 1.0),
    "turned 25 degrees": (25, 0, 0, 1.0),
    "shifted 8 %": (0, 0.08, 0.06, 1.0),
    "four fifths the size": (0, 0, 0, 0.8),
    "all of it": (12, 0.06, -0.05, 0.85),
}


def moved(picture: np.ndarray, move, back: bool = False) -> np.ndarray:
    """Resampled about the middle; borders repeat."""
    degrees, right, down, scale = move
    angle = np.deg2rad(degrees)
    turn = scale * np.array(
        [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    )
    middle, shift = np.full(2, SIDE / 2), SIDE * np.array([right, down])
    # Pillow asks where each pixel of the result comes from.
    source = turn if back else np.linalg.inv(turn)
    offset = (
        middle + shift - turn @ middle if back else middle - source @ (middle + shift)
    )
    pad = SIDE // 2
    padded = np.pad(picture, ((pad, pad), (pad, pad), (0, 0)), mode="edge")
    offset = offset + pad
    coefficients = (*source[0], offset[0], *source[1], offset[1])
    return np.asarray(
        Image.fromarray(padded).transform(
            (SIDE, SIDE), Image.Transform.AFFINE, coefficients, Image.Resampling.BICUBIC
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo")
    parser.add_argument("--tokenizer", help="VQGAN run, where --model is a run")
    parser.add_argument("--judge", required=True)
    parser.add_argument("--limit", type=int, default=64)
    parser.add_argument("--seed", type=int, default=77)
    parser.add_argument("--attributes", nargs="+", default=probe.ATTRIBUTES)
    parser.add_argument("--guidance", default="none")
    parser.add_argument("--cfg", type=float, default=1.0)
    parser.add_argument("--sheet", help="picture of the first edits")
    options = parser.parse_args()
    model = gptface_jax.load(options.model, tokenizer=options.tokenizer)
    judge = evaluation.Judge(networks.open_network(options.judge, "judge"))
    faces = SyntheticFaces(size=SIDE, count=options.limit, seed=options.seed)
    records = [faces[i] for i in range(options.limit)]
    rows, shown, said = [["", "asked", "opposite", "gap", "p"]], [], []

    def judged(results, move, column):
        back = [moved(r, move, back=True) for r in results]
        small = np.stack([image.resize(b, (judge.size,) * 2) for b in back])
        return judge(small)[:, column]

    for name, move in MOVES.items():
        photos = [moved(r.image, move) for r in records]
        verdicts = {True: [], False: []}
        for place, attribute in enumerate(options.attributes):
            column = judge.attributes.index(attribute)
            mask = regions.region_mask(regions.OF_ATTRIBUTE[attribute], SIDE)
            white = np.repeat(255 * mask[..., None].astype(np.uint8), 3, 2)
            mask = moved(white, move)[..., 0] > 127
            for present in (True, False):
                results = [
                    model.edit(
                        photo,
                        captions.edit_text(
                            attribute, present, record.labels,
                            np.random.default_rng([options.seed, i, place]),
                        ),
                        mask=255 * mask.astype(np.uint8),
                        crop=(0, 0, SIDE, SIDE),
                        seed=i,
                        samples=1,
                        guidance=options.guidance,
                        cfg=options.cfg,
                    ).image
                    for i, (photo, record) in enumerate(zip(photos, records))
                ]  # fmt: skip
                results = [np.asarray(r) for r in results]
                verdicts[present].append(judged(results, move, column))
                shown.append(results[place])
                said.append(f"{name}: {'+' if present else '-'} {attribute}")
        asked, opposite = (np.concatenate(verdicts[p]) for p in (True, False))
        rates = edits.rates(asked, opposite, asked)
        figures = rates.asked, rates.opposite, rates.gap
        rows.append([name, *(f"{x:.3f}" for x in figures), f"{rates.p_value:.0e}"])
        print(rows[-1], flush=True)
    count = len(options.attributes)
    print(f"{options.limit} faces x {count} attributes, guidance {options.guidance}")
    print(tables.aligned(rows))
    if options.sheet:
        sheet = pictures.sheet(shown, 2 * count, said, cell=96)
        pictures.save(sheet, options.sheet)


if __name__ == "__main__":
    main()
