"""What says that a picture is a model's work: XMP, PNG text, sidecar (SPEC E.8)."""

from __future__ import annotations

import datetime
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

from PIL import Image

from gptface_jax.core.version import __version__

# https://cv.iptc.org/newscodes/digitalsourcetype/
SOURCES = "http://cv.iptc.org/newscodes/digitalsourcetype/"
EDITED = SOURCES + "compositeWithTrainedAlgorithmicMedia"
DRAWN = SOURCES + "trainedAlgorithmicMedia"
# Readable by anybody who opens the picture.
MARKS = {
    EDITED: "Edited with gptface_jax: this picture has been changed by a generative "
    "model",
    DRAWN: "Made with gptface_jax: this picture was drawn by a generative model",
}
_SPACES = {
    "x": "adobe:ns:meta/",
    "rdf": "http://www.w3.org/1999/02/22-rdf-syntax-ns#",
    "dc": "http://purl.org/dc/elements/1.1/",
    "xmp": "http://ns.adobe.com/xap/1.0/",
    "Iptc4xmpExt": "http://iptc.org/std/Iptc4xmpExt/2008-02-29/",
    "gptface_jax": "urn:gptface_jax:1/",
}
_LANGUAGE = "{http://www.w3.org/XML/1998/namespace}lang"


def details(
    edited: bool,
    model: str,
    dtype: str | None,
    text: str,
    seed: int,
    decode: Mapping[str, Any],
) -> dict[str, Any]:
    """Entries that every sidecar holds.

    Args:
      edited: False for a picture drawn out of nothing.
      model: digest of the weights.
      dtype: of the activations, None for the networks' own.
      text: that was followed, or "".
      seed: of the random choices.
      decode: options of the decoder.
    """
    return {
        "edited": edited,
        "software": f"gptface_jax {__version__}",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "model": model,
        **({"dtype": dtype} if dtype else {}),
        "text": text,
        "seed": seed,
        "decode": dict(decode),
    }


def source_type(details: Mapping[str, Any]) -> str:
    """IPTC's word for a photograph that was edited, or a picture drawn from nothing."""
    return EDITED if details["edited"] else DRAWN


def key_digest(key: int) -> str:
    """Digest by which keys of a watermark are compared; guessable if the key is."""
    return hashlib.sha256(f"gptface_jax watermark {key}".encode()).hexdigest()[:16]


def packet(details: Mapping[str, Any]) -> bytes:
    """The XMP packet of a picture: source type, description, software, details."""
    kind = source_type(details)
    meta = ElementTree.Element(_name("x:xmpmeta"))
    rdf = ElementTree.SubElement(meta, _name("rdf:RDF"))
    about = ElementTree.SubElement(
        rdf, _name("rdf:Description"), {_name("rdf:about"): ""}
    )

    def add(name: str, text: str | None = None) -> ElementTree.Element:
        element = ElementTree.SubElement(about, _name(name))
        element.text = text
        return element

    add("Iptc4xmpExt:DigitalSourceType", kind)
    add("xmp:CreatorTool", details["software"])
    add("gptface_jax:details", json.dumps(details))
    said = ElementTree.SubElement(add("dc:description"), _name("rdf:Alt"))
    words = {_LANGUAGE: "x-default"}
    ElementTree.SubElement(said, _name("rdf:li"), words).text = MARKS[kind]
    for prefix, space in _SPACES.items():
        ElementTree.register_namespace(prefix, space)
    body = ElementTree.tostring(meta)
    start = '<?xpacket begin="\ufeff" id="W5M0MpCehiHzreSzNTczkc9d"?>\n'.encode()
    return start + body + b'\n<?xpacket end="w"?>'


def read(picture: Image.Image) -> tuple[str | None, dict[str, Any] | None]:
    """Source type and our details in the XMP of a picture.

    Either is None where there is none, or none that can be read.
    """
    data = picture.info.get("xmp") or b""
    try:
        root = ElementTree.fromstring(data.strip(b"\x00 \n"))
    except ElementTree.ParseError:
        return None, None
    # Other programs write simple values as attributes.
    found = {k: v for element in root.iter() for k, v in element.attrib.items()}
    found |= {element.tag: element.text for element in root.iter()}
    details = _details(found.get(_name("gptface_jax:details")) or "")
    return found.get(_name("Iptc4xmpExt:DigitalSourceType")), details


def details_of(source: Any) -> dict[str, Any] | None:
    """Details of how a picture was made: of a path its sidecar, else of its XMP.

    None where it does not say, or cannot be read.
    """
    is_path = isinstance(source, (str, os.PathLike))
    if is_path and (found := read_sidecar(source)):
        return found
    return marks_of(source)[1]


def marks_of(source: Any) -> tuple[str | None, dict[str, Any] | None]:
    """What `read` finds in a PIL image, encoded bytes or the file of a path.

    Nothing where that is no picture, or in pixels alone.
    """
    if isinstance(source, Image.Image):
        return read(source)
    if not isinstance(source, (bytes, str, os.PathLike)):
        return None, None
    try:
        data = io.BytesIO(source) if isinstance(source, bytes) else source
        with Image.open(data) as picture:
            if picture.format == "PNG":
                picture.load()  # its text may follow its pixels
            return read(picture)
    except (OSError, ValueError, Image.DecompressionBombError):
        return None, None


def beside(path: str | os.PathLike) -> tuple[pathlib.Path, pathlib.Path]:
    """Paths FILE.strip.png and FILE.json beside FILE.png.

    FILE.png.strip.png and FILE.png.json where FILE.json is of FILE.jpg.
    """
    path = pathlib.Path(path)
    own = path.with_suffix(".json")
    with_ending = path.with_name(f"{path.name}.json")
    name = pathlib.Path(str((_read(own) or {}).get("file", "")))
    other = name.stem == path.stem and name.suffix != path.suffix
    if other or (_read(with_ending) or {}).get("file") == path.name:
        return path.with_name(f"{path.name}.strip.png"), with_ending
    return path.with_suffix(".strip.png"), own


def read_sidecar(path: str | os.PathLike) -> dict[str, Any] | None:
    """The details beside a picture, None where there are none."""
    return _read(beside(path)[1])


def _read(sidecar: pathlib.Path) -> dict[str, Any] | None:
    try:
        return _details(sidecar.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return None


def _details(text: str) -> dict[str, Any] | None:
    try:
        details = json.loads(text)
    except ValueError:
        return None
    ours = isinstance(details, dict) and isinstance(details.get("edited"), bool)
    return details if ours and isinstance(details.get("chain", []), list) else None


def _name(prefixed: str) -> str:
    prefix, _, name = prefixed.partition(":")
    return f"{{{_SPACES[prefix]}}}{name}"
