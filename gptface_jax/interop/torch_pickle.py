"""Reads PyTorch checkpoints without torch and without running their code.

A checkpoint is a pickle and raw storages: members of a zip archive since torch 1.6,
before that one after the other. The pickle is read with an unpickler that knows
tensors and plain containers; every other class becomes an inert stub, so that nothing
in the file is ever called.
"""

from __future__ import annotations

import collections
import io
import math
import os
import pickle
import struct
import zipfile
from collections.abc import Callable
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
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001


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


def _dtype(kind: Any, storage: Any) -> np.dtype:
    """The dtype of a storage, by the first two entries of its persistent id."""
    if kind != "storage" or storage not in _DTYPES:
        raise pickle.UnpicklingError(f"unknown storage {kind!r} {storage!r}")
    return _DTYPES[storage]


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any):
        super().__init__(file, encoding="utf-8")

    def find_class(self, module: str, name: str) -> Any:
        # Fresh functions and strings: nothing of ours that the file could alter.
        known = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor"): lambda *a: _rebuild_tensor(*a),
            ("torch._utils", "_rebuild_tensor_v2"): lambda *a: _rebuild_tensor(*a),
            ("torch._utils", "_rebuild_parameter"): lambda data, *_: data,
            ("torch", "Size"): tuple,
        }
        if (module, name) in known:
            return known[module, name]
        if module == "torch" and name in _DTYPES:
            return name
        return type(name.rsplit(".", 1)[-1], (_Stub,), {})


class _ZipUnpickler(_Unpickler):
    """Storages are members of the archive, read when first asked for."""

    def __init__(self, file: Any, read: Callable[[str], bytes]):
        super().__init__(file)
        self._read = read
        self._storages: dict[tuple[str, str], np.ndarray] = {}

    def persistent_load(self, pid: Any) -> np.ndarray:
        kind, storage, key, _, count = pid
        dtype = _dtype(kind, storage)
        if (key, storage) not in self._storages:
            data = self._read(key)
            if count < 0 or count * dtype.itemsize > len(data):
                raise pickle.UnpicklingError(f"storage {key!r} is too short")
            self._storages[key, storage] = np.ndarray(count, dtype, data)
        return self._storages[key, storage]


class _LegacyUnpickler(_Unpickler):
    """Storages lie behind the pickle: tensors are views of memory filled later."""

    def __init__(self, file: Any, room: int):
        super().__init__(file)
        self._room = room  # bytes that the file can still hold
        self.storages: dict[str, np.ndarray] = {}

    def persistent_load(self, pid: Any) -> np.ndarray:
        if pid[0] == "module":  # a class, with its source code, which stays text
            return pid[1]
        kind, storage, key, _, count, view = pid
        dtype = _dtype(kind, storage)
        if key not in self.storages:
            self._room -= count * dtype.itemsize
            if count < 0 or self._room < 0:
                raise pickle.UnpicklingError(f"storage {key!r} is too short")
            self.storages[key] = np.zeros(count, dtype)
        found = self.storages[key]
        if found.dtype != dtype:
            raise pickle.UnpicklingError(f"storage {key!r} has two dtypes")
        if view is None:
            return found
        _, offset, length = view
        if not 0 <= offset <= offset + length <= found.size:
            raise pickle.UnpicklingError("a view reaches outside its storage")
        return found[offset : offset + length]


def _read_member(archive: zipfile.ZipFile, name: str) -> bytes:
    """Bytes of a member, which torch never compresses."""
    if archive.getinfo(name).compress_type != zipfile.ZIP_STORED:
        raise pickle.UnpicklingError(f"'{name}' is compressed")
    return archive.read(name)


def _zip(path: str | os.PathLike) -> Any:
    with zipfile.ZipFile(path) as archive:
        names = archive.namelist()
        (index,) = [n for n in names if n.endswith("/data.pkl")]
        folder = index.removesuffix("data.pkl")
        order = f"{folder}byteorder"
        if order in names and _read_member(archive, order) != b"little":
            raise pickle.UnpicklingError("its numbers are big-endian")
        return _ZipUnpickler(
            io.BytesIO(_read_member(archive, index)),
            lambda key: _read_member(archive, f"{folder}data/{key}"),
        ).load()


def _legacy(path: str | os.PathLike) -> Any:
    """Four pickles (magic, protocol, system, value), one of the storages' keys, then
    each storage: its number of entries as int64, its bytes."""
    with open(path, "rb") as file:
        if _Unpickler(file).load() != _LEGACY_MAGIC:
            raise pickle.UnpicklingError("it does not begin as a PyTorch checkpoint")
        if (protocol := _Unpickler(file).load()) != _LEGACY_PROTOCOL:
            raise pickle.UnpicklingError(f"protocol {protocol!r} is unknown")
        if not _Unpickler(file).load()["little_endian"]:
            raise pickle.UnpicklingError("its numbers are big-endian")
        unpickler = _LegacyUnpickler(file, os.path.getsize(path))
        value, storages = unpickler.load(), unpickler.storages
        keys = _Unpickler(file).load()
        if len(keys) != len(storages) or set(keys) != set(storages):
            raise pickle.UnpicklingError("its storages are not those of its tensors")
        for key in keys:
            (count,) = struct.unpack("<q", file.read(8))
            data = storages[key].view(np.uint8)
            if count != storages[key].size or file.readinto(data) != data.size:
                raise pickle.UnpicklingError(f"storage {key!r} has another size")
        return value


def load_torch(path: str | os.PathLike) -> Any:
    """The content of a checkpoint of `torch.save`, of the zip format or the older one.

    Args:
      path: the file.

    Returns:
      What was saved, tensors as read-only numpy arrays (bfloat16 as
      `ml_dtypes.bfloat16`), objects of unknown classes as inert stubs.

    Raises:
      UserError: no such file, no checkpoint, or a damaged one.
    """
    if not os.path.isfile(path):
        raise UserError(f"checkpoint '{path}' does not exist; check the path")
    try:
        return _zip(path) if zipfile.is_zipfile(path) else _legacy(path)
    except Exception as error:  # hostile bytes can raise anything
        said = " ".join(str(error).split())[:200]
        raise UserError(
            f"'{path}' is no PyTorch checkpoint, or damaged ({said}); get it again"
        ) from None
