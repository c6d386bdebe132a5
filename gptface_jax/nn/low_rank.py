"""Parameters shifted along a score's gradient, as arrays or as low-rank factors.

The gradient of a linear map is X^T D, see `nn.shifted_network`, which runs networks
that are shifted by such factors. With `low_rank=False` everything is materialized: the
same shift. What the score is, and which parameters it moves, is the caller's affair.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.core.types import Params
from gptface_jax.nn.shifted_network import (
    SEEN,
    Paths,
    Shift,
    inner_products,
    module_of,
    run_layers,
)
from gptface_jax.ops import guidance as ops_guidance

# run(start, stop, method, *args, **kwargs): what the method of the shifted network
# gives with its layers [start, stop) only.
Run = Callable[..., Any]
# Scalar float32 to be raised, and anything else that was met on the way.
Score = Callable[[Run], tuple[jax.Array, Any]]


@flax.struct.dataclass
class Gradient:
    """Gradient of the score of one sample.

    Attributes:
      materialized: path -> the gradient, float32.
      keys: path -> X, float [...,n,d_in], or the table's ids, int [1,n].
      values: path -> D, float32 [...,n,d_out].
    """

    materialized: dict[str, jax.Array]
    keys: dict[str, jax.Array]
    values: dict[str, jax.Array]
    paths: Paths = flax.struct.field(pytree_node=False, default=Paths())

    def squares(self) -> dict[str, jax.Array]:
        """Squared norm of the gradient by path, of stacked layers one each."""
        total = functools.partial(_sum, self.paths)
        return {p: _squares(total, p, g) for p, g in self.materialized.items()} | {
            p: _product_squares(total, p, x, self.values[p])
            for p, x in self.keys.items()
        }


def value_and_gradient(
    module: nn.Module, params: Params, shift: Shift, score: Score
) -> tuple[jax.Array, Any, Gradient]:
    """A score of one sample at the shifted parameters, and its gradient by them.

    Args:
      module, params: the network; `shifted_network.unrolled` is fastest.
      shift: where the gradient is taken.
      score: calls its argument once for each part of the network, layers in order.
        Within a part every linear map is used once, on one example.

    Returns:
      (value, what else the score gave, Gradient).

    Raises:
      ValueError: factors cannot hold the gradient: a map used twice, or logits by a
        table of embeddings whose shift is to be kept as factors.
    """
    flat, paths = trees.flatten(params), shift.paths
    evaluate = functools.partial(_evaluate, module, shift.variables(params), score)
    # Shapes first: which maps the score runs through decides what is differentiated.
    _, (_, seen) = jax.eval_shape(evaluate, shift.materialized, [])
    _check_table(shift, seen)
    # Those that are materialized are tapped too: see `_products`.
    kernels = (p for p in shift.materialized if p.endswith("/kernel"))
    recorded = {
        p: f"{SEEN}/{paths.source(p, flat)}/inputs" for p in (*shift.factored, *kernels)
    }
    taps = [
        _zero_outputs(recorded, flat, paths, part, module.config.transformer.dtype)
        for part in seen
    ]
    tapped = {p for part in taps for p in part}
    others = {p: x for p, x in shift.materialized.items() if p not in tapped}
    (value, (other, seen)), (materialized, values) = jax.value_and_grad(
        evaluate, argnums=(0, 1), has_aux=True
    )(others, taps)
    keys = [{p: part[recorded[p]] for p in d} for part, d in zip(seen, values)]
    for path in (p for p in shift.materialized if p in tapped):
        product = _products(paths, path, keys, values)
        materialized[path] = product.reshape(flat[path].shape)
    keys, values = (
        {p: _joined(paths, p, parts) for p in shift.factored if p in tapped}
        for parts in (keys, values)
    )
    materialized, values = jax.tree.map(
        lambda g: g.astype(jnp.float32), (materialized, values)
    )
    return value, other, Gradient(materialized, keys, values, paths)


def _evaluate(module, variables, score: Score, materialized, taps: list[dict]):
    """The score with some parameters replaced and some outputs of maps moved.

    Args:
      module, variables, score: the network, `Shift.variables` and the score.
      materialized: path -> parameter, in place of what `variables` hold.
      taps: of each part of the network path -> what is added to a map's outputs; []
        for nothing.

    Returns:
      (value, (what else the score gave, what the maps of each part saw)).
    """
    merged = trees.merge(trees.flatten(variables["params"]), materialized)
    given, seen = {**variables, "params": merged}, []

    def run(start, stop, method, *args, **kwargs):
        part = taps[len(seen)] if taps else {}
        result, found = run_layers(
            module, given, start, stop, method, *args, taps=part, **kwargs
        )
        seen.append(found)
        return result

    value, other = score(run)
    return value, (other, seen)


def _zero_outputs(recorded, flat, paths: Paths, seen, dtype) -> dict[str, jax.Array]:
    """Zeros of the shape of what each map of a part gives, by path.

    A zero that is added to the outputs of a map has D for its gradient.
    """
    zeros = {}
    for path, name in recorded.items():
        if name in seen:
            inputs = seen[name].shape
            rows = inputs if path == paths.table else inputs[:-1]
            zeros[path] = jnp.zeros((*rows, flat[path].shape[-1]), dtype)
    return zeros


def _check_table(shift: Shift, seen: list[dict]) -> None:
    """Raises ValueError where the shifted table of embeddings also gives logits.

    Its gradient then has a row for every id, and D of the few that were looked up
    would silently leave most of it out.
    """
    table = shift.paths.table
    attended = f"{SEEN}/{module_of(table)}/attended"
    if table in shift.factored and any(attended in part for part in seen):
        raise ValueError(
            f"the score reads logits by {table}, whose gradient is not of low rank; "
            "leave it out of the update set or use the explicit form"
        )


def step(
    rule: str,
    step_size: float,
    params: Params,
    shift: Shift,
    gradient: Gradient,
    scale=1.0,
) -> Shift:
    """The shift after one more step of a rule of `ops.guidance`.

    Factors of several steps are put one after the other: the rank grows by the rows of
    each.

    Args:
      rule, step_size: see `ops.guidance.coefficients`.
      params: unshifted.
      shift: so far.
      gradient: at the shifted parameters.
      scale: factor on the step.
    """
    flat, table = trees.flatten(params), shift.paths.table
    total = functools.partial(_sum, shift.paths)
    norms = {p: _squares(total, p, x) for p, x in shift.materialized.items()}
    norms |= {
        p: _map_squares(total, p, flat[p], shift.factors.get(p)) for p in shift.factored
    }
    keep, by_path = ops_guidance.coefficients(
        rule, norms, gradient.squares(), step_size
    )
    keep = 1 + scale * (keep - 1)

    def part(path, x):
        factor = scale * by_path[path]
        return jnp.reshape(factor, factor.shape + (1,) * (x.ndim - factor.ndim)) * x

    materialized = {
        p: (keep * x + part(p, gradient.materialized[p])).astype(x.dtype)
        for p, x in shift.materialized.items()
    }
    factors = {}
    for path in shift.factored:
        old = shift.factors.get(path, {})
        own, keys, values = {}, [], []
        if rule == "literal":
            # One for each of the stacked layers.
            shape = () if path == table else flat[path].shape[:-2]
            own["scale"] = keep * old.get("scale", jnp.ones(shape))
        if "values" in old:
            keys, values = [old["keys"]], [keep * old["values"]]
        if path in gradient.keys:
            keys.append(gradient.keys[path])
            values.append(part(path, gradient.values[path]))
        if keys:
            own["keys"] = jnp.concatenate(keys, -1 if path == table else -2)
            own["values"] = jnp.concatenate(values, -2)
        factors[path] = own
    return shift.replace(materialized=materialized, factors=factors)


def _products(paths: Paths, path: str, keys: list[dict], values: list[dict]):
    """X^T D, float32 [layers,d_in,d_out], or [1,d_in,d_out] of all parts together.

    One by one: joined first, or left to JAX's own gradient of the kernel, they are
    copied on a CPU.
    """
    pairs = [(x[path], d[path]) for x, d in zip(keys, values) if path in x]
    by_layer = [
        jnp.einsum("nd,ne->de", *pair, preferred_element_type=jnp.float32)
        for x, d in pairs
        for pair in zip(*(y.reshape(-1, *y.shape[-2:]) for y in (x, d)))
    ]
    stacked = jnp.stack(by_layer)
    many = len(by_layer) > 1 and paths.stack not in path
    return jnp.sum(stacked, 0, keepdims=True) if many else stacked


def _joined(paths: Paths, path: str, parts: list[dict]) -> jax.Array:
    """Rows of all parts: layers [layers,1,L,d], with zeros where a part is shorter."""
    found = [part[path] for part in parts if path in part]
    if paths.stack not in path:
        ids = jnp.issubdtype(found[0].dtype, jnp.integer)
        return (
            found[0] if len(found) == 1 else jnp.concatenate(found, -1 if ids else -2)
        )
    longest = max(x.shape[-2] for x in found)
    for i, x in enumerate(found):
        if short := longest - x.shape[-2]:
            found[i] = jnp.pad(x, [(0, 0), (0, 0), (0, short), (0, 0)])
    return jnp.concatenate(found)


def _sum(paths: Paths, path: str, x: jax.Array) -> jax.Array:
    """Sum of all entries, of stacked layers one each."""
    return jnp.sum(x, tuple(range(1, x.ndim)) if paths.stack in path else None)


def _squares(total, path: str, x: jax.Array) -> jax.Array:
    """Squared norm |x|^2 in float32."""
    return total(path, jnp.square(x.astype(jnp.float32)))


def _product_squares(total, path: str, keys: jax.Array, values: jax.Array) -> jax.Array:
    """Squared norm |X^T D|^2 = sum of (X X^T) * (D D^T), without forming X^T D."""
    return total(path, inner_products(keys, keys) * inner_products(values, values))


def _map_squares(total, path: str, weights: jax.Array, own: dict | None) -> jax.Array:
    """Squared norm |a W + X^T D|^2 = a^2 |W|^2 + 2 a <X W, D> + |X^T D|^2."""
    plain = _squares(total, path, weights)
    if not own:
        return plain
    scale = own.get("scale", 1.0)
    found = jnp.square(scale) * plain
    if "values" in own:
        keys, values = own["keys"], own["values"]
        ids = jnp.issubdtype(keys.dtype, jnp.integer)
        through = weights[keys] if ids else keys @ weights[..., None, :, :]
        cross = total(path, through.astype(jnp.float32) * values)
        found += 2 * scale * cross + _product_squares(total, path, keys, values)
    return found
