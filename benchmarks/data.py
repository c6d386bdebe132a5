"""How fast are pictures prepared and read: records a second on one core, by stage.

    python benchmarks/data.py
    python benchmarks/data.py --images ../shared/data/lfw_attributes   # photographs
    python benchmarks/data.py --memory                                 # peak of memory
    python benchmarks/data.py --neighbours --images FOLDER --limit 6000

Every stage is timed by itself in CPU seconds of this process, so that other work on the
machine does not count; the training reader with worker processes by the wall clock.
--memory reads ten thousand pictures under ten thousand and under a million numbers, and
looks for copies among as many rows, each in a process of its own. --neighbours tells
with how many others a picture's hash has to be compared, --blur what a least sharpness
rejects.
"""

from __future__ import annotations

import argparse
import io
import json
import multiprocessing
import pathlib
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from PIL import Image
from tables import aligned

from gptface_jax.data import (
    geometry,
    image,
    image_io,
    pipeline,
    record,
    shard_format,
    shards,
    sources,
    transforms,
)
from gptface_jax.data.prepare import duplicates, quality, settings, stages, tars, texts
from gptface_jax.data.text import TextTokenizer

GOALS = {"decode and crop": 1500, "training reader": 20_000}


def rate(function: Callable[[], Any], count: int, clock=time.process_time) -> float:
    """Records a second of a function that handles so many; the best of three."""
    function()
    best = np.inf
    for _ in range(3):
        start = clock()
        function()
        best = min(best, clock() - start)
    return count / best


def files_of(options: argparse.Namespace) -> tuple[list[bytes], list[str]]:
    """JPEG files, and texts."""
    if options.images:
        spec = {"kind": "parquet", "path": options.images, "split": options.split}
    else:
        spec = {"kind": "synthetic", "count": options.limit, "size": 128}
    source = sources.open_source({**spec, "limit": options.limit})
    rng = np.random.default_rng(0)
    caption = transforms.CaptionOptions()
    found = []
    for index in range(len(source)):
        item = source[index]
        data = item.image
        if not isinstance(data, bytes):
            buffer = io.BytesIO()
            Image.fromarray(data).save(buffer, "JPEG", quality=90)
            data = buffer.getvalue()
        # Portraits have no labels that words could say.
        found.append((data, caption.text(item, rng) or "a painting of a face"))
    return [data for data, _ in found], [text for _, text in found]


def tar_of(path: pathlib.Path, files: Sequence[bytes], captions: Sequence[str]) -> None:
    with tarfile.open(path, "w") as tar:
        for number, (data, text) in enumerate(zip(files, captions)):
            width, height = Image.open(io.BytesIO(data)).size
            face = [width / 4, height / 4, 3 * width / 4, 3 * height / 4]
            url = f"http://a.org/{number}"
            about = {"caption": text, "url": url, "boxes": [face]}
            parts = {"jpg": data, "json": json.dumps(about).encode()}
            for ending, content in parts.items():
                member = tarfile.TarInfo(f"{number:09d}.{ending}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))


def preparation(
    files, captions, folder: pathlib.Path, size: int
) -> list[tuple[str, float]]:
    """Rates of the stages of `gptface prepare --config`."""
    count = len(files)
    tar = folder / "00000.tar"
    tar_of(tar, files, captions)
    config = settings.read({
        "sources": ({"kind": "webdataset", "path": str(tar)},),
        "crop": {"size": size, "context": 2.0},
        "texts": {"language": "en"},
    })  # fmt: skip
    chain = stages.Stages(config, texts.texts(config.texts))
    read = list(tars.samples(tar, config))
    decoded = [chain.decoded(chain.asked(item)) for item in read]
    pixels = [item.record.image for item in decoded]
    # A crop that is made smaller, as of most pictures off the web.
    twice = folder / "twice.tar"
    tar_of(twice, [_resized(p, 2 * size) for p in pixels], captions)
    larger = list(tars.samples(twice, config))
    greys = [
        quality.grey_square(p, np.array([0, 0, *p.shape[1::-1]]), 32) for p in pixels
    ]
    vocabulary = TextTokenizer.train(captions, 1024)
    crops = [chain.cropped(item, item.faces) for item in decoded]

    def each(function, items):
        return lambda: [function(item) for item in items]

    def write():
        with shard_format.shard_writer(folder / "w.arrayrecord") as writer:
            for kept in crops:
                writer.write(shard_format.pack(kept[0].record))

    return [
        ("read a tar", rate(lambda: list(tars.samples(tar, config)), count)),
        ("decode, Pillow", rate(each(image_io.decode, files), count)),
        ("decode and crop", rate(lambda: [
            _square(chain, chain.decoded(item)) for item in read], count)),
        (f"decode and crop, {2 * size} px", rate(lambda: [
            _square(chain, chain.decoded(item)) for item in larger], count)),
        ("crop, hash, encode", rate(
            lambda: [chain.cropped(i, i.faces) for i in decoded], count)),
        ("hash", rate(each(duplicates.perceptual_hash, greys), count)),
        ("digest", rate(each(duplicates.digest, files), count)),
        ("sharpness", rate(lambda: [
            quality.sharpness(p, i.faces.boxes[0])
            for p, i in zip(pixels, decoded)], count)),
        ("clean texts", rate(each(texts.clean, captions), count)),
        ("tell the language", rate(each(
            lambda t: texts.probability(t, "en"), captions), count)),
        ("tokenise texts", rate(lambda: vocabulary.encode(captions), count)),
        ("write a shard", rate(write, count)),
        ("all but finding", rate(
            lambda: list(chain(tars.samples(tar, config))), count)),
    ]  # fmt: skip


def _resized(pixels: np.ndarray, side: int) -> bytes:
    """A JPEG of the picture with this side."""
    buffer = io.BytesIO()
    picture = Image.fromarray(pixels).resize((side, side), Image.Resampling.BICUBIC)
    picture.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def others(files) -> list[tuple[str, float]]:
    """Rates of what works on no single record of the preparation."""
    rows = np.zeros(1_000_000, duplicates.ROW)
    rng = np.random.default_rng(0)
    rows["hash"] = rng.integers(0, 2**64, len(rows), np.uint64)
    rows["digest"] = rng.integers(0, 2**64, len(rows), np.uint64)
    rows["number"] = np.arange(len(rows))
    works = duplicates.plan(len(rows), 2)
    copies = rate(lambda: [duplicates.find(w, [rows]) for w in works], len(rows))
    found = [("find copies, 1 M rows", copies)]
    try:
        import simplejpeg
    except ImportError:
        print("simplejpeg is not installed: its row is left out", file=sys.stderr)
        return found
    fast = rate(lambda: [simplejpeg.decode_jpeg(data) for data in files], len(files))
    return [("decode, simplejpeg", fast), *found]


def _square(chain: stages.Stages, item) -> np.ndarray:
    """The crop of a decoded sample's face."""
    way, side, _ = stages.around(
        item.faces.boxes[0], item.record.image.shape[:2], chain.config.crop.context
    )
    low = way.inverse.points([0, 0])
    return geometry.cut(item.record, [*low, *(low + side)], chain.config.crop.size)


def finder(files, count: int = 32) -> list[tuple[str, float]]:
    from gptface_jax.experiments import prepare

    pictures = [image_io.decode(data) for data in files[:count]]
    return [("find faces", rate(lambda: prepare.find_faces(pictures), len(pictures)))]


def token_shards(folder: pathlib.Path, count: int, captions: Sequence[str]) -> dict:
    """A cache of 64 codes a record."""
    rng = np.random.default_rng(0)
    manifest = {"tokenizer_digest": "0", "codebook_size": 1024, "grid": [8, 8]}
    writer = shards.Writer(folder, manifest, count, 8192)
    for index in writer.missing:
        writer.write(index, (
            record.Record(
                image_ids=rng.integers(0, 1024, (8, 8)).astype(np.uint16),
                text=captions[i % len(captions)],
                source="bench",
            )
            for i in writer.records(index)
        ))  # fmt: skip
    writer.finish()
    return {"kind": "tokens", "path": str(folder)}


class Codes:
    """Record -> its codes: what a reader costs without the texts."""

    def __call__(self, item: record.Record, rng: np.random.Generator) -> dict:
        return {"image_ids": item.image_ids.reshape(-1).astype(np.int32)}


def reader(folder: pathlib.Path, captions, count: int = 60_000) -> list:
    """Rates of the training reader, shuffled, with and without texts."""
    source = sources.open_source(token_shards(folder / "tokens", count, captions))
    len(source)
    vocabulary = TextTokenizer.train(captions, 1024)
    both = transforms.TokenTransform(vocabulary, 34, source)
    found = []
    for name, transform, part in (("codes", Codes(), 1), ("with texts", both, 4)):
        for workers in (0, 1, 2):
            feed = pipeline.Pipeline(source, transform, 256, 0, workers=workers)
            batches = iter(feed.batches())
            for _ in range(8):
                next(batches)  # processes start
            number = count // part // 256
            start = time.perf_counter(), time.process_time()
            for _ in range(number):
                next(batches)
            wall, core = time.perf_counter() - start[0], time.process_time() - start[1]
            batches.close()
            if not workers:  # all of it is in this process
                found.append((f"training reader, {name}, a core", number * 256 / core))
            found.append(
                (f"training reader, {name}, {workers} workers", number * 256 / wall)
            )
    return found


class Repeated(Sequence):
    """The records of a source under more numbers than it has."""

    def __init__(self, source: Sequence, count: int):
        self.source, self.count = source, count

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int):
        return self.source[index % len(self.source)]


def peak(what: str, count: int, folder: str) -> None:
    """Prints the peak of this process's memory in MB, after so many records."""
    source = sources.open_source({"kind": "tokens", "path": folder})
    if what == "reader":
        feed = pipeline.Pipeline(Repeated(source, count), Codes(), 256, 0)
        batches = iter(feed.batches())
        for _ in range(400):
            next(batches)
        batches.close()
    else:
        work = duplicates.plan(count, 2, part=10_000)[0]

        def units():
            for unit in range(count // 1000):
                rows = np.zeros(1000, duplicates.ROW)
                rng = np.random.default_rng(unit)
                rows["digest"] = rng.integers(0, 2**64, 1000, np.uint64)
                rows["number"] = (unit << 32) + np.arange(1000)
                yield rows

        duplicates.find(work, units())
    print(round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))


def neighbours(files: Sequence[bytes]) -> None:
    """Prints with how many rows of a large set a row shares a value of each table.

    Hashes of photographs are not drawn evenly: the share of pairs of these photographs
    that agree in a table's bits, taken for that of a set of so many.
    """
    found = []
    for data in files:
        pixels = image_io.decode(data)
        whole = np.array([0, 0, *pixels.shape[1::-1]])
        grey = quality.grey_square(pixels, whole, 32)
        found.append(duplicates.perceptual_hash(grey))
    hashes = np.unique(np.array(found, np.uint64))
    every = len(hashes) * (len(hashes) - 1) / 2
    rows = [["rows", "bits of a table", "drawn evenly", "of photographs"]]
    for count in (20_000_000, 400_000_000):
        masks = {work.mask for work in duplicates.plan(count, 2, exact=False)}
        for mask in sorted(masks):
            _, sizes = np.unique(hashes & np.uint64(mask), return_counts=True)
            pairs, bits = np.sum(sizes * (sizes - 1) / 2), mask.bit_count()
            cells = f"{count / 2**bits:.1f}", f"{count * pairs / every:.1f}"
            rows.append([f"{count:,}", str(bits), *cells])
    print(f"{len(hashes)} different hashes")
    print(aligned(rows))


def blur(files: Sequence[bytes]) -> None:
    """Prints which share of the faces is below a least sharpness, by enlargement.

    A face is taken for the middle of its picture, half as wide.
    """
    limits = (0.01, 0.02, 0.03, 0.05)
    rows = [["made smaller and enlarged", *(f"below {x}" for x in limits)]]
    for times in (1, 1.5, 2, 3, 4):
        found = []
        for data in files:
            pixels = image_io.decode(data)
            size = np.array(pixels.shape[:2])
            if times > 1:
                small = image.resize(pixels, tuple(np.round(size / times).astype(int)))
                pixels = image.resize(small, tuple(size))
            middle, side = size[::-1] / 2, size.min() / 4
            box = np.concatenate([middle - side, middle + side])
            found.append(quality.sharpness(pixels, box))
        shares = [f"{100 * np.mean(np.array(found) < x):.1f} %" for x in limits]
        rows.append([f"{times:g} times", *shares])
    print(aligned(rows))


def memory(folder: pathlib.Path, captions) -> None:
    spec = token_shards(folder / "tokens", 10_000, captions)
    rows = [["peak of memory, MB", "10 k", "1 M"]]
    for what in ("reader", "copies"):
        peaks = [
            subprocess.run(
                [sys.executable, __file__, "--peak", what, str(n), spec["path"]],
                check=True, capture_output=True, text=True,
            ).stdout.strip()
            for n in (10_000, 1_000_000)
        ]  # fmt: skip
        rows.append([what, *peaks])
    print(aligned(rows))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", help="Parquet folder; default: drawn faces")
    parser.add_argument("--split", default="train")
    parser.add_argument("--crop", type=int, default=128, help="size of the result")
    parser.add_argument("--no-reader", action="store_true", help="leave it out")
    parser.add_argument("--limit", type=int, default=400)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--neighbours", action="store_true")
    parser.add_argument("--blur", action="store_true")
    parser.add_argument("--no-finder", action="store_true", help="leave it out")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        what, count, folder = options.peak
        peak(what, int(count), folder)
        return
    files, captions = files_of(options)
    for wanted, show in ((options.neighbours, neighbours), (options.blur, blur)):
        if wanted:
            show(files)
            return
    with tempfile.TemporaryDirectory() as name:
        folder = pathlib.Path(name)
        if options.memory:
            memory(folder, captions)
            return
        found = preparation(files, captions, folder, options.crop) + others(files)
        found += [] if options.no_finder else finder(files)
        found += [] if options.no_reader else reader(folder, captions)
    mean, size = sum(map(len, files)) / len(files), image_io.decode(files[0]).shape
    print(f"{len(files)} JPEG files of {size[1]} px, {mean / 1000:.1f} kB each")
    rows = [["stage", "records/s", "goal"]]
    for stage, speed in found:
        goals = GOALS if options.crop == 128 else {}
        goal = next((g for key, g in goals.items() if stage.startswith(key)), None)
        rows.append([stage, f"{speed:,.0f}", f"{goal:,}" if goal else ""])
    print(aligned(rows))


if __name__ == "__main__":
    multiprocessing.set_start_method("spawn", force=True)
    main()
