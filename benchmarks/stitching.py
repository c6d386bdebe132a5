"""Two photographs joined: what is left of the seam (G16).

    python benchmarks/stitching.py --images ../shared/data/lfw_attributes

The left half of a photograph meets the right half of another one: pasted, with the
colours matched, and with the seam drawn anew. Edge: mean difference of neighbouring
pixels within 4 px of the seam over that 8 to 16 px beside it, its median. AUC: how
often a joined photograph has a larger edge than an untouched one; .5 is no difference.
"""

from __future__ import annotations

import numpy as np
import photos
import tables

import gptface_jax
from gptface_jax.data import blending
from gptface_jax.evaluate import edits
from gptface_jax.pipelines import pictures


def edge(picture: np.ndarray) -> float:
    """The largest step between two columns near the middle over that beside it."""
    grey = picture.astype(float).mean(-1)
    steps = np.abs(np.diff(grey, axis=1)).mean(0)
    middle = grey.shape[1] // 2
    place = np.abs(np.arange(len(steps)) + 1 - middle)
    return float(steps[place <= 4].max() / steps[(place >= 8) & (place <= 16)].max())


def main() -> None:
    options = photos.parser(__doc__).parse_args()
    model = gptface_jax.load(options.model, tokenizer=options.tokenizer)
    originals = photos.read(options)
    partners = [originals[(i + 1) % len(originals)] for i in range(len(originals))]

    def pasted(first, second, colours):
        if colours:
            theirs = np.broadcast_to(np.arange(128) >= 64, (128, 128))
            strip = blending.boundary_band(theirs, 2 * first.shape[1] / 8)
            second = blending.match_colours(second, strip, first, strip)
        middle = first.shape[1] // 2
        return np.concatenate([first[:, :middle], second[:, middle:]], 1)

    def drawn(band):
        def run(first, second):
            stitched = model.stitch(first, second, band=band, seed=options.seed)
            return np.asarray(stitched.image)

        return run

    ways = {
        "untouched": lambda first, second: first,
        "pasted": lambda first, second: pasted(first, second, False),
        "colours matched": lambda first, second: pasted(first, second, True),
        "drawn, 1 token": drawn(1.0),
        "drawn, 2 tokens": drawn(2.0),
    }
    rows, shown, said, untouched = [["way", "edge", "AUC"]], [], [], None
    for name, way in ways.items():
        results = [way(*pair) for pair in zip(originals, partners)]
        edges = np.array([edge(r) for r in results])
        untouched = edges if untouched is None else untouched
        auc = edits.area_under_curve(edges, untouched)
        rows.append([name, f"{np.median(edges):.2f}", f"{auc:.2f}"])
        shown += results[:5]
        said += [name] * 5
    print(f"{len(originals)} photographs, seed {options.seed}")
    print(tables.aligned(rows))
    if options.sheet:
        pictures.save(pictures.sheet(shown, 5, said, cell=128), options.sheet)


if __name__ == "__main__":
    main()
