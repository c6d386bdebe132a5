"""Photographs made into what comes off the web, and what the preparation makes of it.

    python benchmarks/web_photos.py pack --images ../shared/data/lfw_attributes \\
        ../shared/data/faces ../shared/data/masks --limit 3000 --out web
    gptface prepare --config configs/data/photographs.py --out sets/photographs
    python benchmarks/web_photos.py score --web web --set sets/photographs
    python benchmarks/web_photos.py hashes --images ../shared/data/lfw_attributes

`pack` writes webdataset tars as img2dataset does, a folder of them for each data set:
half of the texts describe the picture (strong), half are web-like and speak of it every
other time (weak); where nothing is known of a picture its text is a line off the web.
Every 20th picture is damaged (cut off, overwritten, emptied, no picture at all), every
20th is a copy of an earlier one of the same data set: the same bytes, or scaled and
compressed again. Test splits are for judging what was trained on the set. `score` tells
how many of these the set has found, by kind, and what of the rest was rejected. No name
of a person is packed. `hashes` tells in how many bits the hashes of copies and of other
pictures differ; pairs whose thumbnails correlate by more than 0.96 count as copies.
"""

from __future__ import annotations

import argparse
import collections
import io
import json
import pathlib
import tarfile

import numpy as np
from PIL import Image
from tables import aligned

from gptface_jax.data import captions, image_io, sources
from gptface_jax.data.prepare import duplicates, finish, quality
from gptface_jax.data.record import Record

DAMAGES = ("cut off", "overwritten", "emptied", "another file")
COPIES = ("the same bytes", "half as large", "compressed again", "darker")
PER_TAR = 500
CLASSES = {"masks": {"Wearing_Mask": "label=mask"}}  # labels by a column of classes


def photographs(
    folders: list[str], splits: list[str], limit: int
) -> dict[str, list[Record]]:
    """Name of each folder -> its records, as many as its share of `limit`."""
    parts: dict[str, list] = {}
    for folder in map(pathlib.Path, folders):
        spec = {"kind": "parquet", "path": folder, "classes": CLASSES.get(folder.name)}
        parts[folder.name] = [
            sources.open_source(spec | {"split": split}) for split in splits
        ]
    total = sum(len(part) for found in parts.values() for part in found)
    share = min(1.0, limit / total)
    return {
        name: [
            part[int(i)]
            for part in found
            for i in np.linspace(0, len(part) - 1, round(share * len(part))).astype(int)
        ]
        for name, found in parts.items()
    }


def damaged(data: bytes, kind: str, rng: np.random.Generator) -> bytes:
    if kind == "cut off":
        return data[: int(rng.integers(20, len(data) // 2))]
    if kind == "overwritten":
        hurt = bytearray(data)
        hurt[2:200] = rng.bytes(198)
        return bytes(hurt)
    return b"" if kind == "emptied" else b"<html>404 Not Found</html>"


def copied(data: bytes, kind: str) -> bytes:
    if kind == "the same bytes":
        return data
    image = Image.open(io.BytesIO(data)).convert("RGB")
    quality = 90
    if kind == "half as large":
        image = image.reduce(2)
    elif kind == "compressed again":
        quality = 50
    else:
        image = image.point(lambda value: value * 0.8 + 8)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return buffer.getvalue()


def samples(records: list[Record], rng: np.random.Generator, first: int):
    """(key, kind, what it is a copy of or "", file, columns) of each sample."""
    good: list[tuple[str, bytes]] = []
    order = rng.permutation(len(records))
    for number, index in enumerate(order):
        record = records[index]
        key, kind, of, data = f"{first + number:09d}", "good", "", record.image
        if number % 20 == 7:
            kind = DAMAGES[number // 20 % len(DAMAGES)]
            data = damaged(data, kind, rng)
        elif number % 20 == 17:
            kind = COPIES[number // 20 % len(COPIES)]
            of, original = good[int(rng.integers(len(good)))]
            data = copied(original, kind)
        else:
            good.append((key, data))
        strong = bool(rng.random() < 0.5)
        text = captions.caption(
            record.labels,
            rng,
            expression=record.expression,
            style="strong" if strong else "weak",
            rho=1.0 if strong else 0.5,
        ) or captions.unrelated(rng)
        columns = dict(record.labels or {}) if kind == "good" else {}
        if record.expression and kind == "good":
            columns["expression"] = record.expression
        columns |= {"caption": text, "url": f"https://photos.example/{key}.jpg"}
        yield key, kind, of, data, columns


def pack(options: argparse.Namespace) -> None:
    out = pathlib.Path(options.out)
    rng = np.random.default_rng(options.seed)
    truth: dict[str, dict] = {}
    found = photographs(options.images, options.splits, options.limit)
    for name, records in found.items():
        (out / name).mkdir(parents=True)
        packed = list(samples(records, rng, len(truth)))
        for number in range(0, len(packed), PER_TAR):
            with tarfile.open(out / name / f"{number // PER_TAR:05d}.tar", "w") as tar:
                for key, kind, of, data, columns in packed[number : number + PER_TAR]:
                    about = json.dumps(columns).encode()
                    for ending, content in (("jpg", data), ("json", about)):
                        member = tarfile.TarInfo(f"{key}.{ending}")
                        member.size = len(content)
                        tar.addfile(member, io.BytesIO(content))
                    truth[key] = {"kind": kind, "of": of}
    (out / "truth.json").write_text(json.dumps(truth))
    counts = collections.Counter(entry["kind"] for entry in truth.values())
    print(aligned([[kind, str(n)] for kind, n in counts.items()]))


def score(options: argparse.Namespace) -> None:
    truth = json.loads((pathlib.Path(options.web) / "truth.json").read_text())
    manifest = finish.read(options.set)
    kept = set()
    for split in manifest["splits"]:
        folder = pathlib.Path(options.set) / split
        records = sources.open_source({"kind": "arrayrecord", "path": folder})
        kept |= {str(records[i].source).rsplit("/", 1)[-1] for i in range(len(records))}
    rows = [["kind", "packed", "in the set"]]
    for kind in ("good", *DAMAGES, *COPIES):
        keys = [key for key, entry in truth.items() if entry["kind"] == kind]
        rows.append([kind, str(len(keys)), str(sum(key in kept for key in keys))])
    # A copy whose original was rejected for another reason rightly stays.
    alone = sum(
        key in kept and entry["of"] not in kept
        for key, entry in truth.items()
        if entry["of"]
    )
    print(aligned(rows))
    print(f"copies in the set whose original is not: {alone}")
    print(json.dumps(manifest["counts"]), json.dumps(manifest["rejected"], indent=1))


def hashes(options: argparse.Namespace) -> None:
    """Prints the shares of copies, and the pairs of others, within so many bits."""
    bits = (0, 2, 4, 6)
    found = photographs(options.images, ["train"], options.limit)
    pictures = [
        image_io.decode(record.image)
        for records in found.values()
        for record in records
    ]

    def hashed(picture: np.ndarray) -> int:
        box = np.array([0, 0, *picture.shape[1::-1]])
        return duplicates.perceptual_hash(quality.grey_square(picture, box, 32))

    own = np.array([hashed(picture) for picture in pictures], np.uint64)
    rows = [["copies within", *(f"{b} bits" for b in bits)]]
    for name, change in CHANGES.items():
        apart = np.array([
            (hashed(change(Image.fromarray(picture))) ^ int(number)).bit_count()
            for picture, number in zip(pictures[:400], own)
        ])  # fmt: skip
        rows.append([name, *(f"{(apart <= b).mean():.3f}" for b in bits)])
    small = [
        np.asarray(Image.fromarray(p).convert("L").resize((32, 32)), float).ravel()
        for p in pictures
    ]
    alike, others = collections.Counter(), collections.Counter()
    for start in range(0, len(own), 500):
        apart = np.bitwise_count(own[start : start + 500, None] ^ own[None])
        for a, b in zip(*np.nonzero(apart <= bits[-1])):
            if b > a + start:
                same = np.corrcoef(small[a + start], small[b])[0, 1] > 0.96
                (alike if same else others)[int(apart[a, b])] += 1
    rows.append(["pairs that are copies", *(str(alike[b]) for b in bits)])
    rows.append(["pairs that are none", *(str(others[b]) for b in bits)])
    print(aligned(rows))
    count = len(own)
    print(f"{count} pictures, {count * (count - 1) // 2:,} pairs, at just so many bits")


def _compressed(image: Image.Image, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))


CHANGES = {
    "JPEG, quality 60": lambda image: _compressed(image, 60),
    "half as large": lambda image: np.asarray(image.reduce(2)),
    "darker by a fifth": lambda image: np.asarray(image.point(lambda v: v * 0.8 + 10)),
    "0.56 as large, JPEG 30": lambda image: _compressed(image.resize((72, 72)), 30),
    "cropped by 2 % a side": lambda image: np.asarray(
        image.crop((3, 3, image.width - 3, image.height - 3))
    ),
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    what = parser.add_subparsers(dest="what", required=True)
    first = what.add_parser("pack")
    first.add_argument("--images", nargs="+", required=True, help="Parquet folders")
    first.add_argument("--splits", nargs="+", default=["train"])
    first.add_argument("--limit", type=int, default=3000)
    first.add_argument("--seed", type=int, default=0)
    first.add_argument("--out", required=True)
    second = what.add_parser("score")
    second.add_argument("--web", required=True)
    second.add_argument("--set", required=True)
    third = what.add_parser("hashes")
    third.add_argument("--images", nargs="+", required=True, help="Parquet folders")
    third.add_argument("--limit", type=int, default=10**9)
    options = parser.parse_args()
    {"pack": pack, "score": score, "hashes": hashes}[options.what](options)


if __name__ == "__main__":
    main()
