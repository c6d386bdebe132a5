"""Is the token watermark found again, and what does it cost (SPEC E.8).

    python benchmarks/watermark.py --images ../shared/data/lfw_attributes --limit 400

With the bundled model: how many codes survive decoding and encoding; true positives at
a false-positive rate of 1e-3, of whole samples and of photographs a third of which was
inpainted, as they are and after what pictures meet; the same of several pictures
together; false positives on pictures without a mark, over many keys; and the
log-probability, under the unmarked and unguided model, of the codes that were chosen.
"""

from __future__ import annotations

import argparse
import functools
import io

import jax
import jax.numpy as jnp
import numpy as np
from PIL import Image
from tables import aligned

import gptface_jax
from gptface_jax.data import image, image_io, sources
from gptface_jax.pipelines import watermark_detection
from gptface_jax.systems.gptface import decode, predict

KEY = 0x5EC2E7
POOLED = ("clean", "JPEG 75", "crop 10 %")
CELLS = (slice(4, 7), slice(1, 8))  # 21 of the 8 x 8 tokens
TOGETHER = (1, 4, 16, 64)


def jpeg(picture: np.ndarray, quality: int) -> np.ndarray:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return image_io.decode(file.getvalue())


def halved(picture: np.ndarray) -> np.ndarray:
    height, width = picture.shape[:2]
    return image.resize(
        image.resize(picture, (height // 2, width // 2)), (height, width)
    )


def cropped(picture: np.ndarray) -> np.ndarray:
    cut = round(picture.shape[0] / 20)
    return picture[cut:-cut, cut:-cut]


ATTACKS = {
    "clean": lambda picture: picture,
    "JPEG 75": functools.partial(jpeg, quality=75),
    "JPEG 50": functools.partial(jpeg, quality=50),
    "resize 0.5 and back": halved,
    "crop 10 %": cropped,
}


class Bench:
    """The model, and what is asked of it."""

    def __init__(self, name: str, seed: int):
        self.model, self.seed = gptface_jax.load(name), seed
        self.editor = self.model.editor
        self.config = self.editor.gptface.config
        self.grid = self.editor.grid

    def codes(self, pictures: list[np.ndarray]) -> np.ndarray:
        """int [B,h,w] of pictures as a detector sees them."""
        size = self.editor.size
        return np.asarray(
            self.editor.image_ids(np.stack([image.fit(p, size) for p in pictures]))
        )

    def sample(self, count: int, options: dict):
        """(codes [B,h,w], pictures, log-probability of every code [B,n])."""
        layout = self.config.layout
        config = self.model.decode_config({"guidance": "none", "cfg": 1.0, **options})
        tokens = self.editor.tokens(np.zeros((count, *self.grid), int), [""] * count)
        known = np.ones(tokens.shape, bool)
        known[:, layout.image_slice] = False
        module, params = self.editor.module, self.editor.params
        key = jax.random.key(self.seed)
        result = decode.decode(
            module, params, tokens, jnp.asarray(known), config, key,
            codebook=self.editor.codebook,
        )  # fmt: skip
        chosen = result.tokens[:, layout.image_slice]
        ids = np.asarray(self.config.vocab.joint_to_image(chosen))
        ids = ids.reshape(count, *self.grid)
        pictures = image.from_unit_range(self.editor.vqgan.decode(ids))
        return ids, list(pictures), self.log_probs(result, config)

    def log_probs(self, result, config) -> np.ndarray:
        """What the unmarked model gave every code when it was chosen."""
        where, vocab = self.config.layout.image_slice, self.config.vocab
        module, params = self.editor.module, self.editor.params

        @jax.jit
        def scores(tokens):
            def one(row):
                return predict.side_logits(module, {"params": params}, row, config)

            return jax.nn.log_softmax(jax.vmap(one)(tokens)["image"])

        at = result.committed_at
        found = np.zeros(at[:, where].shape)
        for step in range(int(at.max()) + 1):
            masked = jnp.where(at >= step, vocab.mask_id, result.tokens)
            chosen = vocab.joint_to_image(result.tokens[:, where])
            # What is known is below the codes and does not count.
            now = jnp.take_along_axis(
                scores(masked), jnp.maximum(chosen, 0)[..., None], -1
            )[..., 0]
            found = np.where(at[:, where] == step, now, found)
        return found

    def inpaint(self, photos: list[np.ndarray], options: dict) -> list[np.ndarray]:
        """Photographs with the cells drawn anew and pasted."""
        edited = []
        for number, photo in enumerate(photos):
            cell = photo.shape[0] // self.grid[0]
            rows, columns = CELLS
            box = tuple(
                cell * v for v in (columns.start, rows.start, columns.stop, rows.stop)
            )
            edit = self.model.inpaint(
                photo, box=box, seed=self.seed + number, **options
            )
            edited.append(np.asarray(edit.image))
        return edited


def cells(grid, count: int, third: bool) -> np.ndarray:
    """bool [B,h,w]: the inpainted third, or everywhere."""
    opened = np.full((count, *grid), not third)
    opened[(slice(None), *CELLS)] = True
    return opened


def rate(codes, opened, by_left, together=1, groups=None, rng=None, keys=(KEY,)):
    """Share of pictures, or of random groups of them, in which the mark is found."""
    found = []
    for key in keys:
        green = watermark_detection.green_codes(codes, key, by_left)
        if together == 1:
            counts = zip((green & opened).sum((1, 2)), opened.sum((1, 2)))
            found += [_found(int(g), int(n)) for g, n in counts]
            continue
        for _ in range(groups):
            r = rng.choice(len(codes), together, replace=False)
            count = watermark_detection.count(green[r], codes[r], opened[r], by_left)
            found.append(_found(count.green, count.tokens))
    return np.mean(found)


@functools.cache
def _found(green: int, tokens: int) -> bool:
    return watermark_detection.Count(green, tokens).found


def agreement(bench: Bench, photos: list[np.ndarray], count: int) -> None:
    print("\nshare of codes that survive decoding and encoding")
    ids = bench.codes(photos)
    decoded = list(image.from_unit_range(bench.editor.vqgan.decode(ids)))
    drawn, pictures, _ = bench.sample(count, {})
    rows = [["", "photographs' codes", "drawn codes"]]
    for name, attack in ATTACKS.items():
        kept = [
            np.mean(bench.codes([attack(p) for p in shown]) == before)
            for shown, before in ((decoded, ids), (pictures, drawn))
        ]
        rows.append([name, *(f"{share:.3f}" for share in kept)])
    print(aligned(rows))


def detection(bench: Bench, photos, count: int, designs, groups: int) -> None:
    rng = np.random.default_rng(bench.seed)
    together = [n for n in TOGETHER if 1 < n <= count]
    head = ["found", *ATTACKS]
    head += [f"{attack}, {n} together" for attack in POOLED for n in together]
    rows, cost = [head], [["log p of a code", "nats", "green when drawn"]]
    for delta, by_left in designs:
        options = {
            "watermark": delta, "watermark_key": KEY, "watermark_left": by_left
        }  # fmt: skip
        name = f"delta {delta:g}{', left' * by_left}"
        ids, drawn, log_probs = bench.sample(count, options)
        green = watermark_detection.green_codes(ids, KEY, by_left).mean()
        cost.append([name, f"{log_probs.mean():.3f}", f"{green:.3f}"])
        edited = bench.inpaint(photos, options)
        seen = {
            (kind, attack): bench.codes([change(p) for p in shown])
            for kind, shown in (("samples", drawn), ("edits", edited))
            for attack, change in ATTACKS.items()
        }
        for kind, third in (("samples", False), ("edits", True), ("edits", False)):
            opened = cells(bench.grid, count, third)
            place = "a third" if third else "everywhere"
            row = [f"{name}, {kind}, counted {place}"]
            row += [f"{rate(seen[kind, a], opened, by_left):.3f}" for a in ATTACKS]
            row += [
                f"{rate(seen[kind, a], opened, by_left, n, groups, rng):.3f}"
                for a in POOLED
                for n in together
            ]
            rows.append(row)
            print("; ".join(row), flush=True)
        print("; ".join(cost[-1]), flush=True)
    for table in (rows, cost):
        print("\n" + aligned(table), flush=True)


def false_positives(bench: Bench, sets: dict, keys: int, groups: int) -> None:
    rng = np.random.default_rng(bench.seed)
    drawn = [int(key) for key in rng.integers(0, 2**63, keys)]
    rows = [[f"false positives, {keys} keys", *(f"{n} together" for n in TOGETHER)]]
    for name, pictures in sets.items():
        codes = bench.codes(pictures)
        for by_left in (False, True):
            for third in (False, True):
                opened = cells(bench.grid, len(codes), third)
                rates = [
                    rate(codes, opened, by_left, n, groups, rng, drawn)
                    for n in TOGETHER
                ]
                kind = f"{name}, {'left' if by_left else 'position'}"
                kind += ", a third" if third else ", all tokens"
                rows.append([kind, *(f"{r:.5f}" for r in rates)])
    print("\n" + aligned(rows), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", required=True, help="Parquet folder of photographs")
    parser.add_argument("--split", default="test")
    parser.add_argument("--limit", type=int, default=400, help="pictures a condition")
    parser.add_argument("--model", default="demo64")
    parser.add_argument("--deltas", type=float, nargs="+", default=[0, 1, 2, 4])
    parser.add_argument("--left", type=float, nargs="*", default=[2], help="deltas too")
    parser.add_argument("--keys", type=int, default=100, help="for false positives")
    parser.add_argument("--groups", type=int, default=200, help="of pictures together")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    source = sources.open_source(
        {"kind": "parquet", "path": options.images, "split": options.split}
    )
    photos = [image_io.decode(source[i].image) for i in range(len(source))]
    faces = sources.open_source(
        {"kind": "synthetic", "count": len(photos), "seed": options.seed}
    )
    faces = [image_io.decode(faces[i].image) for i in range(len(photos))]
    bench, some = Bench(options.model, options.seed), photos[: options.limit]
    print(f"{len(some)} pictures a condition, model {options.model}")
    agreement(bench, some, options.limit)
    designs = [(delta, False) for delta in options.deltas]
    designs += [(delta, True) for delta in options.left]
    detection(bench, some, options.limit, designs, options.groups)
    unmarked = {"LFW": photos, "drawn faces": faces}
    false_positives(bench, unmarked, options.keys, options.groups // 20)


if __name__ == "__main__":
    main()
