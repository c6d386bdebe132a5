"""Parameter trees addressed by path, and named random streams."""

from __future__ import annotations

import hashlib
import re
import zlib
from typing import Any

import jax
import numpy as np


def path_string(path: tuple[Any, ...]) -> str:
    """A key path as "a/b/c"."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def flatten(tree: Any) -> dict[str, Any]:
    """Flat dict {"a/b/c": leaf} of a nested one, in tree order."""
    leaves, _ = jax.tree_util.tree_flatten_with_path(tree)
    return {path_string(path): leaf for path, leaf in leaves}


def unflatten(flat: dict[str, Any]) -> dict[str, Any]:
    """{"a/b/c": leaf} -> nested dict."""
    tree: dict[str, Any] = {}
    for path, leaf in flat.items():
        *parents, name = path.split("/")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {})
        node[name] = leaf
    return tree


def split(tree: Any, pattern: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Flat dicts (matching, rest), by regex search on the path."""
    flat = flatten(tree)
    chosen = {p: x for p, x in flat.items() if re.search(pattern, p)}
    return chosen, {p: x for p, x in flat.items() if p not in chosen}


def merge(*parts: dict[str, Any]) -> dict[str, Any]:
    """One nested dict of flat ones; the inverse of `split`."""
    flat: dict[str, Any] = {}
    for part in parts:
        flat.update(part)
    return unflatten(dict(sorted(flat.items())))


def digest(tree: Any) -> str:
    """SHA-256 of arrays with their names, shapes and dtypes, 16 hex digits."""
    state = hashlib.sha256()
    for name, leaf in sorted(flatten(tree).items()):
        array = np.ascontiguousarray(leaf)
        state.update(f"{name} {array.dtype} {array.shape}".encode())
        state.update(array.tobytes())
    return state.hexdigest()[:16]


def count(tree: Any) -> int:
    """Number of scalars in a tree of arrays or shape structs."""
    return sum(x.size for x in jax.tree.leaves(tree))


def stream(key: jax.Array, name: str) -> jax.Array:
    """An independent key for one named use; the same name gives the same key."""
    return jax.random.fold_in(key, zlib.crc32(name.encode()) & 0x7FFFFFFF)
