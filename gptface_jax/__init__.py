"""gptface_jax: face foundation models in JAX/Flax.

`load(name)` opens a model; everything heavy, JAX included, is imported on use.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from gptface_jax.core.version import __version__

if TYPE_CHECKING:
    from gptface_jax.apps.api import Model


def load(
    source: str | os.PathLike = "demo",
    *,
    tokenizer: str | os.PathLike | None = None,
    dtype: str | None = None,
    system: str | None = None,
) -> Model:
    """Opens a model: a bundled name, a directory, a training run or a hub id.

    Args:
      source, tokenizer, dtype, system: see `gptface_jax.apps.api.load`.
    """
    from gptface_jax.core import compiled

    with compiled.tracing():  # importing makes as many objects
        from gptface_jax.apps import api

        return api.load(source, tokenizer=tokenizer, dtype=dtype, system=system)


__all__ = ["__version__", "load"]
