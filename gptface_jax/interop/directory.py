"""A model directory: config.json, safetensors weights, tokenizer files, model card.

config.json            format, the networks' configs, digests of weights and vocabulary
vqgan.safetensors      one file per network
gptface.safetensors
vocab.txt, tokenizer.json, tokenizer_config.json
README.md              the model card
training_log.jsonl     metrics of the runs that made it
"""

from __future__ import annotations

import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError

FORMAT = "gptface-model/1"
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16}


def digest(params: Any, config: Mapping[str, Any]) -> str:
    """SHA-256 of a network's config and weights as float32, 16 hex digits."""
    state = hashlib.sha256(json.dumps(config, sort_keys=True).encode())
    for name, leaf in sorted(trees.flatten(params).items()):
        state.update(name.encode())
        state.update(np.ascontiguousarray(leaf, np.float32).tobytes())
    return state.hexdigest()[:16]


def digests(
    config: Mapping[str, Any],
    networks: Mapping[str, Any],
    files: Mapping[str, bytes],
) -> dict[str, str]:
    """Entries of config.json about the stored weights and the vocabulary.

    Args:
      config: network's name -> its config.
      networks: name -> parameters, rounded as they are stored.
      files: name -> content.
    """
    found = {name: digest(params, config[name]) for name, params in networks.items()}
    if "vocab.txt" in files:
        found["vocab"] = _vocab_digest(files["vocab.txt"])
    return found


def _vocab_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def write(
    folder: str | os.PathLike,
    config: Mapping[str, Any],
    networks: Mapping[str, Any],
    files: Mapping[str, bytes],
    dtype: str = "bfloat16",
) -> None:
    """Writes a model directory, complete or not at all.

    Args:
      folder: must not exist, or be empty.
      config: goes to config.json beside the format and the `digests`; holds the
        config of every network under its name.
      networks: name -> parameter tree of arrays.
      files: further files, name -> content.
      dtype: of the stored weights, "bfloat16" or "float32".

    Raises:
      UserError: the folder holds something, or cannot be written.
    """
    from safetensors.numpy import save

    if dtype not in DTYPES:
        raise UserError(f"dtype '{dtype}' is unknown; use {' or '.join(DTYPES)}")
    target = pathlib.Path(folder)
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(f"'{folder}' already exists; choose a new folder")
    stored = {
        name: {
            k: np.asarray(v, order="C").astype(DTYPES[dtype])
            for k, v in trees.flatten(params).items()
        }
        for name, params in networks.items()
    }
    named = {"digests": digests(config, stored, files)}
    text = json.dumps({"format": FORMAT, "dtype": dtype, **config, **named}, indent=2)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".partial-", dir=target.parent) as room:
            partial = pathlib.Path(room) / "model"
            partial.mkdir()  # with the umask's mode, unlike `room`
            for name, flat in stored.items():
                # `save_file` raises errors of its own and makes private files.
                content = save(flat, {"format": "flax"})
                (partial / f"{name}.safetensors").write_bytes(content)
            (partial / "config.json").write_text(text + "\n")
            for name, content in files.items():
                (partial / name).write_bytes(content)
            if target.exists():
                target.rmdir()
            partial.rename(target)
    except OSError as error:
        raise UserError(
            f"cannot write '{folder}': {error.strerror or error}; free space or "
            "choose another folder"
        ) from error


def read_config(folder: str | os.PathLike) -> dict[str, Any]:
    """The content of config.json of a model directory.

    Raises:
      UserError: no such file, no JSON object, or another format.
    """
    path = pathlib.Path(folder) / "config.json"
    if not path.is_file():
        raise UserError(f"'{folder}' has no config.json; it is no model directory")
    try:
        config = json.loads(path.read_text("utf-8"))
    except ValueError as error:  # no UTF-8, or no JSON
        raise UserError(
            f"'{path}' is no JSON ({error}); export the model again"
        ) from None
    if not isinstance(config, dict):
        raise UserError(
            f"'{path}' holds {str(config)[:20]} and no JSON object; export the model "
            "again"
        )
    if config.get("format") != FORMAT:
        raise UserError(
            f"'{path}' has format {config.get('format')!r}; expected {FORMAT!r}, as "
            "written by `gptface export`"
        )
    return config


def read_network(
    folder: str | os.PathLike,
    name: str,
    expected: Callable[[], Any],
    version: str = "",
) -> dict[str, Any]:
    """Weights of one network as float32.

    Args:
      folder: the model directory.
      name: "vqgan", "gptface", ...
      expected: gives the tree of shapes (`jax.eval_shape` of the initialiser). That
        takes half a second, and is left out where this `version` has written the very
        weights for the very config.
      version: of the library.

    Raises:
      UserError: a missing or damaged file, weights of another model, or others
        than config.json names.
    """
    from safetensors.numpy import load_file

    path = pathlib.Path(folder) / f"{name}.safetensors"
    if not path.is_file():
        raise UserError(f"'{folder}' has no {name}.safetensors; export the model again")
    try:
        flat = load_file(path)
    except Exception as error:
        raise UserError(f"'{path}' is damaged ({error}); get it again") from None
    config = read_config(folder)
    found = digest(flat, config[name])
    ours = config.get("library_version") == version
    if not (ours and config.get("digests", {}).get(name) == found):
        _check_shapes(flat, trees.flatten(expected()), path)
        _check_digest(config, name, found, path)
    return trees.unflatten({k: v.astype(np.float32) for k, v in flat.items()})


def _check_shapes(
    flat: Mapping[str, Any], wanted: Mapping[str, Any], path: pathlib.Path
) -> None:
    odd = sorted(set(wanted) ^ set(flat))
    if odd:
        where = "lacks" if odd[0] in wanted else "has the unknown"
        raise UserError(
            f"'{path}' {where} weight '{odd[0]}' ({len(odd)} differences in all); it "
            "belongs to another model"
        )
    for key, leaf in wanted.items():
        if flat[key].shape != leaf.shape:
            raise UserError(
                f"'{path}': weight '{key}' is {list(flat[key].shape)}, config.json "
                f"asks for {list(leaf.shape)}; it belongs to another model"
            )


def read_vocab(folder: str | os.PathLike) -> str:
    """The content of vocab.txt of a model directory.

    Raises:
      UserError: it is missing, or not the one that config.json names.
    """
    path = pathlib.Path(folder) / "vocab.txt"
    if not path.is_file():
        raise UserError(f"'{folder}' has no vocab.txt; export the model again")
    content = path.read_bytes()
    _check_digest(read_config(folder), "vocab", _vocab_digest(content), path)
    return content.decode()


def _check_digest(config: Mapping[str, Any], name: str, found: str, path: Any) -> None:
    named = config.get("digests", {}).get(name, found)
    if named != found:
        raise UserError(
            f"'{path}' is not the file that config.json names (digest {found}, not "
            f"{named}); get or export the model again"
        )
