"""The same edit of photographs as they are and turned, shifted, shrunk (G17).

    gptface train --config configs/judge/faces64.py:happiness \\
        --workdir runs/judge_happiness
    python benchmarks/unaligned.py --judge runs/judge_happiness \\
        --images ../shared/data/portraits --sheet portraits.png
    python benchmarks/unaligned.py --judge runs/judge_happiness \\
        --images ../shared/data/lfw_attributes --limit 64

`gptface edit --region mouth` with the sentence that asks for a smile and with its
opposite, nothing else said: the face is found, or (align=False) the middle square is
taken for one. Pictures are moved about their middle on a canvas of their own size. The
judge sees each result in grey, with the face where its own pictures (--like) show it:
that place is found in the picture before anything is done to it, never in the result.
Shares of edits in which the judge sees a smile, the gap between them with the 95 %
interval of a bootstrap over the pictures, and p of asked against opposite; `kept` is
the gap as a share of the gap of the first move (goal .9), by the same bootstrap.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
import tables
import tqdm
from photos import picture

import gptface_jax
from gptface_jax.core import files
from gptface_jax.core.errors import UserError
from gptface_jax.data import captions, image_io, sources
from gptface_jax.data.geometry import Similarity
from gptface_jax.evaluate import edits
from gptface_jax.experiments import opening
from gptface_jax.pipelines import faces, pictures, upright
from gptface_jax.pipelines.framing import View
from gptface_jax.protocols.judge import Judge

# Name -> (degrees clockwise, shift right and down as shares of the side, scale).
MOVES = {
    "as it is": (0, 0, 0, 1.0),
    "turned 10 degrees": (10, 0, 0, 1.0),
    "turned 25 degrees": (25, 0, 0, 1.0),
    "turned 45 degrees": (-45, 0, 0, 1.0),
    "shifted 8 % and 6 %": (0, 0.08, 0.06, 1.0),
    "four fifths the size": (0, 0, 0, 0.8),
    "two fifths the size": (0, 0, 0, 0.4),
    "12 degrees, shifted, 85 %": (12, 0.06, -0.05, 0.85),
}
ARMS = {"face found": True, "middle square": False}


def way_of(move: tuple[float, ...], size: tuple[int, int]) -> Similarity:
    """The move of a picture (H, W) about its middle."""
    degrees, right, down, scale = move
    angle = np.radians(degrees)
    turn = Similarity(scale * np.cos(angle), scale * np.sin(angle))
    middle = np.array(size[::-1]) / 2
    target = middle + max(size) * np.array([right, down])
    return Similarity(turn.a, turn.b, *(target - turn.points(middle)))


def interval(
    verdicts: dict[bool, np.ndarray], first: dict[bool, np.ndarray]
) -> tuple[str, str]:
    """The gap's 95 % interval, and what it keeps of the first one with its interval.

    Args:
      verdicts, first: present -> bool [N], the judge's of the same pictures.
    """
    count = len(verdicts[True])
    drawn = np.random.default_rng(0).integers(0, count, (4000, count))
    drawn = np.concatenate([np.arange(count)[None], drawn])  # first the pictures
    gaps, firsts = (
        (v[True][drawn].astype(float) - v[False][drawn]).mean(1)
        for v in (verdicts, first)
    )
    low, high = np.quantile(gaps[1:], (0.025, 0.975))
    gap = f"{low:.2f} to {high:.2f}"
    if firsts.min() <= 0:
        return gap, "-"
    kept = gaps / firsts
    low, high = np.quantile(kept[1:], (0.025, 0.975))
    return gap, f"{kept[0]:.2f} ({low:.2f} to {high:.2f})"


def grey(picture: np.ndarray) -> np.ndarray:
    """Luma in all three channels."""
    luma = picture.astype(np.float32) @ np.float32([0.299, 0.587, 0.114])
    return np.repeat(np.round(luma).astype(np.uint8)[..., None], 3, 2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="demo64")
    parser.add_argument("--tokenizer", help="VQGAN run, where --model is a run")
    parser.add_argument("--judge", required=True)
    parser.add_argument("--images", required=True, help="Parquet folder, split test")
    parser.add_argument("--like", default="../shared/data/faces")
    parser.add_argument("--limit", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0, help="of the first edit")
    parser.add_argument("--moves", nargs="+", choices=tuple(MOVES), default=list(MOVES))
    parser.add_argument("--arms", nargs="+", choices=tuple(ARMS), default=list(ARMS))
    parser.add_argument("--sheet", type=picture, help="edits of the first move, shown")
    parser.add_argument("--out", help="the figures as JSON")
    options = parser.parse_args()
    model = gptface_jax.load(options.model, tokenizer=options.tokenizer)
    judge = Judge(opening.open_network(options.judge, "judge"))
    like = sources.Parquet(options.like, split="validation")
    known = [like[i] for i in range(min(256, len(like)))]
    frame = np.array(upright.measure_frame(known)["frame"])
    male = {"Male": "sex=male"} if "portraits" in options.images else None
    records = sources.Parquet(options.images, split="test", classes=male)
    photos, places, texts = [], [], []
    for record in (records[i] for i in range(min(options.limit, len(records)))):
        photo = image_io.decode(record.image)
        face = faces.largest(faces.find(photo))
        if face is None:
            continue
        view = View.upright(face.five, frame, photo.shape[:2])
        photos.append(photo)
        places.append(view.way.scaled(judge.size / view.side))
        told = captions.edit_text, "Smiling", record.labels
        texts.append({p: told[0](told[1], p, told[2]) for p in (True, False)})

    def judged(shots, moves):
        small = [
            grey(move.inverse.then(place).image(shot, (judge.size,) * 2))
            for shot, move, place in zip(shots, moves, places)
        ]
        return judge(np.stack(small))[:, judge.attributes.index("Smiling")]

    still = [Similarity()] * len(photos)
    print(f"{len(photos)} pictures, smiling before: {judged(photos, still).mean():.3f}")
    rows, shown = [["", "", "asked", "opposite", "gap", "interval", "kept", "p"]], []
    first: dict[str, dict[bool, np.ndarray]] = {}
    for name in options.moves:
        moves = [way_of(MOVES[name], photo.shape[:2]) for photo in photos]
        moved = [
            photo if name == "as it is" else move.image(photo, photo.shape[:2])
            for photo, move in zip(photos, moves)
        ]
        for arm in options.arms:
            verdicts = {}
            for present in (True, False):
                bar = tqdm.tqdm(moved, desc=f"{name}, {arm}", unit="edit")
                results, failed = [], 0
                for i, photo in enumerate(bar):
                    try:
                        edit = model.edit(
                            photo, texts[i][present], region="mouth", align=ARMS[arm],
                            seed=options.seed + i,
                        )  # fmt: skip
                        results.append(np.asarray(edit.image))
                    except UserError:  # no face was found
                        results.append(photo)
                        failed += 1
                verdicts[present] = judged(results, moves)
                if name == options.moves[0]:
                    shown.append(results)
                if failed:
                    print(f"{failed} without a face: {name}")
            first.setdefault(arm, verdicts)
            rates = edits.rates(verdicts[True], verdicts[False], verdicts[True])
            figures = (f"{x:.3f}" for x in (rates.asked, rates.opposite, rates.gap))
            range_and_kept = interval(verdicts, first[arm])
            rows.append([name, arm, *figures, *range_and_kept, f"{rates.p_value:.0e}"])
            print("  ".join(rows[-1]), flush=True)
            if options.out:
                files.write_text(options.out, json.dumps(rows, indent=1) + "\n")
    print(tables.aligned(rows))
    if options.sheet:
        columns = [photos, *shown]
        said = [
            "before",
            *(f"{a}: {w}" for a in options.arms for w in ("smile", "opposite")),
        ]
        cells = [column[i] for i in range(len(photos)) for column in columns]
        sheet = pictures.sheet(cells, len(columns), said * len(photos), cell=160)
        pictures.save(sheet, options.sheet)


if __name__ == "__main__":
    main()
