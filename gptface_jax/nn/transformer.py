"""Pre-LN transformer with a gated feed-forward (SPEC A.4, equations 1-2).

    x_hat = x + Attention(LN(x))
    x     = x_hat + GLU(LN(x_hat)),   GLU(x) = W2(act(Wg x + bg) * (W1 x + b1)) + b2

Layers are scanned, so their parameters carry a leading `layers` axis. Between the
layers the length may be split over devices; inside them it is the heads and the
feed-forward width that may.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.ad_checkpoint import checkpoint_name

from gptface_jax.nn import attention

GATES = {
    "gelu": functools.partial(jax.nn.gelu, approximate=True),
    "gelu_exact": functools.partial(jax.nn.gelu, approximate=False),
    "sigmoid": jax.nn.sigmoid,
    "silu": jax.nn.silu,
}

# Name -> what a layer keeps for its backward pass; None keeps everything.
_KEPT = jax.checkpoint_policies
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
      gate: activation of the gate branch, a key of `GATES` (OPEN, SPEC A.4).
      init: "normal" = std 0.02 everywhere; "fan_in" = std 1/sqrt(fan in), with
        residual outputs divided by sqrt(2 * num_layers). At widths below about
        500 the first starts with almost uniform attention.
      qk_norm: root-mean-square norm of queries and keys with a learned gain.
      dropout: after attention and feed-forward outputs.
      remat: what of a layer is computed again in the backward pass, a key of
        `REMAT`: "none" (fastest, most memory) to "full" (keeps the layers' inputs).
      unroll: layers per step of the scan's loop; num_layers removes the loop.
      attention: kernel, see `nn.attention.attend`.
      norm_eps: of every LayerNorm.
      dtype: of the activations; parameters and norms stay float32.
    """

    num_layers: int = 12
    width: int = 768
    num_heads: int = 12
    mlp_width: int = 3072
    gate: str = "gelu"
    init: str = "normal"
    qk_norm: bool = False
    dropout: float = 0.0
    remat: str = "full"
    unroll: int = 1
    attention: str = "auto"
    norm_eps: float = 1e-6
    dtype: str = "float32"

    def __post_init__(self):
        if self.width % self.num_heads:
            raise ValueError(
                f"width {self.width} is not divisible by num_heads {self.num_heads}"
            )
        if self.gate not in GATES:
            raise ValueError(f"gate {self.gate!r} is none of {', '.join(GATES)}")
        if self.init not in ("normal", "fan_in"):
            raise ValueError(f"init {self.init!r} is neither 'normal' nor 'fan_in'")
        if self.remat not in REMAT:
            raise ValueError(f"remat {self.remat!r} is none of {', '.join(REMAT)}")
        if self.attention not in attention.IMPLEMENTATIONS:
            known = ", ".join(attention.IMPLEMENTATIONS)
            raise ValueError(f"attention {self.attention!r} is none of {known}")


def dense(config: TransformerConfig, features, axes, name, residual=False):
    """A Dense layer with logical axes and the configured initialisation."""
    if config.init == "normal":
        init = nn.initializers.normal(0.02)
    else:
        scale = 1.0 / (2 * config.num_layers) if residual else 1.0
        init = nn.initializers.variance_scaling(scale, "fan_in", "normal")
    return nn.Dense(
        features,
        dtype=config.dtype,
        kernel_init=nn.with_logical_partitioning(init, axes),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, (axes[-1],)),
        dot_general=functools.partial(gathered_dot, axes),
        name=name,
    )


def gathered_dot(axes, x, kernel, *args, **kwargs):
    """`lax.dot_general`, on meshes that split "embed" with the kernel gathered first.

    Left to itself the partitioner may move its parts along other mesh axes. The
    backward pass gathers it again: kept, all layers' kernels would be whole at once.
    """
    dot = jax.lax.dot_general
    if not is_split("embed"):
        return dot(x, kernel, *args, **kwargs)
    whole = tuple("embed_act" if name == "embed" else name for name in axes)

    @functools.partial(jax.checkpoint, prevent_cse=False)
    def gather_and_multiply(x, kernel):
        return dot(x, nn.with_logical_constraint(kernel, whole), *args, **kwargs)

    return gather_and_multiply(x, kernel)


def is_split(name: str) -> bool:
    """Whether the mesh and the rules in force split a logical axis."""
    sizes = jax.sharding.get_abstract_mesh().shape
    axes = dict(nn.get_logical_axis_rules()).get(name) or ()
    axes = (axes,) if isinstance(axes, str) else axes
    return any(sizes.get(axis, 1) > 1 for axis in axes)


def layer_norm(config: TransformerConfig, name: str) -> nn.LayerNorm:
    """LayerNorm over D in float32, result in the activation dtype."""
    return nn.LayerNorm(
        epsilon=config.norm_eps,
        dtype=config.dtype,
        scale_init=nn.with_logical_partitioning(nn.initializers.ones, ("embed",)),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("embed",)),
        name=name,
    )


class Attention(nn.Module):
    """Multi-head attention over all positions that the mask allows."""

    config: TransformerConfig

    @nn.compact
    def __call__(
        self, x: jax.Array, attn_mask: jax.Array, rows: int | None = None
    ) -> jax.Array:
        """What the first `rows` positions (default all) read from all of them.

        Args:
          x: [B,L,D].
          attn_mask: bool, broadcastable to [B,N,Q,K], True = may attend.
          rows: R.

        Returns:
          [B,R,D].
        """
        c = self.config
        head = (c.num_heads, c.width // c.num_heads)
        attn_mask = attn_mask[:, :, :rows]
        inputs = {"query": x[:, :rows], "key": x, "value": x}
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
        kernel = c.attention if rows is None else "auto"  # some want Q = K
        out = attention.attend(query, key, value, attn_mask, kernel, is_split("heads"))
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


class Block(nn.Module):
    """One layer; returns (x, None) as `nn.scan` wants it.

    With `rows` it computes the first so many positions only; the others stay as they
    came.
    """

    config: TransformerConfig
    deterministic: bool = True
    rows: int | None = None

    @nn.compact
    def __call__(self, x: jax.Array, attn_mask: jax.Array):
        c = self.config
        drop = nn.Dropout(c.dropout, deterministic=self.deterministic)
        h = layer_norm(c, "attention_norm")(x)
        attended = Attention(c, name="attention")(h, attn_mask, self.rows)
        y = x[:, : self.rows] + drop(attended)
        h = layer_norm(c, "mlp_norm")(y)
        y = y + drop(GatedFeedForward(c, name="mlp")(h))
        x = y if self.rows is None else jnp.concatenate([y, x[:, self.rows :]], 1)
        return nn.with_logical_constraint(x, ("batch", "length", "embed_act")), None


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
        rows: int | None = None,
    ) -> jax.Array:
        """Runs all layers.

        Args:
          x: [B,L,D].
          attn_mask: bool [B,1|N,1|Q,K], True = may attend.
          deterministic: no dropout; else a "dropout" rng is needed.
          normalise: False leaves out the final norm.
          rows: R, of a single layer: the only positions that it computes.

        Returns:
          [B,L,D], or [B,R,D].

        Raises:
          ValueError: `rows` of several layers, each of which needs all of the last.
        """
        c = self.config
        if rows is not None and c.num_layers > 1:
            raise ValueError(f"rows={rows} needs one layer; here are {c.num_layers}")
        block, policy = Block, REMAT[c.remat]
        if policy:
            block = nn.remat(Block, prevent_cse=False, policy=policy)
        stack = nn.scan(
            block,
            variable_axes={True: 0},  # of every collection
            split_rngs={"params": True, "dropout": True},
            in_axes=nn.broadcast,
            length=c.num_layers,
            unroll=min(c.unroll, c.num_layers),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )
        x, _ = stack(c, deterministic, rows, name="layers")(x, attn_mask)
        x = x[:, :rows]
        return layer_norm(c, "final_norm")(x) if normalise else x
