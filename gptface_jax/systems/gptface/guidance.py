"""Parameters shifted for one sample, as arrays or as low-rank reads (SPEC A.9.4, E.1).

The gradient of a linear map y = x W + b by W is X^T D: its inputs X and the cotangents
D of its outputs, one row a position. On new inputs z the shifted map is therefore

    z (a W + X^T D) + b'  =  a z W + (z X^T) D + b'

and samples of a batch are guided each by its own gradient without weights of their
own. The table of embeddings is such a map of one-hot rows; gains, biases and positions
are small and formed. With `low_rank=False` everything is formed: the same shift.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from typing import Any

import flax
import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.core import trees
from gptface_jax.core.errors import UserError
from gptface_jax.core.types import Params
from gptface_jax.nn.tokens import JointEmbedding
from gptface_jax.ops import guidance as ops_guidance
from gptface_jax.systems.gptface import model as gptface_model

# Collections of variables beside "params", by module as these.
READS, TAPS, SEEN = "reads", "taps", "seen"
TABLE = "tokens/embedding"
# Maps of the same inputs as another one, whose keys they share.
SHARED = {"value": "key", "up": "gate"}
_UNROLLED = 12  # layers; more take long to compile


@flax.struct.dataclass
class Shift:
    """What one sample's parameters became.

    Attributes:
      formed: path -> the parameter, changed.
      maps: paths of the parameters that are changed by reads.
      reads: path -> "scale" a, "keys" X (ids, for the table) and "values" D; without
        the first where it is 1, without the others where no gradient arrived.
    """

    formed: dict[str, jax.Array]
    maps: tuple[str, ...] = flax.struct.field(pytree_node=False)
    reads: dict[str, dict[str, jax.Array]]

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
    """Of log p(q=1) of one sample.

    Attributes:
      formed: path -> the gradient, float32.
      keys: path -> X, float [...,n,d_in], or the table's ids, int [1,n].
      values: path -> D, float32 [...,n,d_out].
    """

    formed: dict[str, jax.Array]
    keys: dict[str, jax.Array]
    values: dict[str, jax.Array]

    def squares(self) -> dict[str, jax.Array]:
        """path -> squared norm, of stacked layers one each."""
        return {p: _squares(p, g) for p, g in self.formed.items()} | {
            p: _product_squares(p, x, self.values[p]) for p, x in self.keys.items()
        }


def apply(module: nn.Module, variables: dict[str, Any], *args, **kwargs):
    """`module.apply` that heeds a shift."""
    with nn.intercept_methods(_intercept):
        return module.apply(variables, *args, **kwargs)


def bytes_of_one(model: gptface_model.GPTFaceConfig) -> int:
    """About what guiding one sample takes.

    Weights three times (its own, their gradient, and moved), and of every layer what
    the backward pass reads.
    """
    t, length = model.transformer, model.layout.length
    weights = t.width * (4 * t.width + 3 * t.mlp_width)
    kept = length * (8 * t.width + 3 * t.mlp_width + 2 * t.num_heads * length)
    return 4 * t.num_layers * (3 * weights + kept)


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


def begin(params: Params, pattern: str, low_rank: bool) -> Shift:
    """No shift yet of the parameters that a regex chooses.

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
    maps = [p for p in chosen if low_rank and (p.endswith("/kernel") or p == TABLE)]
    return Shift({p: flat[p] for p in chosen if p not in maps}, tuple(maps), {})


def value_and_gradient(
    module, params: Params, shift: Shift, tokens: jax.Array, below=None
):
    """log p(q=1) of one sequence, match bit unknown.

    Args:
      module, params: the model.
      shift: where the gradient is taken.
      tokens: int32 [L].
      below: [L,D], see `GPTFace.__call__`.

    Returns:
      (log p(q=1), last hidden states [L,D], Gradient).
    """
    below = None if below is None else below[None]
    module, depth = unrolled(module), module.config.transformer.num_layers
    flat = trees.flatten(params)
    variables = shift.variables(params)
    # Of the last layer the score needs the first position only.
    first, last = (
        functools.partial(_layers, module, start=start, stop=stop)
        for start, stop in ((0, depth - 1), (depth - 1, depth))
    )

    def score(formed, taps):
        merged = trees.merge(trees.flatten(variables["params"]), formed)
        given = {**variables, "params": merged}
        states, seen = below, [{}, {}]
        if depth > 1:
            states, seen[0] = first(given, taps[0], tokens, below, "states")
        logits, seen[1] = last(given, taps[1], tokens, states, "match_logits")
        return jax.nn.log_softmax(logits[0])[1], (states, seen)

    # A zero added to what a map gives has D for its gradient.
    maps = (*shift.maps, *(p for p in shift.formed if p.endswith("/kernel")))
    names = {p: f"{SEEN}/{_source(p)}/inputs" for p in maps}

    def zeros(seen):
        found = {}
        for path, name in names.items():
            if name in seen:
                shape = seen[name].shape if path == TABLE else seen[name].shape[:-1]
                found[path] = jnp.zeros((*shape, flat[path].shape[-1]), dtype)
        return found

    dtype = module.config.transformer.dtype
    _, (_, seen) = jax.eval_shape(score, shift.formed, [{}, {}])
    taps = [zeros(part) for part in seen]
    others = {p: x for p, x in shift.formed.items() if p not in taps[0] | taps[1]}
    (value, (states, seen)), (formed, values) = jax.value_and_grad(
        score, argnums=(0, 1), has_aux=True
    )(others, taps)
    hidden, _ = last(variables, {}, tokens, states, "__call__")
    keys = [{p: part[names[p]] for p in d} for part, d in zip(seen, values)]
    for path in shift.formed.keys() - others.keys():
        formed[path] = _products(path, keys, values).reshape(flat[path].shape)
    keys, values = (
        {p: _joined(p, parts) for p in shift.maps if p in parts[0] | parts[1]}
        for parts in (keys, values)
    )
    formed, values = jax.tree.map(lambda g: g.astype(jnp.float32), (formed, values))
    return value, hidden[0], Gradient(formed, keys, values)


def embedding_slopes(module, params: Params, tokens: jax.Array):
    """How log p(q=1) of one sequence, int32 [L], changes with its embeddings.

    Returns:
      (log p(q=1), last hidden states [L,D], slopes d log p / d e_j float32 [L,D],
      table [V,D]).
    """
    shift = begin(params, f"^{TABLE}$", low_rank=True)
    value, hidden, gradient = value_and_gradient(module, params, shift, tokens)
    return value, hidden, gradient.values[TABLE][0], trees.flatten(params)[TABLE]


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
    flat = trees.flatten(params)
    norms = {p: _squares(p, x) for p, x in shift.formed.items()}
    norms |= {p: _map_squares(p, flat[p], shift.reads.get(p)) for p in shift.maps}
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
            shape = () if path == TABLE else flat[path].shape[:-2]
            read["scale"] = keep * old.get("scale", jnp.ones(shape))
        if "values" in old:
            keys, values = [old["keys"]], [keep * old["values"]]
        if path in gradient.keys:
            keys.append(gradient.keys[path])
            values.append(part(path, gradient.values[path]))
        if keys:
            read["keys"] = jnp.concatenate(keys, -1 if path == TABLE else -2)
            read["values"] = jnp.concatenate(values, -2)
        reads[path] = read
    return shift.replace(formed=formed, reads=reads)


def _layers(module, variables, taps, tokens, below, method, *, start, stop):
    """Layers [start, stop) of one sequence: what `method` gives, what its maps saw."""
    part, _ = gptface_model.some_layers(module, {}, start, stop)
    share = {
        c: gptface_model.share_of_layers(tree, start, stop)
        for c, tree in variables.items()
    }
    share[TAPS] = _by_module(taps, "tap")
    result, seen = apply(
        part, share, tokens[None], below=below, method=method, mutable=[SEEN]
    )
    return result, trees.flatten(seen)


def _products(path: str, keys: list[dict], values: list[dict]) -> jax.Array:
    """X^T D of all layers, float32 [layers,d_in,d_out].

    One by one: joined first, or left to JAX, they are copied on a CPU.
    """
    pairs = [(x[path], d[path]) for x, d in zip(keys, values) if path in x]
    by_layer = [
        jnp.einsum("nd,ne->de", *pair, preferred_element_type=jnp.float32)
        for x, d in pairs
        for pair in zip(*(y.reshape(-1, *y.shape[-2:]) for y in (x, d)))
    ]
    return jnp.stack(by_layer)


def _joined(path: str, parts: list[dict]) -> jax.Array:
    """Of all layers [layers,1,L,d]; zeros where the last has one position only."""
    found = [part[path] for part in parts if path in part]
    if len(found) == 2:
        short = found[0].shape[-2] - found[1].shape[-2]
        found[1] = jnp.pad(found[1], [(0, 0), (0, 0), (0, short), (0, 0)])
    return jnp.concatenate(found)


def _source(path: str) -> str:
    """The module whose inputs are those of the map at `path`."""
    *above, name = _module(path).split("/")
    return "/".join((*above, SHARED.get(name, name)))


def _module(path: str) -> str:
    return path.rsplit("/", 1)[0]


def _by_module(by_path: dict[str, Any], name: str) -> dict[str, Any]:
    return trees.unflatten({f"{_module(p)}/{name}": x for p, x in by_path.items()})


def _stacked(path: str) -> bool:
    return "/layers/" in path


def _sum(path: str, x: jax.Array) -> jax.Array:
    return jnp.sum(x, tuple(range(1, x.ndim)) if _stacked(path) else None)


def _squares(path: str, x: jax.Array) -> jax.Array:
    return _sum(path, jnp.square(x.astype(jnp.float32)))


def _product_squares(path: str, keys: jax.Array, values: jax.Array) -> jax.Array:
    """|X^T D|^2 = sum of (X X^T) * (D D^T)."""
    return _sum(path, _likeness(keys, keys) * _likeness(values, values))


def _map_squares(path: str, weights: jax.Array, read: dict | None) -> jax.Array:
    """|a W + X^T D|^2."""
    plain = _squares(path, weights)
    if not read:
        return plain
    scale = read.get("scale", 1.0)
    total = jnp.square(scale) * plain
    if "values" in read:
        keys, values = read["keys"], read["values"]
        through = weights[keys] if path == TABLE else keys @ weights[..., None, :, :]
        cross = _sum(path, through.astype(jnp.float32) * values)
        total += 2 * scale * cross + _product_squares(path, keys, values)
    return total


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
    if name == "__call__" and module.is_mutable_collection(SEEN):
        module.put_variable(SEEN, "inputs", x)
    if not read and tap is None:
        return next_function(*args, **kwargs)
    read = read or {}
    if is_table and name == "attend":
        return _attend(next_function, read, *args, **kwargs)
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
