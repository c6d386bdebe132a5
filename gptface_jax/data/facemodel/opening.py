"""Opening face models: the bundled one, ICT-FaceKit's, and files of one's own."""

from __future__ import annotations

import functools
import io
import os
import pathlib

import numpy as np

from gptface_jax.core.errors import UserError
from gptface_jax.data.facemodel import ict, model, procedural
from gptface_jax.data.facemodel.decimation import decimated
from gptface_jax.data.facemodel.model import FaceModel

PROCEDURAL = "procedural"


def open_model(
    path: str | os.PathLike = PROCEDURAL, max_vertices: int = 0, num_identity: int = 0
) -> FaceModel:
    """A face model.

    Args:
      path: "procedural", the project's own; an ICT-FaceKit folder of OBJ files; its
        compact .npz (centimetres); or an .npz that `FaceModel.save` or a converter
        wrote (millimetres; its arrays are the fields of `FaceModel`).
      max_vertices: the mesh is decimated to this budget; 0 for none.
      num_identity: first modes of identity that are kept; 0 for all.

    Raises:
      UserError: nothing there, or nothing that is a face model.
    """
    return _open(os.fspath(path), max_vertices, num_identity)


@functools.lru_cache(maxsize=4)
def _open(path: str, max_vertices: int, num_identity: int) -> FaceModel:
    if num_identity:
        return _open(path, max_vertices, 0).first_modes(num_identity)
    found = _read(path)
    return decimated(found, max_vertices) if max_vertices else found


def _read(path: str) -> FaceModel:
    if path == PROCEDURAL:
        return procedural.head_model()
    place = pathlib.Path(path).expanduser()
    if place.is_dir():
        return ict.from_folder(place)
    arrays = model.read_arrays(place, path)
    if "landmarks68" in arrays:
        missing = [key for key in ict.KEYS if key not in arrays]
        if missing:
            raise UserError(f"'{path}' has no array {', '.join(missing)}; get it again")
        return ict.from_arrays(arrays)
    return model.from_arrays(arrays, path)


def packed(found: FaceModel, path: str, max_vertices: int = 0) -> bytes:
    """An .npz by which `unpacked` opens a model again: the whole, or how it is made.

    Args:
      found: what `open_model` gave.
      path, max_vertices: its arguments.
    """
    content = io.BytesIO()
    if path == PROCEDURAL:
        numbers = {"max_vertices": max_vertices, "num_identity": len(found.identity)}
        np.savez(content, name=path, digest=found.digest, **numbers)
    else:
        found.save(content)
    return content.getvalue()


def unpacked(content: bytes, where: str | os.PathLike) -> FaceModel:
    """The model that `packed` kept.

    Args:
      content: see there.
      where: it came from, for messages.

    Raises:
      UserError: it cannot be read, or this version makes another model of it.
    """
    arrays = model.read_arrays(io.BytesIO(content), where)
    if "mean" in arrays:
        return model.from_arrays(arrays, where)
    try:
        numbers = [int(arrays[n]) for n in ("max_vertices", "num_identity")]
        said = str(arrays["digest"])
    except KeyError as error:
        raise UserError(
            f"face model of '{where}' has no {error}; export it again"
        ) from None
    found = open_model(PROCEDURAL, *numbers)
    if said not in found.digests:
        raise UserError(
            f"'{where}' knows face model {said}, and this version makes "
            f"{found.digest} of the procedural one; use the version that trained it"
        )
    return found
