"""Transformer layers: pre-LN, gated by default (SPEC A.4, equations 1-2; B.6).

    x_hat = x + Attention(LN(x))
    x     = x_hat + GLU(LN(x_hat)),   GLU(x) = W2(act(Wg x + bg) * (W1 x + b1)) + b2

or dense, W2(act(W1 x + b1)) + b2, and with the norms after the sums (post-LN):
x_hat = LN(x + Attention(x)). What a layer reads may be a memory in place of x.

Layers are scanned, so their parameters carry a leading `layers` axis. Between the
layers the length may be split over devices; inside them it is the heads and the
feed-forward width that may.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from gptface_jax.nn import attention, products

GATES = {
    "gelu": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_exact": functools.partial(jax.nn.gelu, approximate=False),
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
    "quick_gelu": lambda x: x * jax.nn.sigmoid(1.702 * x),
    "relu": jax.nn.relu,
}
# Collections of keys and values, a row a layer: PRESENT is written where it is mutable,
# PAST is read where it is given; see `Attention`.
PRESENT, PAST = "present", "past"
NORMS = ("standard", "unbiased")
NORM_POSITIONS = ("pre", "post")
_DROP_PATH = {  # name -> shape of what is drawn for [B,L,D]
    "sample": lambda shape: (shape[0], 1, 1),
    "position": lambda shape: (1, shape[1], 1),
}

# Name -> what a layer keeps for its backward pass; None keeps everything.
_KEPT = jax.checkpoint_policies
_PAIR = ("key", "value")
REMAT = {
    "none": None,
    # The outputs of all projections: attention and gates are computed again.
    "projections": _KEPT.dots_with_no_batch_dims_saveable,
    # Those of attention only, a third of them: the wide feed-forward is dearest.
    "attention": _KEPT.save_only_these_names("query", "key", "value", "attended"),
    "full": _KEPT.nothing_saveable,
}


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
    """Sizes and variants of the backbone; the defaults are the paper's.

    Attributes:
      num_layers, width, num_heads, mlp_width: sizes; head width is width/heads.
      feed_forward: "gated", or "dense" (two layers), a key of `FEED_FORWARD`.
      gate: activation of the gate branch, or of the dense feed-forward, a key of
        `GATES` (OPEN, SPEC A.4).
      init: "normal" = std 0.02 everywhere; "fan_in" = std 1/sqrt(fan in), with
        residual outputs divided by sqrt(2 * num_layers). At widths below about
        500 the first starts with almost uniform attention. "fan_in_all" divides
        none.
      qk_norm: root-mean-square norm of queries and keys with a learned gain.
      dropout: after attention and feed-forward outputs.
      drop_path: how often the last layer's outputs are left out in training
        (stochastic depth, Huang et al. 2016); linear from 0 at the first.
      drop_path_by: "sample", or "position" of the whole batch, as Faceptor's released
        code has it (SPEC C.2).
      remat: what of a layer is computed again in the backward pass, a key of
        `REMAT`: "none" (fastest, most memory) to "full" (keeps the layers' inputs).
      unroll: layers per step of the scan's loop; num_layers removes the loop.
      attention: kernel, see `nn.attention.attend`; "linear" is another function, whose
        cost grows with the length and not its square.
      norm: "standard", or "unbiased" as TencentPretrain has it, see `UnbiasedNorm`.
      norm_position: "pre", or "post" with no norm at the end.
      norm_eps: of every LayerNorm.
      dtype: of the activations; parameters and norms stay float32.
      matmul_dtype: "bfloat16" rounds the operands of products with weights to it and
        sums up in float32, as TPUs do by default; activations keep `dtype`. On CPUs
        with AVX512-BF16 or AMX a training step takes a fifth to a quarter
        less time. See `nn.products`.
    """

    num_layers: int = 12
    width: int = 768
    num_heads: int = 12
    mlp_width: int = 3072
    feed_forward: str = "gated"
    gate: str = "gelu"
    init: str = "normal"
    qk_norm: bool = False
    dropout: float = 0.0
    drop_path: float = 0.0
    drop_path_by: str = "sample"
    remat: str = "full"
    unroll: int = 1
    attention: str = "auto"
    norm: str = "standard"
    norm_position: str = "pre"
    norm_eps: float = 1e-6
    dtype: str = "float32"
    matmul_dtype: str = "float32"

    def __post_init__(self):
        if self.width % self.num_heads:
            raise ValueError(
                f"width {self.width} is not divisible by num_heads {self.num_heads}"
            )
        for name, choices in (
            ("feed_forward", FEED_FORWARD),
            ("gate", GATES),
            ("init", ("normal", "fan_in", "fan_in_all")),
            ("drop_path_by", _DROP_PATH),
            ("remat", REMAT),
            ("attention", attention.IMPLEMENTATIONS),
            ("norm", NORMS),
            ("norm_position", NORM_POSITIONS),
            ("matmul_dtype", products.MATMUL_DTYPES),
        ):
            if (value := getattr(self, name)) not in choices:
                raise ValueError(f"{name} {value!r} is none of {', '.join(choices)}")


def on_any_device(config: TransformerConfig) -> TransformerConfig:
    """The config for work on other devices and lengths than a model was trained on.

    Kernels that may be missing there become "auto": it is the same function.
    """
    if config.attention not in attention.PARTICULAR:
        return config
    return dataclasses.replace(config, attention="auto")


def dense(config: TransformerConfig, features, axes, name, residual=False):
    """A Dense layer with logical axes and the configured initialisation."""
    if config.init == "normal":
        init = nn.initializers.normal(0.02)
    else:
        smaller = residual and config.init == "fan_in"
        scale = 1.0 / (2 * config.num_layers) if smaller else 1.0
        init = nn.initializers.variance_scaling(scale, "fan_in", "normal")
    return nn.Dense(
        features,
        dtype=config.dtype,
        kernel_init=nn.with_logical_partitioning(init, axes),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, (axes[-1],)),
        dot_general=functools.partial(
            products.dense_product, axes, config.matmul_dtype
        ),
        name=name,
    )


def layer_norm(config: TransformerConfig, name: str) -> nn.Module:
    """LayerNorm over D in float32, result in the activation dtype."""
    kind = {"standard": nn.LayerNorm, "unbiased": UnbiasedNorm}[config.norm]
    return kind(
        epsilon=config.norm_eps,
        dtype=config.dtype,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("embed",)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("embed",)),
        name=name,
    )


class UnbiasedNorm(nn.Module):
    """Annotated layer norm: scale * (x - mean) / (std + epsilon) + bias (SPEC B.6)."""

    epsilon: float
    dtype: jnp.dtype
    scale_init: nn.initializers.Initializer
    bias_init: nn.initializers.Initializer

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width = x.shape[-1]
        scale = self.param("scale", self.scale_init, (width,))
        bias = self.param("bias", self.bias_init, (width,))
        x = x.astype(jnp.float32)
        # In two passes: E[x^2] - E[x]^2 loses its digits where the mean is large.
        centred = x - jnp.mean(x, -1, keepdims=True)
        variance = jnp.sum(centred**2, -1, keepdims=True) / (width - 1)
        # The slope of a root at 0 would be infinite.
        std = jnp.sqrt(jnp.maximum(variance, 1e-30))
        return (scale * centred / (std + self.epsilon) + bias).astype(self.dtype)


class Attention(nn.Module):
    """Multi-head attention over all positions that the mask allows.

    With the collection PRESENT mutable, queries, keys and values of x are kept in it,
    "query", "key" and "value" [B,N,L,H]. With the collection PAST, keys and values of
    earlier positions, the positions of x read these and one another. Where it has
    "own_key" and "own_value" [B*N*Q,T,H] as well, x is one position of each of Q
    samples, that number "step" of T; it is written there, read from there with what
    was written before, and PRESENT holds them too. The mask is that of
    `nn.attention.attend_past`.
    """

    config: TransformerConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        attn_mask: jax.Array,
        memory: jax.Array | None = None,
        values: jax.Array | None = None,
    ) -> jax.Array:
        """Attention output [B,Q,D]: what every position of x reads from the memory.

        Args:
          x: [B,Q,D], the queries.
          attn_mask: bool, broadcastable to [B,N,Q,K], True = may attend.
          memory: [B,K,D] that keys and values are made of; default x.
          values: [B,K,D] that values are made of; default the memory.

        Returns:
          [B,Q,D].
        """
        c = self.config
        head = (c.num_heads, c.width // c.num_heads)
        kernel = c.attention
        if memory is not None and kernel != "linear":  # another function, no kernel
            kernel = "auto"  # some kernels want Q = K
        memory = x if memory is None else memory
        values = memory if values is None else values
        inputs = {"query": x, "key": memory, "value": values}
        query, key, value = (
            nn.with_logical_constraint(
                checkpoint_name(
                    dense(c, c.width, ("embed", "heads"), name)(y).reshape(
                        *y.shape[:2], *head
                    ),
                    name,
                ),
                ("batch", None, "heads", "head_dim"),
            )  # [B,L,N,H]
            for name, y in inputs.items()
        )
        if c.qk_norm:
            query, key = (
                nn.RMSNorm(
                    dtype=c.dtype,
                    scale_init=nn.with_logical_partitioning(
                        nn.initializers.ones, ("head_dim",)
                    ),
                    name=name,
                )(array)
                for name, array in (("query_norm", query), ("key_norm", key))
            )
        present = {
            name: array.swapaxes(1, 2)
            for name, array in (("query", query), ("key", key), ("value", value))
        }
        if self.has_variable(PAST, "key"):
            past = self.variables[PAST]
            own = tuple(present[name] for name in _PAIR)
            if "own_key" in past:
                own = tuple(
                    # Before it is read, and in the shape in which it is read, so
                    # that it can be written in place.
                    jax.lax.dynamic_update_index_in_dim(
                        past[f"own_{name}"],
                        array.reshape(-1, 1, array.shape[-1]),
                        past["step"],
                        1,
                    )
                    for name, array in zip(_PAIR, own)
                )
                present |= {f"own_{n}": array for n, array in zip(_PAIR, own)}
            cached = tuple(past[name] for name in _PAIR)
            out = attention.attend_past(query, attn_mask, cached, own)
        else:
            heads_split = products.is_split("heads")
            out = attention.attend(query, key, value, attn_mask, kernel, heads_split)
        if self.is_mutable_collection(PRESENT) and not self.is_initializing():
            for name, array in present.items():
                self.put_variable(PRESENT, name, array)
        out = checkpoint_name(out.reshape(*out.shape[:2], c.width), "attended")
        out = dense(c, c.width, ("heads", "embed"), "out", residual=True)(out)
        return nn.with_logical_constraint(out, ("batch", None, "embed_act"))


class GatedFeedForward(nn.Module):
    """W2(act(Wg x) * (W1 x)), all with biases."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        gate = GATES[c.gate](dense(c, c.mlp_width, ("embed", "mlp"), "gate")(x))
        up = dense(c, c.mlp_width, ("embed", "mlp"), "up")(x)
        x = nn.with_logical_constraint(gate * up, ("batch", None, "mlp"))
        x = dense(c, c.width, ("mlp", "embed"), "down", residual=True)(x)
        return nn.with_logical_constraint(x, ("batch", None, "embed_act"))


class DenseFeedForward(nn.Module):
    """W2(act(W1 x)), both with biases."""

    config: TransformerConfig

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        c = self.config
        x = GATES[c.gate](dense(c, c.mlp_width, ("embed", "mlp"), "up")(x))
        x = nn.with_logical_constraint(x, ("batch", None, "mlp"))
        x = dense(c, c.width, ("mlp", "embed"), "down", residual=True)(x)
        return nn.with_logical_constraint(x, ("batch", None, "embed_act"))


FEED_FORWARD = {"gated": GatedFeedForward, "dense": DenseFeedForward}


class Block(nn.Module):
    """One layer; returns (x, x if `collect`, else None) as `nn.scan` wants it.

    With a memory x reads that and not itself; the parameters are the same. A layer
    whose x are some positions of the memory computes these positions only.
    """

    config: TransformerConfig
    deterministic: bool = True
    collect: bool = False

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        attn_mask: jax.Array,
        memory: jax.Array | None = None,
        drop_path: jax.Array | None = None,
    ):
        c = self.config
        dropout = nn.Dropout(c.dropout, deterministic=self.deterministic)

        def drop(x):
            x = dropout(x)
            if drop_path is None:
                return x
            shape = _DROP_PATH[c.drop_path_by](x.shape)
            kept = jax.random.bernoulli(self.make_rng("dropout"), 1 - drop_path, shape)
            return jnp.where(kept, x / (1 - drop_path), 0).astype(x.dtype)

        norms = [layer_norm(c, f"{name}_norm") for name in ("attention", "mlp")]
        attend = Attention(c, name="attention")
        feed_forward = FEED_FORWARD[c.feed_forward](c, name="mlp")
        if c.norm_position == "pre":
            h = norms[0](x)
            memory = None if memory is None else norms[0](memory)
            x = x + drop(attend(h, attn_mask, memory))
            x = x + drop(feed_forward(norms[1](x)))
        else:
            x = norms[0](x + drop(attend(x, attn_mask, memory)))
            x = norms[1](x + drop(feed_forward(x)))
        length = "length" if memory is None else None  # there may be few queries
        x = nn.with_logical_constraint(x, ("batch", length, "embed_act"))
        return x, x if self.collect else None


class Transformer(nn.Module):
    """The stack and its final LayerNorm (a pre-LN stack needs one)."""

    config: TransformerConfig

    @nn.compact
    def __call__(
        self,
        x: jax.Array,
        attn_mask: jax.Array,
        deterministic: bool = True,
        normalise: bool = True,
        memory: jax.Array | None = None,
        collect: tuple[int, ...] = (),
    ) -> jax.Array | tuple[jax.Array, list[jax.Array]]:
        """Hidden states after all layers.

        Args:
          x: [B,L,D].
          attn_mask: bool [B,1|N,1|Q,K], True = may attend.
          deterministic: no dropout; else a "dropout" rng is needed.
          normalise: False leaves out the final norm.
          memory: [B,K,D] that every layer reads in place of x, normed as x is. Of a
            single layer, the states of all positions: x then is those positions that
            it computes.
          collect: numbers of layers, from 1 on, whose states are wanted too. All
            layers' are kept until the stack is done.

        Returns:
          [B,L,D]; with `collect` also the states [B,L,D] after each of those layers,
          without the final norm.

        Raises:
          ValueError: a layer that there is not.
        """
        c = self.config
        for number in collect:
            if not 1 <= number <= c.num_layers:
                raise ValueError(f"layer {number} of {c.num_layers} is not there")
        block, policy = Block, REMAT[c.remat]
        if policy:
            block = nn.remat(Block, prevent_cse=False, policy=policy)
        stack = nn.scan(
            block,
            variable_axes={True: 0},  # of every collection
            split_rngs={"params": True, "dropout": True},
            # The mask and the memory are the same for all, the rates are not.
            in_axes=(nn.broadcast, nn.broadcast, 0) if c.drop_path else nn.broadcast,
            length=c.num_layers,
            unroll=min(c.unroll, c.num_layers),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        read = (attn_mask,) if memory is None else (attn_mask, memory)
        if c.drop_path:
            rates = jnp.linspace(0.0, c.drop_path, c.num_layers)
            read = attn_mask, memory, None if deterministic else rates
        x, states = stack(c, deterministic, bool(collect), name="layers")(x, *read)
        if normalise and c.norm_position == "pre":
            x = layer_norm(c, "final_norm")(x)
        return (x, [states[number - 1] for number in collect]) if collect else x


def taken_apart(config: TransformerConfig, params: Any) -> list[Any]:
    """The parameters of each layer, and of the final norm where there is one."""
    layers = [
        jax.tree.map(lambda x, i=i: x[i], params["layers"])
        for i in range(config.num_layers)
    ]
    return [*layers, params["final_norm"]] if "final_norm" in params else layers


def past_of(config: TransformerConfig, written: Any) -> list[dict[str, jax.Array]]:
    """Keys and values [B,N,L,H] of each layer, as `run_after_past` reads them.

    Args:
      config: of the layers.
      written: collections that `apply` of a backbone returned with PRESENT mutable.
    """
    present = written[PRESENT]["transformer"]["layers"]["attention"]
    return [
        {name: present[name][i] for name in _PAIR} for i in range(config.num_layers)
    ]


def run_after_past(
    config: TransformerConfig,
    parts: Sequence[Any],
    x: jax.Array,
    attn_mask: jax.Array,
    past: Sequence[Mapping[str, jax.Array]],
) -> tuple[jax.Array, list[Mapping[str, jax.Array]]]:
    """Final states of positions that read earlier ones from a cache.

    Layers run one by one: a loop over stacked layers would copy the weights of each,
    and its cache, at every token.

    Args:
      config: of the layers.
      parts: see `taken_apart`.
      x: [B,Q,D].
      attn_mask: see `nn.attention.attend_past`.
      past: the collection PAST of each layer, see `Attention`.

    Returns:
      ([B,Q,D], the collection PRESENT of each layer).
    """
    block, presents = Block(config), []
    for params, cache in zip(parts, past):
        variables = {"params": params, PAST: {"attention": dict(cache)}}
        (x, _), written = block.apply(variables, x, attn_mask, mutable=[PRESENT])
        presents.append(written[PRESENT]["attention"])
    for params in parts[config.num_layers :]:
        x = layer_norm(config, "final_norm").apply({"params": params}, x)
    return x, presents
