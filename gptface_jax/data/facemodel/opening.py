"""Opening face models: the bundled one, ICT-FaceKit's, and files of one's own."""

from __future__ import annotations

import functools
import os
import pathlib

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
    found = _read(path)
    if max_vertices:
        found = decimated(found, max_vertices)
    return found.first_modes(num_identity) if num_identity else found


def _read(path: str) -> FaceModel:
    if path == PROCEDURAL:
        return procedural.head_model()
    place = pathlib.Path(path).expanduser()
    if place.is_dir():
        return ict.from_folder(place)
    arrays = model.read_arrays(place)
    if "landmarks68" in arrays:
        missing = [key for key in ict.KEYS if key not in arrays]
        if missing:
            raise UserError(f"'{path}' has no array {', '.join(missing)}; get it again")
        return ict.from_arrays(arrays)
    return model.from_arrays(arrays, path)
