"""Perception as queries: a decoder that reads an encoder's maps (SPEC C.3, C.4).

Every task has queries of its own; all else is shared. A layer is cross-attention,
self-attention and feed-forward, each followed by the norm of its sum. Tasks do not see
one another: what one answers does not depend on which others are asked.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from gptface_jax.nn import transformer as nn_transformer
from gptface_jax.nn.transformer import TransformerConfig

_PERIOD = 10_000.0  # longest wave of the sine code


@dataclasses.dataclass(frozen=True)
class QueryDecoderConfig:
    """Sizes; the defaults are Faceptor's.

    Attributes:
      width, layers, heads, mlp_width: of the decoder.
      levels: layers of the encoder, from 0 on, whose maps are read in both stages.
      new_levels: those that stage 2 adds (Layer-Attention); () for a model of stage 1.
      unroll: layers per step of the loop over them.
      dtype: of the activations.
    """

    width: int = 256
    layers: int = 9
    heads: int = 8
    mlp_width: int = 2048
    levels: tuple[int, ...] = (11,)
    new_levels: tuple[int, ...] = ()
    unroll: int = 1
    dtype: str = "float32"

    @property
    def transformer(self) -> TransformerConfig:
        """The same sizes, for the parts that a decoder shares with other networks."""
        return TransformerConfig(
            num_layers=self.layers,
            width=self.width,
            num_heads=self.heads,
            mlp_width=self.mlp_width,
            feed_forward="dense",
            gate="relu",
            init="fan_in_all",
            norm_position="post",
            norm_eps=1e-5,
            remat="none",
            dtype=self.dtype,
        )

    def read(self, stage: int) -> tuple[int, ...]:
        """Layers of the encoder that a stage reads, in the order of the memory.

        Raises:
          ValueError: a stage that there is not, or stage 2 of a model without it.
        """
        if stage not in (1, 2):
            raise ValueError(f"stage is {stage}; use 1 or 2")
        if stage == 2 and not self.new_levels:
            raise ValueError("the model has no levels of stage 2; use stage 1")
        return self.levels if stage == 1 else self.levels + self.new_levels


def sine_positions(grid: tuple[int, int], width: int) -> np.ndarray:
    """Two-dimensional sine code float32 [h,w,D] of the centres of a grid's cells.

    The first half of the channels codes y, the other x; channels 2k and 2k+1 of a half
    of n are sine and cosine of 2 pi (i + 0.5) / size / 10000^(2k/n).
    """
    half = width // 2
    frequency = _PERIOD ** (-2.0 * (np.arange(half) // 2) / half)

    def code(size):
        turns = 2 * np.pi * (np.arange(size) + 0.5) / size
        angle = turns[:, None] * frequency  # [size,half]
        return np.where(np.arange(half) % 2, np.cos(angle), np.sin(angle))

    y, x = (code(size) for size in grid)
    rows = np.broadcast_to(y[:, None], (*grid, half))
    columns = np.broadcast_to(x, (*grid, half))
    return np.concatenate([rows, columns], -1).astype(np.float32)


class TaskQueries(nn.Module):
    """Queries of a task: content and positions, [Q,D] each."""

    queries: int
    width: int

    @nn.compact
    def __call__(self) -> tuple[jax.Array, jax.Array]:
        boxed, shape = nn.with_logical_partitioning, (self.queries, self.width)
        axes = ("queries", "embed")
        content = self.param("content", boxed(nn.initializers.normal(1.0), axes), shape)
        uniform = nn.initializers.uniform(1.0)
        return content, self.param("position", boxed(uniform, axes), shape)


class DecoderLayer(nn.Module):
    """One layer, for the states of several tasks that do not see one another.

    With the collection "trace" mutable, states after each part are kept in it, by task.
    """

    config: TransformerConfig

    @nn.compact
    def __call__(
        self,
        states: Mapping[str, jax.Array],
        positions: Mapping[str, jax.Array],
        keys: Mapping[str, jax.Array],
        values: Mapping[str, jax.Array],
        mask: jax.Array,
    ):
        c = self.config
        cross = nn_transformer.Attention(c, name="cross_attention")
        own = nn_transformer.Attention(c, name="self_attention")
        feed_forward = nn_transformer.DenseFeedForward(c, name="mlp")
        norms = [
            nn_transformer.layer_norm(c, f"{name}_norm")
            for name in ("cross", "self", "mlp")
        ]
        new = {}
        for task, x in states.items():
            position = positions[task].astype(x.dtype)
            # Of tasks that read one memory the compiler projects it once.
            read = cross(x + position, mask, keys[task], values[task])
            a = norms[0](x + read)
            placed = a + position
            everything = jnp.ones((1, 1, 1, a.shape[1]), bool)
            b = norms[1](a + own(placed, everything, placed, a))
            new[task] = norms[2](b + feed_forward(b))
            self.sow("trace", task, jnp.stack([a, b, new[task]]))
        return new, None


class QueryDecoder(nn.Module):
    """Maps of an encoder and the names of tasks to the states of their queries.

    Attributes:
      config: sizes.
      tasks: (name, number of queries) of every task that has some.
    """

    config: QueryDecoderConfig
    tasks: tuple[tuple[str, int], ...]

    def setup(self):
        c = self.config
        self.queries = {name: TaskQueries(n, c.width) for name, n in self.tasks}
        dense = nn_transformer.dense
        plain, t = ("embed", "embed_out"), c.transformer
        self.position_in = dense(t, c.width, plain, "position_in")
        self.position_out = dense(t, c.width, plain, "position_out")
        self.project = [_projection(c) for _ in c.levels]
        self.level = _level_table(self, "level", len(c.levels), c.width)
        if c.new_levels:
            self.new_project = [_projection(c) for _ in c.new_levels]
            self.new_level = _level_table(self, "new_level", len(c.new_levels), c.width)
        self.layers = nn.scan(
            DecoderLayer,
            variable_axes={True: 0},
            split_rngs={"params": True},
            in_axes=nn.broadcast,
            length=c.layers,
            unroll=min(c.unroll, c.layers),
            metadata_params={nn.PARTITION_NAME: "layers"},
        )(c.transformer)

    def grid_positions(self, grid: tuple[int, int]) -> jax.Array:
        """Learned code [h,w,D] of the places of a grid, the same for all levels."""
        code = jnp.asarray(sine_positions(grid, self.config.width))
        return self.position_out(jax.nn.relu(self.position_in(code)))

    def projected(self, maps: Sequence[jax.Array]) -> list[jax.Array]:
        """Maps [B,h,w,width] of a stage's levels, in the order of `config.read`."""
        layers = [*self.project, *(self.new_project if self.config.new_levels else ())]
        return [layer(x) for layer, x in zip(layers, maps)]

    def memory(self, projected: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Keys and values [B,K,width] of projected maps: all levels, one after another.

        Which level a query reads is decided by its attention: each level has an
        embedding of its own in the keys, and none in the values.
        """
        tables = [self.level, *([self.new_level] if self.config.new_levels else [])]
        levels = jnp.concatenate(tables)
        grid = projected[0].shape[1:3]
        position = self.grid_positions(grid)
        flat = lambda x: x.reshape(len(x), -1, x.shape[-1])  # noqa: E731
        keys = [flat(x + position + level) for x, level in zip(projected, levels)]
        return jnp.concatenate(keys, 1), jnp.concatenate([*map(flat, projected)], 1)

    def __call__(
        self,
        tasks: Sequence[str],
        projected: Sequence[jax.Array],
        mask: jax.Array | None = None,
        rows: Mapping[str, slice] | None = None,
    ) -> dict[str, jax.Array]:
        """States [B,Q,D] of the tasks' queries after the last layer, by task.

        Args:
          tasks: names.
          projected: see `projected`.
          mask: bool, broadcastable to [B,heads,Q,K], keys that may be read.
          rows: of the maps, those that a task reads; default all.
        """
        keys, values = self.memory(projected)
        if mask is None:
            mask = jnp.ones((1, 1, 1, keys.shape[1]), bool)
        parts = [rows[task] if rows else slice(None) for task in tasks]
        own_keys = {task: keys[part] for task, part in zip(tasks, parts)}
        own_values = {task: values[part] for task, part in zip(tasks, parts)}
        states, positions = {}, {}
        for task in tasks:
            content, position = self.queries[task]()
            shape = (len(own_keys[task]), *content.shape)
            states[task] = jnp.broadcast_to(content, shape).astype(keys.dtype)
            positions[task] = position
        return self.layers(states, positions, own_keys, own_values, mask)[0]


def _projection(config: QueryDecoderConfig) -> nn.Module:
    """A layer's map to the decoder's width; PyTorch's Kaiming start with a = 1."""
    return nn.Dense(
        config.width,
        dtype=config.dtype,
        kernel_init=nn.with_logical_partitioning(
            nn.initializers.variance_scaling(1.0, "fan_in", "uniform"),
            ("embed", "embed_out"),
        ),
        bias_init=nn.with_logical_partitioning(nn.initializers.zeros, ("embed_out",)),
    )


def _level_table(module: nn.Module, name: str, rows: int, width: int) -> jax.Array:
    init = nn.with_logical_partitioning(nn.initializers.normal(1.0), (None, "embed"))
    return module.param(name, init, (rows, width))


class PatchUpsample(nn.Module):
    """Every cell to 2 x 2 cells of as many channels: PyTorch's ConvTranspose2d(2, 2).

    Cells do not overlap, so that it is one matrix product.
    """

    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """[B,H,W,C] -> [B,2H,2W,C]."""
        b, h, w, width = x.shape
        # PyTorch's start: uniform in +-1/sqrt(fan in), its fan in being out x kh x kw.
        init = nn.initializers.variance_scaling(
            1 / 12, "fan_in", "uniform", in_axis=-1, out_axis=-2
        )
        boxed = nn.with_logical_partitioning
        axes = (None, None, "embed", "embed_out")
        kernel = self.param("kernel", boxed(init, axes), (2, 2, width, width))
        zeros = boxed(nn.initializers.zeros, ("embed_out",))
        bias = self.param("bias", zeros, (width,))
        x, kernel = x.astype(self.dtype), kernel.astype(self.dtype)
        y = jnp.einsum("bhwc,ijcd->bhiwjd", x, kernel)
        return y.reshape(b, 2 * h, 2 * w, width) + bias.astype(self.dtype)


class ValueInterpreter(nn.Module):
    """A number for each query: [B,Q,D] -> logits float32 [B,Q]."""

    dtype: str = "float32"

    @nn.compact
    def __call__(self, states: jax.Array) -> jax.Array:
        init = nn.with_logical_partitioning(
            nn.initializers.lecun_normal(), ("embed", None)
        )
        layer = nn.Dense(1, dtype=self.dtype, kernel_init=init, name="output")
        return layer(states)[..., 0].astype(jnp.float32)


class MapInterpreter(nn.Module):
    """A map for each query: what the pixels and the query have in common."""

    config: TransformerConfig

    def setup(self):
        c = self.config
        self.upsample_0 = PatchUpsample(c.dtype)
        norm = dataclasses.replace(c, norm_eps=1e-6)
        self.norm = nn_transformer.layer_norm(norm, "norm")
        self.upsample_1 = PatchUpsample(c.dtype)
        self.embed = [
            nn_transformer.dense(c, c.width, ("embed", "embed_out"), None)
            for _ in range(3)
        ]

    def pixels(self, source: jax.Array) -> jax.Array:
        """Features [B,4h,4w,D] of pixels, of a projected map [B,h,w,D]."""
        x = self.norm(self.upsample_0(source))
        return self.upsample_1(jax.nn.gelu(x, approximate=False))

    def __call__(self, states: jax.Array, pixels: jax.Array) -> jax.Array:
        """Logits float32 [B,4h,4w,Q] of states [B,Q,D] and of `pixels`."""
        x = states
        for layer in self.embed[:2]:
            x = jax.nn.relu(layer(x))
        x = self.embed[2](x)
        return jnp.einsum("bqd,bhwd->bhwq", x, pixels).astype(jnp.float32)
