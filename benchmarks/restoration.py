"""Scratches painted over by the model, by OpenCV and by scikit-image (G15).

    python benchmarks/restoration.py --images ../shared/data/lfw_attributes --limit 100

The damage is drawn, so that what lay under it is known, and every method is told where
it is. PSNR in dB over the damaged pixels and SSIM of the whole photograph, means. Needs
opencv-python-headless and scikit-image (extra `bench`).
"""

from __future__ import annotations

import numpy as np
import photos
import tables

import gptface_jax
from gptface_jax.data import blending, damage, image
from gptface_jax.pipelines import pictures


def methods(model):
    import cv2
    from skimage.metrics import structural_similarity
    from skimage.restoration import inpaint_biharmonic

    def telea(photo, mask):
        return cv2.inpaint(photo, mask.astype(np.uint8), 3, cv2.INPAINT_TELEA)

    def biharmonic(photo, mask):
        filled = inpaint_biharmonic(photo / 255.0, mask, channel_axis=-1)
        return np.clip(np.round(255 * filled), 0, 255).astype(np.uint8)

    def smooth(photo, mask):
        filled = blending.prefill(image.to_unit_range(photo), mask)
        return image.from_unit_range(filled)

    def restored(**options):
        def run(photo, mask):
            marked = 255 * mask.astype(np.uint8)
            return np.asarray(model.restore(photo, marked, **options).image)

        return run

    def ssim(picture, truth):
        return structural_similarity(picture, truth, channel_axis=-1, data_range=255)

    return {
        "damaged": lambda photo, mask: photo,
        "smooth fill": smooth,
        "Telea": telea,
        "biharmonic": biharmonic,
        "restore": restored(),
        "model alone": restored(thin=0),
        "model alone, all it drew": restored(thin=0, paint="tokens"),
    }, ssim


def main() -> None:
    parser = photos.parser(__doc__, limit=100)
    parser.add_argument("--widths", type=int, nargs="+", default=[2, 4, 8, 16])
    options = parser.parse_args()
    model = gptface_jax.load(options.model, tokenizer=options.tokenizer)
    ways, ssim = methods(model)
    truths = photos.read(options)
    rows = [["method", *(f"{w} px" for w in options.widths)]]
    rows += [[name] for name in ways]
    shown, said = [], []
    for width in options.widths:
        rng = np.random.default_rng(options.seed)
        found = {name: [] for name in ways}
        for number, truth in enumerate(truths):
            photo, mask = damage.scratched(truth, rng, width)
            for name, way in ways.items():
                result = way(photo, mask)
                found[name].append(
                    [photos.psnr(result, truth, mask), ssim(result, truth)]
                )
                if number < 2:
                    shown.append(result)
                    said.append(f"{name}, {width} px")
        for row, values in zip(rows[1:], found.values()):
            row.append("{:.2f} .{:03.0f}".format(*np.mean(values, 0) * [1, 1000]))
    print(f"{len(truths)} photographs of {truths[0].shape[1]} px, seed {options.seed}")
    print(tables.aligned(rows))
    if options.sheet:
        pictures.save(pictures.sheet(shown, len(ways), said, cell=128), options.sheet)


if __name__ == "__main__":
    main()
