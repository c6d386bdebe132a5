"""One interface to every 3D morphable face model, and the file that holds one.

A head is `mean + identity . alpha + expression . delta`, its colours are
`albedo_mean + albedo . gamma`. Lengths are millimetres; x points to the viewer's right
(the subject's left), y up, z towards the viewer. Triangles go counter-clockwise as seen
from outside.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
import pathlib
import zipfile
from typing import Any

import numpy as np

from gptface_jax.core.errors import Missing, UserError, nearest
from gptface_jax.data import schemes

# Of a file in the documented layout: its arrays are the fields of `FaceModel`.
FORMAT = "gptface-face-model/1"
NUM_LANDMARKS = len(schemes.LANDMARKS["ibug68"])
NUM_CLASSES = len(schemes.PARSING["celebamask-hq"])


@dataclasses.dataclass(frozen=True, eq=False)
class FaceModel:
    """A linear model of heads.

    Attributes:
      name: what it is called in messages.
      mean: float32 [V,3] mm, the neutral mean head.
      identity: float32 [I,V,3] mm, offsets by one standard deviation of each mode.
      expression: float32 [E,V,3] mm, offsets of each shape at weight 1.
      albedo_mean: float32 [V,3] in 0..1, sRGB without light.
      albedo: float32 [A,V,3], offsets by one standard deviation of each mode.
      triangles: int32 [F,3] vertices.
      regions: uint8 [F], what each triangle shows, classes "celebamask-hq" of
        `schemes.PARSING`.
      landmarks: int32 [68] vertices of the iBUG points.
      identity_names: of the modes, "" for those without; empty for none at all.
      expression_names: of the shapes, as ARKit calls them, `_L` and `_R` the subject's.

    Raises:
      UserError: arrays that do not fit together, numbers that are not finite, other
        units than these, or triangles and landmarks of vertices that are not there.
    """

    name: str
    mean: np.ndarray
    identity: np.ndarray
    expression: np.ndarray
    albedo_mean: np.ndarray
    albedo: np.ndarray
    triangles: np.ndarray
    regions: np.ndarray
    landmarks: np.ndarray
    identity_names: tuple[str, ...] = ()
    expression_names: tuple[str, ...] = ()

    def __post_init__(self):
        count, faces = len(self.mean), len(self.triangles)
        modes = {name: len(getattr(self, name)) for name in _BASES}
        shapes = {"mean": (count, 3), "albedo_mean": (count, 3), "regions": (faces,)}
        shapes |= {"triangles": (faces, 3), "landmarks": (NUM_LANDMARKS,)}
        shapes |= {name: (number, count, 3) for name, number in modes.items()}
        for name, shape in shapes.items():
            value = getattr(self, name)
            if value.shape != shape:
                raise self._wrong(f"'{name}' is {list(value.shape)}, not {list(shape)}")
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise self._wrong(f"'{name}' holds numbers that are not finite")
        for name, most in (
            ("triangles", count), ("landmarks", count), ("regions", NUM_CLASSES)
        ):  # fmt: skip
            value = getattr(self, name)
            if value.size and not 0 <= value.min() <= value.max() < most:
                raise self._wrong(
                    f"'{name}' goes from {value.min()} to {value.max()}, and there are "
                    f"{most}"
                )
        low, high = self.albedo_mean.min(), self.albedo_mean.max()
        if not -_BEYOND <= low <= high <= 1 + _BEYOND:
            raise self._wrong(
                f"'albedo_mean' goes from {low:g} to {high:g}, and is sRGB from 0 to 1"
            )
        outer = self.mean[self.landmarks[[36, 45]]]
        apart = float(np.linalg.norm(outer[0] - outer[1]))
        if not _EYES[0] <= apart <= _EYES[1]:
            raise self._wrong(
                f"the outer corners of the eyes (landmarks 36 and 45) are {apart:g} mm "
                f"apart and not {_EYES[0]} to {_EYES[1]}; lengths are in millimetres"
            )
        for basis in ("identity", "expression"):
            names = getattr(self, f"{basis}_names")
            if names and len(names) != modes[basis]:
                raise self._wrong(f"{len(names)} {basis}_names are of {modes[basis]}")

    def _wrong(self, what: str) -> UserError:
        return UserError(f"face model '{self.name}': {what}; convert it again")

    def vertices(self, id_coeffs=(), exp_coeffs=()) -> np.ndarray:
        """Vertices float32 [V,3] mm of a head; modes without a coefficient have 0.

        Raises:
          UserError: more coefficients than modes.
        """
        return (
            self.mean
            + self._offset("identity", id_coeffs)
            + self._offset("expression", exp_coeffs)
        )

    def colours(self, albedo_coeffs=()) -> np.ndarray:
        """Albedo float32 [V,3] of a head, which may leave 0..1; see `vertices`."""
        return self.albedo_mean + self._offset("albedo", albedo_coeffs)

    def _offset(self, basis: str, coeffs) -> np.ndarray:
        modes, coeffs = getattr(self, basis), np.asarray(coeffs, np.float32)
        if len(coeffs) > len(modes):
            raise UserError(
                f"{len(coeffs)} coefficients of {basis} for face model '{self.name}', "
                f"which has {len(modes)} modes; use the model that they were made with"
            )
        return np.tensordot(coeffs, modes[: len(coeffs)], 1)

    def weights(self, **shapes: float) -> np.ndarray:
        """Expression coefficients float32 [E] of shapes by name.

        Raises:
          UserError: an unknown name.
        """
        result = np.zeros(len(self.expression), np.float32)
        for name, value in shapes.items():
            if name not in self.expression_names:
                raise UserError(
                    f"face model '{self.name}' has no expression '{name}'"
                    f"{nearest(name, self.expression_names)}"
                )
            result[self.expression_names.index(name)] = value
        return result

    def first_modes(self, num_identity: int) -> FaceModel:
        """The model with its first identity modes only.

        Raises:
          UserError: more than it has, or fewer than one.
        """
        if not 1 <= num_identity <= len(self.identity):
            raise UserError(
                f"{num_identity} identity modes are asked for and face model "
                f"'{self.name}' has {len(self.identity)}"
            )
        return dataclasses.replace(
            self,
            identity=self.identity[:num_identity],
            identity_names=self.identity_names[:num_identity],
        )

    def subset(self, vertices: np.ndarray, triangles: np.ndarray, regions) -> FaceModel:
        """The model on some of its vertices.

        Args:
          vertices: int [U], in ascending order; all landmarks must be among them.
          triangles: int [G,3] of the vertices of this model.
          regions: uint8 [G].
        """
        place = np.full(len(self.mean), -1, np.int32)
        place[vertices] = np.arange(len(vertices))
        return dataclasses.replace(
            self,
            mean=self.mean[vertices],
            albedo_mean=self.albedo_mean[vertices],
            **{name: getattr(self, name)[:, vertices] for name in _BASES},
            triangles=place[triangles].astype(np.int32),
            regions=np.asarray(regions, np.uint8),
            landmarks=place[self.landmarks],
        )

    @property
    def digest(self) -> str:
        """Digest of all that decides what coefficients mean, 16 hexadecimal digits."""
        return self.digests[0]

    @functools.cached_property
    def digests(self) -> tuple[str, str]:
        """`digest`, and the one that older files hold, which knows no names or signs.

        A file is of this model if it holds either.
        """
        older = self._sums()
        found = older.copy()
        for name in _NAMES:
            found.update(json.dumps([name, getattr(self, name)]).encode())
        for name in _BASES:
            found.update(_signs(getattr(self, name)).tobytes())
        return tuple(x.hexdigest()[:16] for x in (found, older))

    def _sums(self):
        """Hash of sizes, numbers without their signs, triangles and regions."""
        found = hashlib.sha256(self.name.encode())
        for name in _ARRAYS:
            value = getattr(self, name)
            found.update(f"{name}{value.shape}".encode())
            if value.dtype.kind == "f":  # as another machine's arithmetic makes it too
                found.update(f"{np.abs(value, dtype=np.float64).sum():.4g}".encode())
            else:
                found.update(np.ascontiguousarray(value).tobytes())
        return found

    def save(self, path: Any) -> None:
        """Writes the model into one .npz file (or open file), see `opening`."""
        names = {n: np.array(getattr(self, n), np.str_) for n in _NAMES}
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        np.savez_compressed(path, format=FORMAT, name=self.name, **arrays, **names)


_BASES = ("identity", "expression", "albedo")
_ARRAYS = (
    "mean", "identity", "expression", "albedo_mean", "albedo", "triangles", "regions",
    "landmarks",
)  # fmt: skip
_NAMES = ("identity_names", "expression_names")
_BEYOND = 0.01  # that mean colours may leave 0..1 by rounding
_EYES = (40, 200)  # mm from the outer corner of one eye to that of the other
# Of fixed weights that look like chance. By these no mode of the procedural model is so
# near to a sign's change that another processor's rounding could make one.
_WEIGHTS, _NUM_SIGNS = 2979531007, 4


def _signs(modes: np.ndarray) -> np.ndarray:
    """Signs of weighted sums of each mode [M,V,3], bool [M,4]: turned, they all do."""
    place = np.arange(1, modes[:1].size + 1, dtype=np.uint64)
    factors = _WEIGHTS + 2 * np.arange(_NUM_SIGNS, dtype=np.uint64)
    weights = (place * place * factors[:, None] % 2**32) / 2**31 - 1
    return np.array([weights @ mode.ravel().astype(np.float64) > 0 for mode in modes])


_TYPES = {"triangles": np.int32, "landmarks": np.int32, "regions": np.uint8}


def read_arrays(file: Any, path: str | os.PathLike) -> dict[str, np.ndarray]:
    """All arrays of an .npz file.

    Args:
      file: its path, or an open file.
      path: where it is, for messages.

    Raises:
      UserError: no such file, or one that cannot be read.
    """
    if isinstance(file, (str, os.PathLike)) and not pathlib.Path(file).is_file():
        raise Missing(f"face model '{path}' does not exist; check the path")
    try:
        with np.load(file, allow_pickle=False) as opened:
            return {name: opened[name] for name in opened.files}
    except (OSError, ValueError, EOFError, KeyError, zipfile.BadZipFile) as error:
        raise UserError(
            f"face model '{path}' cannot be read ({error}); get or convert it again"
        ) from None


def from_arrays(arrays: dict[str, np.ndarray], path: str | os.PathLike) -> FaceModel:
    """The model of a file that `FaceModel.save` or a converter wrote.

    Raises:
      UserError: an array is missing or none of numbers, or see `FaceModel`.
    """
    missing = [name for name in _ARRAYS if name not in arrays]
    if missing:
        raise UserError(
            f"face model '{path}' has no array {', '.join(missing)}; convert it again"
        )
    try:
        return FaceModel(
            name=str(arrays.get("name", pathlib.Path(path).stem)),
            **{n: arrays[n].astype(_TYPES.get(n, np.float32)) for n in _ARRAYS},
            **{n: tuple(str(x) for x in arrays[n]) for n in _NAMES if n in arrays},
        )
    except UserError:
        raise
    except (TypeError, ValueError) as error:
        raise UserError(
            f"face model '{path}' has arrays of another kind ({error}); convert it "
            "again"
        ) from None
