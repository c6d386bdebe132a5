"""Reads PyTorch checkpoints without torch and without running their code.

A zip-format checkpoint is a pickle beside raw storages. The pickle is read with an
unpickler that knows tensors and plain containers; every other class becomes an inert
stub, so that nothing in the file is ever called.
"""

from __future__ import annotations

import collections
import io
import math
import os
import pickle
import zipfile
from typing import Any

import ml_dtypes
import numpy as np

from gptface_jax.core.errors import UserError

_DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}


class _Stub:
    """Stands for an object of an unknown class; remembers nothing, does nothing."""

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        pass

    def __setitem__(self, key, value):
        pass

    def append(self, item):
        pass

    def extend(self, items):
        pass

    def __call__(self, *args, **kwargs):
        return self


def _rebuild_tensor(storage, offset, size, stride, *_) -> np.ndarray:
    """The strided view that a tensor is of its storage; read-only, no copy.

    The file chooses the arguments: a storage that is itself a view, or numbers that
    overflow, would make the bounds check below meaningless.
    """
    if not (isinstance(storage, np.ndarray) and storage.ndim == 1):
        raise pickle.UnpicklingError("a tensor without a storage")
    if not storage.flags.c_contiguous:
        raise pickle.UnpicklingError("a tensor's storage is a view")
    if len(size) != len(stride) or {type(n) for n in (offset, *size, *stride)} != {int}:
        raise pickle.UnpicklingError("a tensor's shape is no list of integers")
    if math.prod(size) == 0:
        return np.zeros(size, storage.dtype)
    last = offset + sum((n - 1) * s for n, s in zip(size, stride))
    if min(offset, *size, *stride, 0) < 0 or last >= storage.size:
        raise pickle.UnpicklingError("a tensor reaches outside its storage")
    strides = [s * storage.itemsize for s in stride]
    return np.lib.stride_tricks.as_strided(
        storage[offset:], size, strides, writeable=False
    )


class _Unpickler(pickle.Unpickler):
    def __init__(self, file, read):
        super().__init__(file, encoding="utf-8")
        self._read = read
        self._storages: dict[tuple[str, str], np.ndarray] = {}

    def find_class(self, module: str, name: str) -> Any:
        # Fresh functions and strings: nothing of ours that the file could alter.
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2"): lambda *a: _rebuild_tensor(*a),
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            ("torch", "Size"): tuple,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in _DTYPES:
            return name
        return type(name.rsplit(".", 1)[-1], (_Stub,), {})

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage, key, _, count = pid
        if kind != "storage" or storage not in _DTYPES:
            raise pickle.UnpicklingError(f"unknown storage {pid!r}")
        if (key, storage) not in self._storages:
            dtype, data = _DTYPES[storage], self._read(key)
            if count < 0 or count * dtype.itemsize > len(data):
                raise pickle.UnpicklingError(f"storage {key!r} is too short")
            self._storages[key, storage] = np.ndarray(count, dtype, data)
        return self._storages[key, storage]


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Bytes of a member, which torch never compresses."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError(f"'{name}' is compressed")
    return archive.read(name)


def load_torch_zip(path: str | os.PathLike) -> Any:
    """Reads a checkpoint written by torch 1.6 or newer.

    Args:
      path: the file.

    Returns:
      What was saved, tensors as read-only numpy arrays (bfloat16 as
      `ml_dtypes.bfloat16`), objects of unknown classes as inert stubs.

    Raises:
      UserError: no such file, the older format, or a damaged file.
    """
    if not os.path.isfile(path):
        raise UserError(f"checkpoint '{path}' does not exist; check the path")
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"'{path}' is no zip-format PyTorch checkpoint; save it again with "
            "torch 1.6 or newer"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
            (index,) = [n for n in names if n.endswith("/data.pkl")]
            folder = index.removesuffix("data.pkl")
            order = f"{folder}byteorder"
            if order in names and _read_member(archive, order) != b"little":
                raise pickle.UnpicklingError("its numbers are big-endian")
            return _Unpickler(
                io.BytesIO(_read_member(archive, index)),
                lambda key: _read_member(archive, f"{folder}data/{key}"),
            ).load()
    except Exception as error:  # hostile bytes can raise anything
        raise UserError(
            f"'{path}' is damaged or unusual ({error}); get the file again"
        ) from None
