"""Face masks painted over: does a classifier trained apart still see one (G14)?

    gptface train --config configs/judge/faces64.py:masks --workdir runs/judge_masks
    python benchmarks/mask_removal.py --images ../shared/data/masks \\
        --judge runs/judge_masks

Of photographs with a face mask a box over the lower face is drawn anew, without a text
and with one.
Of the aligned pairs (a mask drawn onto a photograph) the pixels that differ are: there
the photograph without the mask is known, and PSNR within them and the cosine to it in
the feature space of --features are given. A smooth fill also hides a mask: it is the
baseline. `seen before` is the share that the classifier recognises at all.
"""

from __future__ import annotations

import functools

import numpy as np
import photos
import tables

import gptface_jax
from gptface_jax.data import blending, image, image_io
from gptface_jax.experiments import opening
from gptface_jax.pipelines import pictures
from gptface_jax.pipelines.compositing import BORDERS
from gptface_jax.protocols import feature_space
from gptface_jax.protocols.judge import Judge
from gptface_jax.protocols.records import open_records

TEXT = "a smiling woman"
BOX = (0.1, 0.28, 0.9, 1.0)


def pairs(path: str, split: str):
    """(with a mask, without) of every aligned pair, uint8."""
    import pathlib

    import pyarrow.parquet as pq

    (file,) = pathlib.Path(path).glob(f"{split}-*.parquet")
    rows = [r for r in pq.read_table(file).to_pylist() if r["pair_id"]]
    found = {}
    for row in rows:
        picture = image_io.decode(row["image"]["bytes"])
        found.setdefault(row["pair_id"], {})[row["label"]] = picture
    return [(p["mask"], p["no_mask"]) for p in found.values() if len(p) == 2]


def main() -> None:
    parser = photos.parser(__doc__, limit=400)
    parser.add_argument("--judge", required=True)
    parser.add_argument("--features", help="judge run whose features compare faces")
    parser.add_argument(
        "--box", nargs=4, type=float, default=BOX, help="shares of the photograph"
    )
    parser.add_argument("--borders", type=int, default=BORDERS, help="levels")
    options = parser.parse_args()
    model = gptface_jax.load(options.model, tokenizer=options.tokenizer)
    judge = Judge(opening.open_network(options.judge, "judge"))
    space = feature_space.open_space(options.features) if options.features else None
    features = space.of_photos if space else None
    shown, said = [], []

    def smooth(photo, mask):
        filled = blending.prefill(image.to_unit_range(photo), mask)
        return image.from_unit_range(filled)

    def drawn(photo, mask, text="", **more):
        place = {
            "mask": 255 * mask.astype(np.uint8),
            "crop": (0, 0, photo.shape[1], photo.shape[0]),
            "seed": options.seed,
            "borders": options.borders,
        }
        draw = functools.partial(model.edit, text=text) if text else model.inpaint
        return np.asarray(draw(photo, **place, **more).image)

    ways = {
        "as it is": lambda photo, mask: photo,
        "smooth fill": smooth,
        "model": drawn,
        "model, one token more": lambda photo, mask: drawn(photo, mask, grow=1),
        f"model, “{TEXT}”": lambda photo, mask: drawn(photo, mask, TEXT),
    }

    def sees(results):
        small = [image.resize(r, (judge.size,) * 2) for r in results]
        return judge(np.stack(small))[:, 0]

    def measure(worn, masks, truths=None):
        rows = []
        before = sees(worn)
        for name, way in ways.items():
            results = [way(*pair) for pair in zip(worn, masks)]
            row = [name, f"{(~sees(results))[before].mean():.3f}"]
            if truths:
                psnr = [photos.psnr(*x) for x in zip(results, truths, masks)]
                row.append(f"{np.mean(psnr):.2f}")
                if features:
                    a, b = (
                        features(np.stack([image.resize(r, (64, 64)) for r in x]))
                        for x in (results, truths)
                    )
                    norms = np.linalg.norm(a, axis=1) * np.linalg.norm(b, axis=1)
                    row.append(f"{np.mean((a * b).sum(1) / norms):.3f}")
            rows.append(row)
            shown.extend(results[:6])
            said.extend([name] * len(results[:6]))
        return before.mean(), len(worn), rows

    source = [
        image_io.decode(r.image)
        for r in open_records(
            {
                "kind": "parquet",
                "path": options.images,
                "split": options.split,
                "classes": {"Wearing_Mask": "label=mask"},
            },
            options.limit,
        )
        if r.labels["Wearing_Mask"]
    ]
    boxes = []
    for photo in source:
        height, width = photo.shape[:2]
        mask = np.zeros((height, width), bool)
        x0, y0, x1, y1 = options.box
        rows, columns = (
            slice(int(y0 * height), int(y1 * height)),
            slice(int(x0 * width), int(x1 * width)),
        )
        mask[rows, columns] = True
        boxes.append(mask)
    seen, count, rows = measure(source, boxes)
    print(f"{count} photographs with a mask, box {options.box}; seen before {seen:.3f}")
    print(tables.aligned([["", "flipped"], *rows]))
    worn, bare = zip(*pairs(options.images, options.split))
    worn, bare = list(worn), list(bare)
    differ = [
        image.dilate(np.abs(a.astype(int) - b).max(-1) > 24, 3)
        for a, b in zip(worn, bare)
    ]
    seen, count, rows = measure(worn, differ, bare)
    print(f"{count} aligned pairs, pixels that differ; seen before {seen:.3f}")
    head = ["", "flipped", "PSNR", *(["cosine"] if features else [])]
    print(tables.aligned([head, *rows]))
    if options.sheet:
        pictures.save(pictures.sheet(shown, 6, said, cell=128), options.sheet)


if __name__ == "__main__":
    main()
