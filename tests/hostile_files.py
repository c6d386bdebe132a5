"""Files as the web has them at its worst, made of drawn pictures."""

from __future__ import annotations

import io
import json
import pathlib
import struct
import tarfile
import zlib
from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from PIL import Image

from gptface_jax.data.synthetic import SyntheticFaces

FORMATS = {"jpg": "JPEG", "png": "PNG", "webp": "WEBP", "gif": "GIF", "bmp": "BMP"}


def drawn(count: int, size: int = 48) -> list[np.ndarray]:
    """So many drawn faces, uint8 [S,S,3] each."""
    source = SyntheticFaces(size=size, count=count)
    return [source[i].image for i in range(count)]


def encoded(picture: np.ndarray, ending: str = "jpg", **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, FORMATS[ending], **options)
    return buffer.getvalue()


def chunk(name: bytes, data: bytes) -> bytes:
    """A chunk of a PNG."""
    sum_ = zlib.crc32(name + data)
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", sum_)


def png_bomb(width: int, height: int, full: bool = False) -> bytes:
    """A PNG that says it is huge; if full, whose first rows are there."""
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    rows = bytes(1 + 3 * width) * 4 if full else b""
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(rows))
        + chunk(b"IEND", b"")
    )


def damaged_pictures(pictures: Iterable[np.ndarray]) -> Iterator[tuple[str, bytes]]:
    """Ending and content of files that are no good picture, 95 made of each picture."""
    rng = np.random.default_rng(0)
    for picture in pictures:
        for ending in FORMATS:
            good = encoded(picture, ending)
            for cut in np.linspace(1, len(good) * 0.9, 8).astype(int):
                yield ending, good[:cut]
            for place in rng.integers(0, min(len(good), 200), 6):
                hurt = bytearray(good)
                hurt[place] ^= 1 << int(rng.integers(8))
                yield ending, bytes(hurt)
            yield ending, b""
            yield ending, rng.bytes(len(good))
            yield ending, good[:20] + rng.bytes(300)
            yield ending, b"<html><script>alert(1)</script>" + good
            yield ending, good[::-1]
    good = encoded(picture, "png")
    profile = encoded(picture, "jpg", icc_profile=rng.bytes(500))
    yield "jpg", profile
    yield "jpg", encoded(picture, "jpg", exif=b"Exif\0\0" + rng.bytes(400))
    yield "png", png_bomb(60_000, 60_000)
    yield "png", png_bomb(30_000, 30_000, full=True)
    yield "png", png_bomb(0, 0)
    bomb = chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80_000_000)))
    yield "png", good[:33] + bomb + good[33:]
    yield "gif", b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\xf7\0\0" + bytes(800)
    yield "bmp", b"BM" + struct.pack("<IIIIiiHHIIiiII", 0, 0, 54, 40, 2**30, 2**30, 1,
                                     24, 0, 0, 0, 0, 0, 0)  # fmt: skip
    yield "tif", b"II*\0" + struct.pack("<I", 8) + struct.pack("<H", 9000) + bytes(99)
    # What Pillow would hand to Ghostscript.
    yield "jpg", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run showpage\n"
    yield "jpg", b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj"
    yield "png", b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>'
    yield "jpg", b"\x7fELF\x02\x01\x01" + bytes(90)
    yield "webp", b"RIFF\xff\xff\xff\x7fWEBPVP8X" + bytes(40)
    yield "avif", b"\0\0\0\x1cftypavif" + bytes(60)
    yield "heic", b"\0\0\0\x1cftypheic" + bytes(60)


def polyglots(picture: np.ndarray) -> list[bytes]:
    """Good pictures that are something else as well."""
    good, zipped = encoded(picture), b"PK\x05\x06" + bytes(18)
    script = b"\xff\xfe\x00\x1a*/=1;alert(1);/*comment*/"  # a JPEG's comment
    return [good + zipped, good + b"<?php exit; ?>", good[:2] + script + good[2:]]


def add(tar: tarfile.TarFile, name: str, data: bytes = b"", **fields) -> None:
    """A member of any name and type."""
    member = tarfile.TarInfo(name)
    member.size = len(data)
    for key, value in fields.items():
        setattr(member, key, value)
    tar.addfile(member, io.BytesIO(data))


def tar_of(
    path: pathlib.Path, samples: Iterable[tuple[str, Mapping[str, bytes]]]
) -> pathlib.Path:
    """A webdataset tar of (key, {ending: content})."""
    with tarfile.open(path, "w") as tar:
        for key, parts in samples:
            for ending, data in parts.items():
                add(tar, f"{key}.{ending}", data)
    return path


def about(**columns) -> bytes:
    """The JSON of a sample."""
    return json.dumps(columns).encode()
