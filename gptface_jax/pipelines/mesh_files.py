"""Heads as files that 3D programs open: GLB (glTF 2.0) and OBJ, with vertex colours."""

from __future__ import annotations

import json
import os
import pathlib
import struct

import numpy as np

from gptface_jax.core import files
from gptface_jax.core.errors import UserError, nearest
from gptface_jax.data.facemodel import surface

FORMATS = (".glb", ".obj")
_METRE = 1e-3  # glTF's unit, of millimetres
_FLOAT, _UNSIGNED = 5126, 5125
_VERTICES, _INDICES = 34962, 34963


def check(path: str | os.PathLike) -> str:
    """The ending of a mesh file.

    Raises:
      UserError: none that is written here.
    """
    ending = pathlib.Path(path).suffix.lower()
    if ending not in FORMATS:
        raise UserError(
            f"'{path}' is no file of a mesh{nearest(ending, FORMATS)}; use "
            f"{' or '.join(FORMATS)}"
        )
    return ending


def outputs(path: str | os.PathLike, photo: bool) -> list[pathlib.Path]:
    """What is written of a head: mesh, turntable, overlay if it has a photo, JSON."""
    path = pathlib.Path(path)
    pictures = (".turntable.png", *[".overlay.png"] * photo)
    return [path, *(path.with_suffix(ending) for ending in (*pictures, ".json"))]


def check_apart(path: str | os.PathLike, *others: str | os.PathLike | None) -> None:
    """Refuses to write a head over other files that a command names.

    Raises:
      UserError: one of them would be written over.
    """
    taken = {os.path.realpath(place) for place in outputs(path, photo=True)}
    for given in others:
        if given and os.path.realpath(given) in taken:
            raise UserError(
                f"'{given}' would be written over, as a part of '{path}' (FILE.json, "
                "FILE.turntable.png and FILE.overlay.png lie beside it); write to "
                "another name"
            )


def write(
    path: str | os.PathLike, vertices: np.ndarray, triangles: np.ndarray,
    colours: np.ndarray,
) -> None:  # fmt: skip
    """Writes a mesh, complete or not at all.

    Args:
      path: FILE.glb (metres) or FILE.obj (millimetres).
      vertices: float [V,3] mm, y up, z towards the viewer.
      triangles: int [F,3], counter-clockwise from outside.
      colours: float [V,3] sRGB in 0..1; others are clipped.

    Raises:
      UserError: another ending, or numbers that are not finite.
      OSError: a path that cannot be written.
    """
    make = {".glb": glb, ".obj": obj}[check(path)]
    if not (np.isfinite(vertices).all() and np.isfinite(colours).all()):
        raise UserError(
            "the mesh holds numbers that are not finite; nothing is written"
        )
    content = make(vertices, triangles, np.clip(colours, 0, 1))
    with files.replacing(path) as partial:
        partial.write_bytes(content)


def obj(vertices: np.ndarray, triangles: np.ndarray, colours: np.ndarray) -> bytes:
    """The mesh as OBJ; colours behind the places, as most programs read them."""
    rows = np.concatenate([vertices, colours], 1)
    lines = ["# millimetres"]
    lines += ["v " + " ".join(f"{x:.5f}" for x in row) for row in rows]
    lines += ["f " + " ".join(str(i + 1) for i in row) for row in triangles]
    return ("\n".join(lines) + "\n").encode()


def glb(vertices: np.ndarray, triangles: np.ndarray, colours: np.ndarray) -> bytes:
    """The mesh as binary glTF 2.0, with normals and a matt material."""
    normals = surface.normals(np.asarray(vertices, np.float64), triangles)
    # A vertex that no triangle has gets any normal: it must have one.
    normals[np.linalg.norm(normals, axis=1) < 0.5] = [0, 0, 1]
    arrays = (
        ("POSITION", np.float32(vertices * _METRE), "VEC3", _FLOAT),
        ("NORMAL", np.float32(normals), "VEC3", _FLOAT),
        ("COLOR_0", np.float32(_linear(colours)), "VEC3", _FLOAT),
        ("", np.uint32(triangles).reshape(-1), "SCALAR", _UNSIGNED),
    )
    views, accessors, content, attributes = [], [], b"", {}
    for number, (name, array, kind, component) in enumerate(arrays):
        target = _VERTICES if name else _INDICES
        views.append(
            {"buffer": 0, "byteOffset": len(content), "byteLength": array.nbytes,
             "target": target}
        )  # fmt: skip
        accessor = {"bufferView": number, "componentType": component,
                    "count": len(array), "type": kind}  # fmt: skip
        if name == "POSITION":
            accessor |= {"min": array.min(0).tolist(), "max": array.max(0).tolist()}
        accessors.append(accessor)
        if name:
            attributes[name] = number
        content += array.tobytes()
    matt = {"pbrMetallicRoughness": {"metallicFactor": 0.0, "roughnessFactor": 0.9}}
    scene = {
        "asset": {"version": "2.0", "generator": "gptface_jax"},
        "scene": 0, "scenes": [{"nodes": [0]}], "nodes": [{"mesh": 0, "name": "head"}],
        "materials": [matt],
        "meshes": [{"primitives": [{
            "attributes": attributes, "indices": len(arrays) - 1, "material": 0,
        }]}],
        "buffers": [{"byteLength": len(content)}],
        "bufferViews": views, "accessors": accessors,
    }  # fmt: skip
    text = json.dumps(scene, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 4)
    content += b"\0" * (-len(content) % 4)
    total = 12 + 8 + len(text) + 8 + len(content)
    return b"".join([
        b"glTF", struct.pack("<II", 2, total),
        struct.pack("<I", len(text)), b"JSON", text,
        struct.pack("<I", len(content)), b"BIN\0", content,
    ])  # fmt: skip


def _linear(colours: np.ndarray) -> np.ndarray:
    """sRGB in 0..1 as glTF wants it: in proportion to light."""
    low = colours / 12.92
    return np.where(colours <= 0.04045, low, ((colours + 0.055) / 1.055) ** 2.4)
