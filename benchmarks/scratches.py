"""How many scratches does `gptface restore` find, and what does it take for one.

    python benchmarks/scratches.py --images ../shared/data/lfw_attributes --split test

Draws crooked lines, nearly white or black, into photographs: what share of their pixels
is found (recall), what share of the finds lies within two pixels of them (precision),
and what is found in the photographs as they are.
"""

from __future__ import annotations

import argparse

import numpy as np

from gptface_jax.data import damage, image, image_io, sources


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", required=True, help="Parquet folder of photographs")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    source = sources.open_source(
        {"kind": "parquet", "path": options.images, "split": options.split}
    )
    count = min(options.limit, len(source))
    photos = [image_io.decode(source[i].image) for i in range(count)]
    for scale, width in ((1, 2), (2, 3)):
        rng, hit, drawn, right, marked = np.random.default_rng(options.seed), 0, 0, 0, 0
        clean = []
        for photo in photos:
            photo = image.resize(
                photo, (scale * photo.shape[0], scale * photo.shape[1])
            )
            old, truth = damage.scratched(photo, rng, width)
            found = damage.scratches(old)
            hit, drawn = hit + (found & truth).sum(), drawn + truth.sum()
            right += (found & image.dilate(truth, 2)).sum()
            marked += found.sum()
            clean.append(damage.scratches(photo).mean())
        print(
            f"{photo.shape[1]} px: recall {hit / drawn:.3f}, precision "
            f"{right / marked:.3f}; of clean photographs {100 * np.mean(clean):.2f} % "
            f"marked (median {100 * np.median(clean):.2f} %), N = {len(photos)}"
        )


if __name__ == "__main__":
    main()
