"""Parameters shifted along a score's gradient, as arrays or as low-rank reads.

(SPEC A.9.4, E.1.) The gradient of a linear map y = x W + b by W is X^T D: its inputs X
and the cotangents D of its outputs, one row a position. On new inputs z the shifted map
is therefore

    z (a W + X^T D) + b'  =  a z W + (z X^T) D + b'

and samples of a batch are guided each by its own gradient without weights of their
own. The table of embeddings is such a map of one-hot rows; gains, biases and positions
are small and formed. With `low_rank=False` everything is formed: the same shift.
What the score is, and which parameters it moves, is the caller's affair.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable, Mapping
from typing import Any

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError
from gptface_jax.core.types import Params
from gptface_jax.nn import backbone
from gptface_jax.nn.tokens import JointEmbedding
from gptface_jax.ops import guidance as ops_guidance

# Collections of variables beside "params", by module as these.
READS, TAPS, SEEN = "reads", "taps", "seen"
_UNROLLED = 12  # layers; more take long to compile

# run(start, stop, method, *args, **kwargs): what the method of the shifted network
# gives with its layers [start, stop) only.
Run = Callable[..., Any]
# Scalar float32 to be raised, and anything else that was met on the way.
Score = Callable[[Run], tuple[jax.Array, Any]]


@dataclasses.dataclass(frozen=True)
class Paths:
    """Where a network keeps what its reads depend on; the defaults are `nn.backbone`'s.

    Attributes:
      table: path of the embeddings, whose inputs are ids; of a `JointEmbedding`.
      stack: what the paths of layers that are scanned have in them.
      shared: (name, other): a map has the same inputs as another one beside it, whose
        keys it shares where that is there.
    """

    table: str = "tokens/embedding"
    stack: str = "/layers/"
    shared: tuple[tuple[str, str], ...] = (("value", "key"), ("up", "gate"))

    def source(self, path: str, params: Mapping[str, Any]) -> str:
        """The module whose inputs are those of the map at `path`."""
        *above, name = _module(path).split("/")
        other = "/".join((*above, dict(self.shared).get(name, name)))
        return other if f"{other}/kernel" in params else _module(path)


@flax.struct.dataclass
class Shift:
    """What one sample's parameters became.

    Attributes:
      formed: path -> the parameter, changed.
      maps: paths of the parameters that are changed by reads.
      reads: path -> "scale" a, "keys" X (ids, for the table) and "values" D; without
        the first where it is 1, without the others where no gradient arrived.
      paths: of the network.
    """

    formed: dict[str, jax.Array]
    maps: tuple[str, ...] = flax.struct.field(pytree_node=False)
    reads: dict[str, dict[str, jax.Array]]
    paths: Paths = flax.struct.field(pytree_node=False, default=Paths())

    def variables(self, params: Params) -> dict[str, Any]:
        """For `apply`."""
        merged = trees.merge(trees.flatten(params), self.formed)
        return {"params": merged, READS: _by_module(self.reads, "read")}

    def scaled(self, params: Params, factor) -> Shift:
        """`factor` of the way from the parameters to here."""
        flat = trees.flatten(params)
        formed = {
            p: (flat[p] + factor * (x - flat[p])).astype(x.dtype)
            for p, x in self.formed.items()
        }
        reads = {p: dict(read) for p, read in self.reads.items()}
        for read in reads.values():
            if "scale" in read:
                read["scale"] = 1 + factor * (read["scale"] - 1)
            if "values" in read:
                read["values"] = factor * read["values"]
        return self.replace(formed=formed, reads=reads)


@flax.struct.dataclass
class Gradient:
    """Of the score of one sample.

    Attributes:
      formed: path -> the gradient, float32.
      keys: path -> X, float [...,n,d_in], or the table's ids, int [1,n].
      values: path -> D, float32 [...,n,d_out].
    """

    formed: dict[str, jax.Array]
    keys: dict[str, jax.Array]
    values: dict[str, jax.Array]
    paths: Paths = flax.struct.field(pytree_node=False, default=Paths())

    def squares(self) -> dict[str, jax.Array]:
        """path -> squared norm, of stacked layers one each."""
        total = functools.partial(_sum, self.paths)
        return {p: _squares(total, p, g) for p, g in self.formed.items()} | {
            p: _product_squares(total, p, x, self.values[p])
            for p, x in self.keys.items()
        }


def apply(module: nn.Module, variables: dict[str, Any], *args, **kwargs):
    """`module.apply` that heeds a shift."""
    with nn.intercept_methods(_intercept):
        return module.apply(variables, *args, **kwargs)


def run_layers(
    module: nn.Module,
    variables: dict[str, Any],
    start: int,
    stop: int,
    method: str,
    *args,
    taps: dict[str, jax.Array] | None = None,
    **kwargs,
):
    """What a method of the layers [start, stop) gives, and what its maps saw.

    Args:
      module: the whole network.
      variables: `Shift.variables`.
      start, stop, method, args, kwargs: see `Run`.
      taps: path -> what is added to the outputs of a map.
    """
    part, _ = backbone.some_layers(module, {}, start, stop)
    share = {
        c: backbone.share_of_layers(tree, start, stop) for c, tree in variables.items()
    }
    share[TAPS] = _by_module(taps or {}, "tap")
    result, seen = apply(part, share, *args, method=method, mutable=[SEEN], **kwargs)
    return result, trees.flatten(seen)


def unrolled(module):
    """The model with no loop over its layers, unless they are many.

    A loop stacks what it reads and gives, which takes as long as a forward pass on a
    CPU. Nor is anything computed twice: one sequence has few activations.
    """
    transformer = module.config.transformer
    depth = transformer.num_layers
    unroll = depth if depth <= _UNROLLED else transformer.unroll
    transformer = dataclasses.replace(transformer, remat="none", unroll=unroll)
    config = dataclasses.replace(module.config, transformer=transformer)
    return module.clone(config=config)


def begin(
    params: Params, pattern: str, low_rank: bool, paths: Paths = Paths()
) -> Shift:
    """No shift yet of the parameters that a regex, the update set, chooses.

    Args:
      params: of the network.
      pattern: searched in their paths.
      low_rank: whether linear maps are changed by reads.
      paths: of the network.

    Raises:
      UserError: it chooses none.
    """
    flat = trees.flatten(params)
    chosen = [p for p in flat if re.search(pattern, p)]
    if not chosen:
        raise UserError(
            f"update_set {pattern!r} matches no parameter; the first are "
            f"{', '.join(list(flat)[:3])}, the default is '^transformer/'"
        )
    maps = [
        p for p in chosen if low_rank and (p.endswith("/kernel") or p == paths.table)
    ]
    formed = {p: flat[p] for p in chosen if p not in maps}
    return Shift(formed, tuple(maps), {}, paths)


def value_and_gradient(
    module: nn.Module, params: Params, shift: Shift, score: Score
) -> tuple[jax.Array, Any, Gradient]:
    """A score of one sample at the shifted parameters, and its gradient by them.

    Args:
      module, params: the network; `unrolled` is fastest.
      shift: where the gradient is taken.
      score: calls its argument once for each part of the network, layers in order.
        Within a part every linear map is used once, on one example.

    Returns:
      (value, what else the score gave, Gradient).

    Raises:
      ValueError: reads cannot hold the gradient: a map used twice, or logits by a
        table of embeddings that is to be shifted by reads.
    """
    flat, paths = trees.flatten(params), shift.paths
    variables = shift.variables(params)
    # A zero added to what a map gives has D for its gradient.
    maps = (*shift.maps, *(p for p in shift.formed if p.endswith("/kernel")))
    names = {p: f"{SEEN}/{paths.source(p, flat)}/inputs" for p in maps}

    def evaluate(formed, taps):
        merged = trees.merge(trees.flatten(variables["params"]), formed)
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

    def zeros(seen):
        found = {}
        for path, name in names.items():
            if name in seen:
                inputs = seen[name].shape
                rows = inputs if path == paths.table else inputs[:-1]
                found[path] = jnp.zeros((*rows, flat[path].shape[-1]), dtype)
        return found

    dtype = module.config.transformer.dtype
    _, (_, seen) = jax.eval_shape(evaluate, shift.formed, [])
    attended = f"{SEEN}/{_module(paths.table)}/attended"
    if paths.table in shift.maps and any(attended in part for part in seen):
        raise ValueError(
            f"the score reads logits by {paths.table}, whose gradient is not of low "
            "rank; leave it out of the update set or use the explicit form"
        )
    taps = [zeros(part) for part in seen]
    tapped = {p for part in taps for p in part}
    others = {p: x for p, x in shift.formed.items() if p not in tapped}
    (value, (other, seen)), (formed, values) = jax.value_and_grad(
        evaluate, argnums=(0, 1), has_aux=True
    )(others, taps)
    keys = [{p: part[names[p]] for p in d} for part, d in zip(seen, values)]
    for path in (p for p in shift.formed if p in tapped):
        formed[path] = _products(paths, path, keys, values).reshape(flat[path].shape)
    keys, values = (
        {p: _joined(paths, p, parts) for p in shift.maps if p in tapped}
        for parts in (keys, values)
    )
    formed, values = jax.tree.map(lambda g: g.astype(jnp.float32), (formed, values))
    return value, other, Gradient(formed, keys, values, paths)


def step(
    rule: str,
    step_size: float,
    params: Params,
    shift: Shift,
    gradient: Gradient,
    scale=1.0,
) -> Shift:
    """One step of a rule of `ops.guidance` from the shifted parameters.

    Args:
      rule, step_size: see `ops.guidance.coefficients`.
      params: unshifted.
      shift: so far.
      gradient: at the shifted parameters.
      scale: factor on the step.
    """
    flat, table = trees.flatten(params), shift.paths.table
    total = functools.partial(_sum, shift.paths)
    norms = {p: _squares(total, p, x) for p, x in shift.formed.items()}
    norms |= {
        p: _map_squares(total, p, flat[p], shift.reads.get(p)) for p in shift.maps
    }
    keep, by_path = ops_guidance.coefficients(
        rule, norms, gradient.squares(), step_size
    )
    keep = 1 + scale * (keep - 1)

    def part(path, x):
        factor = scale * by_path[path]
        return jnp.reshape(factor, factor.shape + (1,) * (x.ndim - factor.ndim)) * x

    formed = {
        p: (keep * x + part(p, gradient.formed[p])).astype(x.dtype)
        for p, x in shift.formed.items()
    }
    reads = {}
    for path in shift.maps:
        old = shift.reads.get(path, {})
        read, keys, values = {}, [], []
        if rule == "literal":
            # One for each of the stacked layers.
            shape = () if path == table else flat[path].shape[:-2]
            read["scale"] = keep * old.get("scale", jnp.ones(shape))
        if "values" in old:
            keys, values = [old["keys"]], [keep * old["values"]]
        if path in gradient.keys:
            keys.append(gradient.keys[path])
            values.append(part(path, gradient.values[path]))
        if keys:
            read["keys"] = jnp.concatenate(keys, -1 if path == table else -2)
            read["values"] = jnp.concatenate(values, -2)
        reads[path] = read
    return shift.replace(formed=formed, reads=reads)


def _products(paths: Paths, path: str, keys: list[dict], values: list[dict]):
    """X^T D, float32 [layers,d_in,d_out], or [1,d_in,d_out] of all parts together.

    One by one: joined first, or left to JAX, they are copied on a CPU.
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


def _module(path: str) -> str:
    return path.rsplit("/", 1)[0]


def _by_module(by_path: dict[str, Any], name: str) -> dict[str, Any]:
    return trees.unflatten({f"{_module(p)}/{name}": x for p, x in by_path.items()})


def _sum(paths: Paths, path: str, x: jax.Array) -> jax.Array:
    """Of all entries, of stacked layers one each."""
    return jnp.sum(x, tuple(range(1, x.ndim)) if paths.stack in path else None)


def _squares(total, path: str, x: jax.Array) -> jax.Array:
    return total(path, jnp.square(x.astype(jnp.float32)))


def _product_squares(total, path: str, keys: jax.Array, values: jax.Array) -> jax.Array:
    """|X^T D|^2 = sum of (X X^T) * (D D^T)."""
    return total(path, _likeness(keys, keys) * _likeness(values, values))


def _map_squares(total, path: str, weights: jax.Array, read: dict | None) -> jax.Array:
    """|a W + X^T D|^2."""
    plain = _squares(total, path, weights)
    if not read:
        return plain
    scale = read.get("scale", 1.0)
    found = jnp.square(scale) * plain
    if "values" in read:
        keys, values = read["keys"], read["values"]
        ids = jnp.issubdtype(keys.dtype, jnp.integer)
        through = weights[keys] if ids else keys @ weights[..., None, :, :]
        cross = total(path, through.astype(jnp.float32) * values)
        found += 2 * scale * cross + _product_squares(total, path, keys, values)
    return found


def _likeness(x: jax.Array, keys: jax.Array) -> jax.Array:
    """float32 [...,q,k]: products of rows, or equality of ids."""
    if jnp.issubdtype(keys.dtype, jnp.integer):
        return (x[..., :, None] == keys[..., None, :]).astype(jnp.float32)
    return jnp.einsum("...qd,...kd->...qk", x, keys, preferred_element_type=jnp.float32)


def _intercept(next_function, args, kwargs, context):
    """Linear maps and the table, with their reads and taps; says what they saw."""
    module, name = context.module, context.method_name
    is_table = isinstance(module, JointEmbedding)
    if not (is_table or isinstance(module, nn.Dense)) or name not in (
        "__call__",
        "attend",
    ):
        return next_function(*args, **kwargs)
    variables = module.variables
    read, tap = (
        variables.get(c, {}).get(n) for c, n in ((READS, "read"), (TAPS, "tap"))
    )
    x, *others = args
    if module.is_mutable_collection(SEEN):
        what = "attended" if name == "attend" else "inputs"
        if what == "inputs" and module.has_variable(SEEN, what):
            raise ValueError(f"{module.name} is used twice in one part of the network")
        module.put_variable(SEEN, what, x)
    if not read and tap is None:
        return next_function(*args, **kwargs)
    read = read or {}
    if name == "attend":
        return _attend(next_function, read if module.tied else {}, *args, **kwargs)
    scaled, change = x, 0.0
    if "scale" in read and is_table:
        change = (read["scale"] - 1) * jnp.take(module.embedding, x, axis=0)
    elif "scale" in read:
        scaled = (read["scale"] * x).astype(x.dtype)
    y = next_function(scaled, *others, **kwargs)
    if "values" in read:
        change += _likeness(x, read["keys"]) @ read["values"]
    if tap is not None:
        change += tap
    factor = module.multiplier if is_table else 1.0
    return (y + factor * change).astype(y.dtype)


def _attend(next_function, read, x, start=0, stop=None):
    """Tied logits of the shifted table."""
    scaled = (read["scale"] * x).astype(x.dtype) if "scale" in read else x
    logits = next_function(scaled, start, stop)
    if "values" not in read:
        return logits
    added = jnp.einsum(
        "...d,kd->...k", x, read["values"][0], preferred_element_type=jnp.float32
    )
    # Ids before `start` or from `stop` on fall away.
    ids = read["keys"][0] - start
    ids = jnp.where(ids < 0, logits.shape[-1], ids)
    return logits.at[..., ids].add(added, mode="drop")
