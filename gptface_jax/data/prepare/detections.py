"""LAION-FACE's detections: the faces of a sample by its SAMPLE_ID, in flat memory.

The set comes with `sample2detect_0.pth` to `_31.pth`: a dictionary from SAMPLE_ID to a
list of (box, five points, score) each, a gigabyte in memory and more. `convert` brings
one into two arrays that are mapped instead of read.
(https://github.com/FacePerceiver/LAION-Face)
"""

from __future__ import annotations

import io
import os
import pathlib
import pickle
import zipfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from gptface_jax.core import files
from gptface_jax.core.errors import Missing, UserError
from gptface_jax.data.prepare.metadata import faces_from
from gptface_jax.data.prepare.sample import Faces

_IDS, _STARTS, _FACES = "ids.npy", "starts.npy", "faces.npy"


class Detections:
    """Faces by SAMPLE_ID, of all folders that `write` made at a place or below."""

    def __init__(self, folder: str | os.PathLike):
        root = pathlib.Path(folder).expanduser()
        self.folders = sorted(path.parent for path in root.rglob(_IDS))
        if not self.folders:
            raise Missing(
                f"'{folder}' holds no detections; make them by `gptface data "
                "detections sample2detect_0.pth --out DIR`"
            )
        self._tables: list[tuple] = []

    def __getstate__(self):
        return {**self.__dict__, "_tables": []}

    def faces(self, sample_id: int) -> Faces | None:
        """The faces of a sample; None where nobody has looked."""
        if not self._tables:
            names = (_IDS, _STARTS, _FACES)
            self._tables = [
                tuple(np.load(folder / name, mmap_mode="r") for name in names)
                for folder in self.folders
            ]
        for ids, starts, faces in self._tables:
            place = int(np.searchsorted(ids, sample_id))
            if place < len(ids) and ids[place] == sample_id:
                rows = np.array(faces[starts[place] : starts[place + 1]])
                return faces_from(rows[:, :4], rows[:, 4:14], rows[:, 14])
        return None


def write(folder: str | os.PathLike, found: Mapping[int, Sequence[Sequence]]) -> int:
    """Writes detections (SAMPLE_ID -> [(box, points, score), ...]); returns how many
    samples there are.

    Raises:
      UserError: an entry of another shape.
    """
    root = pathlib.Path(folder)
    ids = np.array(sorted(found), np.int64)
    rows, starts = [], [0]
    for number in ids.tolist():
        for face in found[number]:
            try:
                box, points, score = face
                flat = [*np.ravel(box)[:4], *np.ravel(points), np.ravel(score)[0]]
                rows.append(np.asarray(flat, np.float32).reshape(15))
            except (TypeError, ValueError, IndexError) as error:
                raise UserError(
                    f"sample {number}: a face is no (box, five points, score) ({error})"
                ) from None
        starts.append(len(rows))
    faces = np.stack(rows) if rows else np.zeros((0, 15), np.float32)
    named = {_STARTS: np.array(starts, np.int64), _FACES: faces, _IDS: ids}
    for name, array in named.items():
        with files.replacing(root / name) as partial, open(partial, "wb") as file:
            np.save(file, array)
    return len(ids)


def convert(path: str | os.PathLike, folder: str | os.PathLike) -> int:
    """Writes what a file of `torch.save` holds; returns how many samples.

    Nothing in the file is run: it may name NumPy's arrays and plain containers alone.

    Raises:
      UserError: no such file, or one of anything else.
    """
    path = pathlib.Path(path).expanduser()
    if not path.is_file():
        raise Missing(
            f"'{path}' does not exist; download it with download_detection.sh"
        )
    try:
        with open(path, "rb") as file:
            found = _Unpickler(_pickle_of(path, file)).load()
    except Exception as error:  # of a damaged pickle anything may come
        raise UserError(
            f"'{path}' is no dictionary of LAION-FACE's detections ({error})"
        ) from None
    if not isinstance(found, dict) or not all(isinstance(k, int) for k in found):
        raise UserError(f"'{path}' is no dictionary from SAMPLE_ID to faces")
    return write(folder, found)


def _pickle_of(path: pathlib.Path, file: Any) -> Any:
    """The pickle of a zip archive that torch wrote, else the file itself."""
    if not zipfile.is_zipfile(path):
        return file
    with zipfile.ZipFile(path) as archive:
        names = [n for n in archive.namelist() if n.endswith("data.pkl")]
        return io.BytesIO(archive.read(names[0]))


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        if module in ("numpy.core.multiarray", "numpy._core.multiarray"):
            if name in ("_reconstruct", "scalar"):
                return super().find_class("numpy._core.multiarray", name)
        if (module, name) in (("numpy", "ndarray"), ("numpy", "dtype")):
            return getattr(np, name)
        if (module, name) == ("_codecs", "encode"):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it names {module}.{name}")
