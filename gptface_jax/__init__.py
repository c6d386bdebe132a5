"""gptface_jax: face foundation models in JAX/Flax.

`load(name)` opens a model; everything heavy, JAX included, is imported on use.
"""

from __future__ import annotations

__version__ = "0.1.0"


def load(source: str = "demo", **options):
    """Opens a model: a bundled name, a directory, a training run or a hub id.

    See `gptface_jax.apps.api.load` for the options.
    """
    from gptface_jax.core import compiled

    with compiled.tracing():  # importing makes as many objects
        from gptface_jax.apps import api

        return api.load(source, **options)


__all__ = ["__version__", "load"]
