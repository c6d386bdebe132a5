"""Flax modules compiled as a whole; one by one, every operation compiles for itself."""

from __future__ import annotations

import functools

import jax


@functools.partial(jax.jit, static_argnums=0, static_argnames=("method", "collect"))
def apply(module, variables, *arrays, method=None, **named):
    """`module.apply(variables, *arrays, method=method, **named)`."""
    return module.apply(variables, *arrays, method=method, **named)
