"""A decoder that sees the photograph against the plain one, on the same codes.

    python benchmarks/conditional.py --images synthetic --seed 5 \\
        --tokenizer runs/conditional64 --judge runs/judge_happiness
    python benchmarks/conditional.py --images ../shared/data/lfw_attributes \\
        --split test --tokenizer runs/conditional64 --judge runs/judge_happiness

Each photograph is edited twice an attribute, as by `gptface evaluate edits`, and two
regions of it are filled without a text. The model draws the codes once; both decoders
paint them, and the results are pasted with and without the shift of colours at the
border (`borders`, levels). A line a way:

inside: PSNR inside the mask of edits, dB, to the drawn face as it ought to look
filled: PSNR inside the mask of what is filled, dB, to the photograph
Frechet: distance of edits to the untouched photographs, EfficientNet-lite0's features
asked, opposite: share of the edits that show a smile, asked for and ruled out
AUC: of a small network that is told whether what lies within 5 px of the mask's border
    is an edit or the untouched photograph; trained on the edits of one half of the
    photographs that the named way made, and tested on the other half; .5 is chance
"""

from __future__ import annotations

import argparse
import itertools

import jax
import numpy as np
import tables

import gptface_jax
from gptface_jax.cli import _source
from gptface_jax.data import image as images
from gptface_jax.data import regions
from gptface_jax.evaluate import distributions, edits
from gptface_jax.experiments import opening
from gptface_jax.ops import pictures
from gptface_jax.pipelines.compositing import BORDERS, Blend
from gptface_jax.pipelines.image_tokenizer import ImageTokenizer
from gptface_jax.protocols import editors, feature_space, seams
from gptface_jax.protocols.edits import counterfactuals
from gptface_jax.protocols.judge import Judge
from gptface_jax.protocols.records import open_records, pictures_of

ATTRIBUTES = ("Smiling", "Eyeglasses")
FILLED = ("mouth", "lower-face")


class Recorded:
    """A tokenizer that remembers the codes which it decoded last."""

    def __init__(self, tokenizer):
        self.tokenizer = tokenizer

    def __getattr__(self, name):
        return getattr(self.tokenizer, name)

    def decode(self, image_ids, size=None, known=None):
        self.ids = image_ids
        return self.tokenizer.decode(image_ids, size, known)


def drawn(model, photos, task, seed):
    """(codes int [B,h,w] of the edits, which of them are drawn bool [B,h,w])."""
    editor, config, size = model.editor, model.decode_config({}), 32
    key, found = jax.random.fold_in(jax.random.key(seed), task.stream), []
    for start in range(0, len(photos), size):
        numbers = np.arange(start, start + size) % len(photos)
        texts = [task.texts[i] for i in numbers]
        keys = jax.vmap(lambda i: jax.random.fold_in(key, i))(numbers)
        batch = editor.edit(photos[numbers], task.regions[numbers], texts, config, keys)
        count = min(size, len(photos) - start)
        found.append((editor.vqgan.ids[:count], batch.open_tokens[:count]))
    return [np.concatenate(x) for x in zip(*found)]


def show(figures) -> None:
    """Prints the figures {(decoder, borders): {name: value}}."""
    names = list(next(iter(figures.values())))
    rows = [["decoder", "borders", *names]]
    for (decoder, borders), values in figures.items():
        cells = [f"{np.mean(values[name]):.3f}" for name in names]
        rows.append([decoder, str(borders), *cells])
    print(tables.aligned(rows), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    _source.add_arguments(parser)
    parser.add_argument("--model", default="demo64")
    parser.add_argument("--tokenizer", required=True, help="run of a :conditional")
    parser.add_argument("--judge", help="of smiles")
    options = parser.parse_args()
    spec = _source.spec(options)
    model = gptface_jax.load(options.model)
    model.editor.vqgan = Recorded(model.editor.vqgan)
    records = open_records(spec, options.limit or 256)
    photos = pictures_of(records, model.editor.size)
    asked = editors.tasks(records, ATTRIBUTES, model.editor.size, options.seed)
    filled = [
        editors.Task(name, True, np.repeat(
            regions.region_mask(name, photos.shape[1])[None], len(photos), 0
        ), [""] * len(photos), 100 + i)
        for i, name in enumerate(FILLED)
    ]  # fmt: skip
    truth = counterfactuals(spec) if options.images == "synthetic" else None
    judge = (
        Judge(opening.open_network(options.judge, "judge")) if options.judge else None
    )
    embedded = feature_space.efficientnet().of_photos
    codes = []
    for task in (*asked, *filled):
        codes.append(drawn(model, photos, task, options.seed))
        print("drawn:", task.attribute, "" if task.present else "ruled out", flush=True)
    network = opening.open_network(options.tokenizer, "vqgan", None)
    decoders = {
        "plain": model.editor.vqgan,
        "sees the photo": ImageTokenizer(network),
    }
    ways = list(itertools.product(decoders, (BORDERS, 0)))
    figures = {way: {} for way in ways}
    edited, untouched = {way: [] for way in ways}, []
    seen = {way: [] for way in ways}
    for task, (ids, open_tokens) in zip((*asked, *filled), codes):
        masks = task.regions
        known = pictures.known_pixels(images.to_unit_range(photos), masks)
        decoded = {
            "plain": decoders["plain"].decode(ids),
            "sees the photo": decoders["sees the photo"].decode(
                ids, known=np.asarray(known)
            ),
        }
        decoded = {k: images.from_unit_range(v) for k, v in decoded.items()}
        wanted = photos if task.texts[0] == "" else None
        if wanted is None and truth:
            wanted = np.stack([
                images.fit(truth(i, task.attribute, task.present), photos.shape[1])
                for i in range(len(photos))
            ])  # fmt: skip
        untouched.append(seams.bordered(photos, masks))
        for decoder, borders in ways:
            blend, way = Blend(borders=borders), (decoder, borders)
            result = np.stack([
                editors.pasted(*each, blend)
                for each in zip(photos, decoded[decoder], open_tokens, masks)
            ])  # fmt: skip
            edited[way].append(seams.bordered(result, masks))
            kind = "filled" if task in filled else "inside"
            if wanted is not None:
                psnr = edits.outside_psnr(result, wanted, ~masks)
                figures[way].setdefault(kind, []).append(np.minimum(psnr, 60))
            if task in asked:
                seen[way].append(embedded(result))
            if judge and task.attribute == "Smiling":
                sized = np.stack([images.resize(x, (judge.size,) * 2) for x in result])
                smiles = judge(sized)[:, judge.attributes.index("Smiling")]
                figures[way]["asked" if task.present else "opposite"] = smiles.mean()
        print("judged:", task.attribute, flush=True)
    originals = embedded(photos)
    for way in ways:
        figures[way]["Frechet"] = distributions.frechet_distance(
            np.concatenate(seen[way]), originals
        )
    show(figures)
    # Learnt on the edits of one half of the photographs, tested on the other half.
    half = len(photos) // 2

    def halves(parts):
        return [seams.joined([x[rows] for x in parts]) for rows in (
            slice(half), slice(half, None)
        )]  # fmt: skip

    made, clean = {w: halves(edited[w]) for w in ways}, halves(untouched)
    for way in (ways[0], ways[-1]):
        score = seams.detector(made[way][0], clean[0], options.seed)
        negative, name = score(clean[1]), f"AUC, {way[0]}, {way[1]}"
        for other in ways:
            figures[other][name] = edits.area_under_curve(
                score(made[other][1]), negative
            )
    show(figures)


if __name__ == "__main__":
    main()
