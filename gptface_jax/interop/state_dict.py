"""Named weights of PyTorch models: read from checkpoints and safetensors, written."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from gptface_jax.core import files
from gptface_jax.core.errors import UserError
from gptface_jax.interop import torch_pickle, torch_writer

SUFFIXES = (".ckpt", ".pt", ".pth", ".bin", ".safetensors")
_FACEPTOR = ".pth.tar"  # what Faceptor's release calls its files
_FLOATS = (np.float16, np.float32, np.float64, ml_dtypes.bfloat16)


def read(path: str | os.PathLike) -> dict[str, np.ndarray]:
    """Weights by name, as they are stored.

    Args:
      path: `.safetensors`, or a PyTorch file of any other name: a Lightning
        checkpoint (its "state_dict") or a state dict.

    Returns:
      Name -> array in the file's dtype.

    Raises:
      UserError: no such file, a damaged one, or one with other things in it.
    """
    if pathlib.Path(path).suffix == ".safetensors":
        return _read_safetensors(path)
    found = torch_pickle.load_torch(path)
    # A file can shadow methods of the dicts in it: ask the class, not the object.
    if isinstance(found, dict) and "state_dict" in dict.keys(found):
        found = dict.__getitem__(found, "state_dict")
    if not (isinstance(found, dict) and found):
        raise UserError(f"'{path}' holds no state dict; save model.state_dict()")
    for name, array in dict.items(found):
        if not (isinstance(name, str) and isinstance(array, np.ndarray)):
            raise UserError(
                f"'{path}' holds no state dict: its entry {str(name)[:80]!r} is no "
                "tensor; save model.state_dict()"
            )
    return dict(dict.items(found))


def _read_safetensors(path: str | os.PathLike) -> dict[str, np.ndarray]:
    from safetensors.numpy import load_file

    if not os.path.isfile(path):
        raise UserError(f"weights '{path}' do not exist; check the path")
    try:
        return load_file(path)
    except Exception as error:  # safetensors and numpy raise their own
        raise UserError(f"'{path}' is damaged ({error}); get it again") from None


def write(
    path: str | os.PathLike,
    state: Mapping[str, np.ndarray],
    key: str = "state_dict",
    beside: Mapping[str, int] | None = None,
) -> None:
    """Writes `.safetensors`, or else {key: state} for `torch.load`.

    Args:
      path: its suffix decides.
      state: name -> array, float32 or int64.
      key, beside: see `torch_writer.save_state_dict`; `.safetensors` has neither.

    Raises:
      UserError: another suffix than `SUFFIXES`.
    """
    suffix = check(path)
    with files.replacing(path) as partial:
        if suffix == ".safetensors":
            from safetensors.numpy import save

            contiguous = {k: np.asarray(v, order="C") for k, v in state.items()}
            partial.write_bytes(save(contiguous, {"format": "pt"}))
        else:
            torch_writer.save_state_dict(partial, state, key, beside)


def check(path: str | os.PathLike) -> str:
    """The suffix of a file to write.

    Raises:
      UserError: another one than `SUFFIXES`.
    """
    if os.fspath(path).endswith(_FACEPTOR):
        return _FACEPTOR
    suffix = pathlib.Path(path).suffix
    if suffix not in SUFFIXES:
        raise UserError(f"'{path}' should end in one of {', '.join(SUFFIXES)}")
    return suffix


def as_float32(array: np.ndarray, name: str) -> np.ndarray:
    """The weight as float32, whatever float it is stored as.

    Raises:
      UserError: whole numbers; a quantised weight means nothing without its scale.
    """
    if array.dtype not in _FLOATS:
        raise UserError(f"weight '{name}' is {array.dtype}; give one of floats")
    return np.asarray(array, np.float32)


def shortened(names: Iterable[Any]) -> str:
    """The names in one line: all, or the first ten and how many more."""
    names = sorted(names)
    more = f" and {len(names) - 10} more" if len(names) > 10 else ""
    return ", ".join(names[:10]) + more


def differences(
    found: Mapping[str, tuple[int, ...]], wanted: Mapping[str, tuple[int, ...]]
) -> str:
    """Message on how two sets of named shapes differ, "" where they do not.

    Args:
      found: name -> shape in the file.
      wanted: name -> shape that the network has.
    """
    lacking, unknown = set(wanted) - set(found), set(found) - set(wanted)
    parts = []
    if lacking:
        parts.append(f"it lacks {len(lacking)}: {shortened(lacking)}")
    if unknown:
        parts.append(f"it has {len(unknown)} unknown: {shortened(unknown)}")
    misshapen = [
        f"{name} is {list(found[name])}, not {list(wanted[name])}"
        for name in set(found) & set(wanted)
        if tuple(found[name]) != tuple(wanted[name])
    ]
    if misshapen:
        parts.append(f"{len(misshapen)} have another shape: {shortened(misshapen)}")
    return "; ".join(parts)
