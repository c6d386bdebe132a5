"""Writes checkpoints that `torch.load` reads, without torch.

The pickle is put together from its op codes: a dict of tensors needs few of them, and
all are on the list of `torch.load(weights_only=True)`.
"""

from __future__ import annotations

import os
import pickle
import pickletools
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

_STORAGES = {np.dtype("<f4"): "FloatStorage", np.dtype("<i8"): "LongStorage"}


def _plain(value: Any) -> bytes:
    """Op codes that push a string, an integer or a tuple of integers."""
    # Less what fills the memo (nothing reads it), the header and STOP.
    return pickletools.optimize(pickle.dumps(value, protocol=2))[2:-1]


def _name(module: str, name: str) -> bytes:
    return pickle.GLOBAL + f"{module}\n{name}\n".encode()


def _tuple(*parts: bytes) -> bytes:
    return pickle.MARK + b"".join(parts) + pickle.TUPLE


def _tensor(key: str, array: np.ndarray) -> bytes:
    """Op codes that push the whole of storage `key` as a tensor, row by row."""
    storage = _tuple(
        _plain("storage"),
        _name("torch", _STORAGES[array.dtype]),
        *map(_plain, (key, "cpu", array.size)),
    )
    stride = tuple(s // array.itemsize for s in array.strides)
    arguments = _tuple(
        storage + pickle.BINPERSID,
        *map(_plain, (0, array.shape, stride)),
        pickle.NEWFALSE,  # requires_grad
        _name("collections", "OrderedDict") + pickle.EMPTY_TUPLE + pickle.REDUCE,
    )
    return _name("torch._utils", "_rebuild_tensor_v2") + arguments + pickle.REDUCE


def save_state_dict(
    path: str | os.PathLike,
    state: Mapping[str, np.ndarray],
    key: str = "state_dict",
    beside: Mapping[str, int] | None = None,
) -> None:
    """Writes {key: state} in the zip format of torch 1.6 and newer.

    Equal states make equal files.

    Args:
      path: the file.
      state: name -> array, float32 or int64.
      key: under which Lightning keeps it; "" writes the state itself.
      beside: numbers that are kept beside it, by name.
    """
    arrays = {name: np.asarray(array, order="C") for name, array in state.items()}
    entries = b"".join(
        _plain(name) + _tensor(str(i), array)
        for i, (name, array) in enumerate(arrays.items())
    )
    weights = pickle.EMPTY_DICT + pickle.MARK + entries + pickle.SETITEMS
    if key:
        others = b"".join(
            map(_plain, [x for pair in (beside or {}).items() for x in pair])
        )
        inside = pickle.MARK + others + _plain(key) + weights + pickle.SETITEMS
        weights = pickle.EMPTY_DICT + inside
    index = pickle.PROTO + b"\x02" + weights + pickle.STOP
    with zipfile.ZipFile(path, "w") as archive:

        def write(name: str, content: bytes) -> None:
            archive.writestr(zipfile.ZipInfo(f"archive/{name}"), content)

        write("data.pkl", index)
        write("byteorder", b"little")
        for i, array in enumerate(arrays.values()):
            write(f"data/{i}", array.tobytes())
        write("version", b"3\n")
