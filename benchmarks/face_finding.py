"""How well and how fast faces are found.

    python benchmarks/face_finding.py found false_alarms points turned small
    taskset -c 0 python benchmarks/face_finding.py time

found: shares of pictures of each set with a face, at the first threshold and counting
the second. false_alarms: windows without a face, cut from the backgrounds of portraits;
false_alarms.png here shows the wrong ones.
points: eyes, nose and mouth corners against the labels of
`landmarks` test, whose own error is in it. turned: portraits about their middle, and
small: pasted into larger canvases; right where both eyes are found within a quarter of
their distance. time: milliseconds after loading and decoding.
"""

from __future__ import annotations

import argparse
import json
import time

import numpy as np
import tables
import tqdm
from PIL import Image

from gptface_jax.core import files
from gptface_jax.data import image, image_io, sources, synthetic
from gptface_jax.data.geometry import Similarity
from gptface_jax.pipelines import faces

SETS = ("portraits", "lfw_attributes", "faces", "masks", "drawn")
_TOGETHER = 32


def pictures(data: str, name: str, split: str = "test") -> list:
    """Records with `image` uint8 [H,W,3] of one of SETS."""
    if name == "drawn":
        drawn = synthetic.SyntheticFaces(size=128, count=500, seed=77)
        return [drawn[i] for i in range(len(drawn))]
    return list(sources.Parquet(f"{data}/{name}", split=split))


def find(images: list[np.ndarray], what: str, **options) -> list[list[faces.Face]]:
    """The faces of many pictures."""
    found, bar = [], tqdm.tqdm(total=len(images), desc=what, unit="image")
    with bar:
        for start in range(0, len(images), _TOGETHER):
            part = images[start : start + _TOGETHER]
            found += faces.find_all(part, **options)
            bar.update(len(part))
    return found


def found(data: str, limit: int | None) -> list[list[str]]:
    """Shares of pictures with a face, a row a set."""
    rows = [["found", "pictures", "score .6", "and .3", "several"]]
    for name in SETS:
        records = pictures(data, name)[:limit]
        parts = {name: records}
        if name == "masks":
            table = sources.Parquet(
                f"{data}/masks", split="test", classes={"mask": "label=mask"}
            )
            worn = [table[i].labels["mask"] > 0.5 for i in range(len(records))]
            parts = {
                "masks, no mask": [r for r, w in zip(records, worn) if not w],
                "masks, mask": [r for r, w in zip(records, worn) if w],
            }
        for label, part in parts.items():
            every = find([image_io.decode(r.image) for r in part], label)
            first = np.mean([any(f.score >= 0.6 for f in e) for e in every])
            second = np.mean([bool(e) for e in every])
            several = np.mean([len(e) > 1 for e in every])
            figures = f"{first:.4f}", f"{second:.4f}", f"{several:.4f}"
            rows.append([label, str(len(part)), *figures])
    return rows


def windows(data: str, count: int) -> list[tuple[int, np.ndarray]]:
    """Squares of portraits that no head touches, up to 40 each: (portrait, pixels)."""
    rng, cut = np.random.default_rng(0), []
    for number, record in enumerate(pictures(data, "portraits")):
        photo = image_io.decode(record.image)
        heads = [_head(face) for face in faces.find(photo)]
        height, width = photo.shape[:2]
        kept = 0
        for _ in range(1600):
            side = int(rng.integers(width // 6, width // 2))
            x, y = rng.integers(0, (width - side + 1, height - side + 1))
            clear = all(
                x >= x1 or x + side <= x0 or y >= y1 or y + side <= y0
                for x0, y0, x1, y1 in heads
            )
            if clear and kept < 40:
                window = photo[y : y + side, x : x + side]
                cut.append((number, np.ascontiguousarray(window)))
                kept += 1
    order = rng.permutation(len(cut))[:count]
    return [cut[i] for i in order]


def _head(face: faces.Face) -> tuple[float, ...]:
    """The face with hair and chin: (x0, y0, x1, y1)."""
    x0, y0, x1, y1 = face.box
    width, height = x1 - x0, y1 - y0
    return (
        x0 - 0.25 * width,
        y0 - 0.5 * height,
        x1 + 0.25 * width,
        y1 + 0.15 * height,
    )


def false_alarms(data: str, limit: int | None) -> list[list[str]]:
    """Shares of windows without a face in which one is found.

    What the mesh must say was chosen on windows of every other portrait.
    """
    numbers, cut = zip(*windows(data, limit or 2000))
    every = find(list(cut), "windows")
    first = np.array([any(f.score >= 0.6 for f in e) for e in every])
    second = np.array([bool(e) for e in every])
    wrong = [c for c, e in zip(cut, every) if e]
    if wrong:
        from gptface_jax.pipelines import pictures as sheets

        sheet = sheets.sheet(wrong[:60], 10, cell=96)
        Image.fromarray(sheet).save("false_alarms.png")
    odd = np.array(numbers) % 2 == 1
    rows = [["false alarms", "windows", "score .6", "and .3"]]
    for name, part in (("all", odd | ~odd), ("chosen on", ~odd), ("others", odd)):
        figures = (f"{x[part].mean():.4f}" for x in (first, second))
        rows.append([name, str(part.sum()), *figures])
    return rows


def points(data: str, limit: int | None) -> list[list[str]]:
    """Median errors as shares of the distance between the eyes."""
    records = pictures(data, "landmarks")[:limit]
    every = find([image_io.decode(r.image) for r in records], "points")
    truth = np.stack([r.landmarks for r in records]) + 0.5  # from the pixel's corner
    outer = np.hypot(*(truth[:, 36] - truth[:, 45]).T)
    middles = np.hypot(
        *(truth[:, 36:42].mean(1) - truth[:, 42:48].mean(1)).T
    )  # fmt: skip
    none = np.full((68, 2), np.nan)
    said = np.stack([faces.largest(e).landmarks if e else none for e in every])
    error = np.hypot(*np.moveaxis(said - truth, -1, 0))
    five = np.hypot(
        *np.moveaxis(faces.five_points(said) - faces.five_points(truth), -1, 0)
    )
    parts = {
        "eyes (centres)": five[:, :2],
        "nose tip": five[:, 2:3],
        "mouth corners": five[:, 3:],
        "these five": five,
        "brows": error[:, 17:27],
        "all 68": error,
    }
    rows = [["points", "of outer eye corners", "of eye centres"]]
    for name, values in parts.items():
        of = [np.nanmedian(values.mean(1) / unit) for unit in (outer, middles)]
        rows.append([name, *(f"{x:.4f}" for x in of)])
    return rows


def _right(found: list[faces.Face], eyes: np.ndarray) -> bool:
    """Whether one of them has its eyes where they are."""
    near = np.hypot(*(eyes[0] - eyes[1])) / 4
    return any(np.hypot(*(f.five[:2] - eyes).T).max() < near for f in found)


def turned(data: str, limit: int | None) -> list[list[str]]:
    """Shares of portraits whose eyes are found, by the angle."""
    photos = [image_io.decode(r.image) for r in pictures(data, "portraits")[:limit]]
    eyes = [faces.largest(f).five[:2] for f in find(photos, "upright")]
    rows = [["turned by", "found"]]
    for degrees in (-180, -120, -90, -60, -45, -30, -15, 15, 30, 45, 60, 90, 120):
        angle = np.radians(degrees)
        way = Similarity(np.cos(angle), np.sin(angle))
        shots, places = [], []
        for photo, at in zip(photos, eyes):
            middle = np.array(photo.shape[1::-1]) / 2
            dx, dy = middle - way.points(middle)
            move = Similarity(way.a, way.b, dx, dy)
            shots.append(move.image(photo, photo.shape[:2]))
            places.append(move.points(at))
        good = [_right(f, p) for f, p in zip(find(shots, f"{degrees}"), places)]
        rows.append([f"{degrees} degrees", f"{np.mean(good):.4f}"])
    return rows


def small(data: str, limit: int | None) -> list[list[str]]:
    """Shares of portraits whose eyes are found, by the size of the face."""
    photos = [image_io.decode(r.image) for r in pictures(data, "portraits")[:limit]]
    every = [faces.largest(f) for f in find(photos, "upright")]
    rng, rows = np.random.default_rng(1), [["face of the longer side", "found"]]
    for share in (8, 15, 20, 25, 30, 35):
        shots, places = [], []
        for photo, face in zip(photos, every):
            extent = max(face.box[2] - face.box[0], face.box[3] - face.box[1])
            side = 1280
            scale = side / share / extent
            shape = round(scale * len(photo))
            shrunk = image.resize(photo, (shape, shape))
            canvas = np.empty((960, side, 3), np.uint8)
            canvas[:] = photo.mean((0, 1)).astype(np.uint8)
            x, y = (int(rng.integers(0, max(1, n - shape))) for n in (side, 960))
            part = shrunk[: 960 - y, : side - x]
            canvas[y : y + len(part), x : x + part.shape[1]] = part
            shots.append(canvas)
            places.append(face.five[:2] * scale + [x, y])
        good = [_right(f, p) for f, p in zip(find(shots, f"1/{share}"), places)]
        rows.append([f"1/{share}", f"{np.mean(good):.4f}"])
    return rows


def timed(data: str, limit: int | None) -> list[list[str]]:
    """Median milliseconds of ten calls; pictures in memory, networks compiled."""
    photo = image_io.decode(pictures(data, "portraits")[0].image)
    rows = [["milliseconds", "a face", "no face"]]
    for name, size in (("512 x 512", (512, 512)), ("4,000 x 3,000", (3000, 4000))):
        large = np.zeros((*size, 3), np.uint8)
        height = size[0]
        large[:, :height] = image.resize(photo, (height, height))
        # Noise of every size: what has no face, but something everywhere.
        rng = np.random.default_rng(0)
        grain = rng.integers(0, 256, (size[0] // 8, size[1] // 8, 3), np.uint8)
        figures = []
        for shot in (large, image.resize(grain, size)):
            faces.find(shot)
            times = []
            for _ in range(limit or 10):
                start = time.perf_counter()
                faces.find(shot)
                times.append(1e3 * (time.perf_counter() - start))
            figures.append(np.median(times))
        rows.append([name, *(f"{x:.0f}" for x in figures)])
    return rows


PARTS = {
    "found": found,
    "false_alarms": false_alarms,
    "points": points,
    "turned": turned,
    "small": small,
    "time": timed,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="+", choices=tuple(PARTS), metavar="PART")
    parser.add_argument("--data", default="../shared/data", help="folder of the sets")
    parser.add_argument("--limit", type=int, help="use the first so many pictures")
    parser.add_argument("--out", help="the figures as JSON")
    options = parser.parse_args()
    figures = {}
    for part in options.parts:
        figures[part] = PARTS[part](options.data, options.limit)
        print(tables.aligned(figures[part]), flush=True)
        if options.out:
            files.write_text(options.out, json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
