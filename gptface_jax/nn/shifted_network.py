"""Networks whose parameters are shifted, as arrays or as low-rank factors.

(SPEC A.9.4, E.1.) The gradient of a linear map y = x W + b by W is X^T D: its inputs X
and the cotangents D of its outputs, one row a position. On new inputs z the shifted map
is therefore

    z (a W + X^T D) + b'  =  a z W + (z X^T) D + b'

and every sample of a batch can have a shift of its own without weights of its own: the
factors X and D hold it. The table of embeddings is such a map of one-hot rows; gains,
biases and positions are small and materialized. How the gradient is taken and where it
leads is `nn.low_rank`'s.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
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

# Collections of variables beside "params", by module as these: the shift (given), what
# is added to the outputs of a map (given), and what its inputs were (recorded).
FACTORS, TAPS, SEEN = "shift_factors", "taps", "seen"
_UNROLLED = 12  # layers; more take long to compile


@dataclasses.dataclass(frozen=True)
class Paths:
    """Names in a network's parameter paths that a shift depends on.

    The defaults are those of `nn.backbone`.

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
        """Path of the module whose inputs are those of the map at `path`."""
        *parents, name = module_of(path).split("/")
        other = "/".join((*parents, dict(self.shared).get(name, name)))
        return other if f"{other}/kernel" in params else module_of(path)


@flax.struct.dataclass
class Shift:
    """The shifted parameters of one sample.

    Attributes:
      materialized: path -> the shifted parameter, an array of its own.
      factored: paths of the parameters whose shift is kept as factors.
      factors: path -> "scale" a, "keys" X (ids, for the table) and "values" D of
        a W + X^T D; without the first where it is 1, without the others where no
        gradient arrived. Reading the shift is linear attention: queries z, keys X,
        values D.
      paths: of the network.
    """

    materialized: dict[str, jax.Array]
    factored: tuple[str, ...] = flax.struct.field(pytree_node=False)
    factors: dict[str, dict[str, jax.Array]]
    paths: Paths = flax.struct.field(pytree_node=False, default=Paths())

    def variables(self, params: Params) -> dict[str, Any]:
        """Variables for `apply`: the parameters with those that are materialized, and
        the factors."""
        merged = trees.merge(trees.flatten(params), self.materialized)
        return {"params": merged, FACTORS: by_module(self.factors, "factors")}

    def scaled(self, params: Params, factor) -> Shift:
        """The shift cut to `factor` of its length, measured from the parameters."""
        flat = trees.flatten(params)
        materialized = {
            p: (flat[p] + factor * (x - flat[p])).astype(x.dtype)
            for p, x in self.materialized.items()
        }
        factors = {p: dict(own) for p, own in self.factors.items()}
        for own in factors.values():
            if "scale" in own:
                own["scale"] = 1 + factor * (own["scale"] - 1)
            if "values" in own:
                own["values"] = factor * own["values"]
        return self.replace(materialized=materialized, factors=factors)


def apply(module: nn.Module, variables: dict[str, Any], *args, **kwargs):
    """The result of `module.apply` with the shift that `variables` hold."""
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
    """Result of a method of the layers [start, stop), and the inputs of their maps.

    Args:
      module: the whole network.
      variables: `Shift.variables`.
      start, stop, method, args, kwargs: see `nn.low_rank.Run`.
      taps: path -> what is added to the outputs of a map.

    Returns:
      (result, {"seen/<module>/inputs": what a linear map or the table was given,
      "seen/<module>/attended": what logits by the table were of}).
    """
    part, _ = backbone.some_layers(module, {}, start, stop)
    share = {
        c: backbone.share_of_layers(tree, start, stop) for c, tree in variables.items()
    }
    share[TAPS] = by_module(taps or {}, "tap")
    result, seen = apply(part, share, *args, method=method, mutable=[SEEN], **kwargs)
    return result, trees.flatten(seen)


def unrolled(module):
    """The model with no loop over its layers, unless they are many.

    A loop stacks its inputs and outputs, which takes as long as a forward pass on a
    CPU. Nor is anything computed twice: one sequence has few activations.
    """
    transformer = module.config.transformer
    depth = transformer.num_layers
    unroll = depth if depth <= _UNROLLED else transformer.unroll
    # Rematerialising saves memory that one sequence does not need.
    transformer = dataclasses.replace(transformer, remat="none", unroll=unroll)
    config = dataclasses.replace(module.config, transformer=transformer)
    return module.clone(config=config)


def begin(
    params: Params, pattern: str, low_rank: bool, paths: Paths = Paths()
) -> Shift:
    """A shift of length 0 of the parameters that a regex, the update set, chooses.

    Args:
      params: of the network.
      pattern: searched in their paths.
      low_rank: whether the shifts of linear maps are kept as factors.
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
    factored = [
        p for p in chosen if low_rank and (p.endswith("/kernel") or p == paths.table)
    ]
    materialized = {p: flat[p] for p in chosen if p not in factored}
    return Shift(materialized, tuple(factored), {}, paths)


def module_of(path: str) -> str:
    """Path of the module that a parameter belongs to."""
    return path.rsplit("/", 1)[0]


def by_module(by_path: dict[str, Any], name: str) -> dict[str, Any]:
    """A collection of variables: each value by `name` in the module of its path."""
    return trees.unflatten({f"{module_of(p)}/{name}": x for p, x in by_path.items()})


def inner_products(x: jax.Array, keys: jax.Array) -> jax.Array:
    """Inner products of the rows of x and of the keys, float32 [...,q,k].

    Ids stand for one-hot rows, whose product is 1 where they are equal.
    """
    if jnp.issubdtype(keys.dtype, jnp.integer):
        return (x[..., :, None] == keys[..., None, :]).astype(jnp.float32)
    return jnp.einsum("...qd,...kd->...qk", x, keys, preferred_element_type=jnp.float32)


def _intercept(next_function, args, kwargs, context):
    """Output of a method of any submodule; linear maps and the table heed their shift.

    They also record their inputs, where the collection SEEN is mutable.
    """
    module, name = context.module, context.method_name
    is_table = isinstance(module, JointEmbedding)
    if not (is_table or isinstance(module, nn.Dense)) or name not in (
        "__call__",
        "attend",
    ):
        return next_function(*args, **kwargs)
    variables = module.variables
    own, tap = (
        variables.get(c, {}).get(n) for c, n in ((FACTORS, "factors"), (TAPS, "tap"))
    )
    x, *others = args
    if module.is_mutable_collection(SEEN):
        what = "attended" if name == "attend" else "inputs"
        if what == "inputs" and module.has_variable(SEEN, what):
            raise ValueError(f"{module.name} is used twice in one part of the network")
        # What is recorded under one name would be overwritten by a second use, and its
        # gradient would be lost: hence the check.
        module.put_variable(SEEN, what, x)
    if not own and tap is None:
        return next_function(*args, **kwargs)
    own = own or {}
    if name == "attend":
        return _attend(next_function, own if module.tied else {}, *args, **kwargs)
    scaled, change = x, 0.0
    if "scale" in own and is_table:
        # The inputs are ids and cannot be scaled; what is looked up can.
        change = (own["scale"] - 1) * jnp.take(module.embedding, x, axis=0)
    elif "scale" in own:
        scaled = (own["scale"] * x).astype(x.dtype)
    y = next_function(scaled, *others, **kwargs)
    if "values" in own:
        change += inner_products(x, own["keys"]) @ own["values"]
    if tap is not None:
        change += tap
    # The table multiplies after the look-up, hence what is added as well.
    factor = module.multiplier if is_table else 1.0
    return (y + factor * change).astype(y.dtype)


def _attend(next_function, own, x, start=0, stop=None):
    """Tied logits of the shifted table: x (a E + X^T D)^T, X one-hot rows of ids."""
    scaled = (own["scale"] * x).astype(x.dtype) if "scale" in own else x
    logits = next_function(scaled, start, stop)
    if "values" not in own:
        return logits
    added = jnp.einsum(
        "...d,kd->...k", x, own["values"][0], preferred_element_type=jnp.float32
    )
    # Ids before `start` or from `stop` on fall away.
    ids = own["keys"][0] - start
    ids = jnp.where(ids < 0, logits.shape[-1], ids)
    return logits.at[..., ids].add(added, mode="drop")
