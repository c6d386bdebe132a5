"""Heads that read an encoder's maps without queries (SPEC C.4, C.7).

`IdentityHead` is Faceptor's as well; `AttributeHead` and `DenseHead` are those of the
naive design, one for each family of tasks.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
from flax import linen as nn

from gptface_jax.nn import conv as nn_conv
from gptface_jax.nn.batch_norm import BatchNorm
from gptface_jax.nn.query_decoder import PatchUpsample
from gptface_jax.ops import resampling

_HEAD_EPSILON = 2e-5  # of batch norms outside the dense head
_DROPOUT = 0.5
_REDUCTION = 16  # of the channel gate
_POOLED = (1, 2, 3, 6)  # bins a side that the dense head pools to


def _dense(features: int, name: str, dtype: str, bias: bool = True) -> nn.Dense:
    init = nn.with_logical_partitioning(
        nn.initializers.lecun_normal(), ("embed", "embed_out")
    )
    zeros = nn.with_logical_partitioning(nn.initializers.zeros, ("embed_out",))
    return nn.Dense(
        features, use_bias=bias, dtype=dtype, kernel_init=init, bias_init=zeros,
        name=name,
    )  # fmt: skip


_norm = functools.partial(BatchNorm, epsilon=_HEAD_EPSILON, counted=True)


class IdentityHead(nn.Module):
    """A vector for each face: [B,h,w,D] -> float32 [B,embedding_width]."""

    embedding_width: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        boxed = nn.with_logical_partitioning
        norm = nn.LayerNorm(
            epsilon=1e-5,
            scale_init=boxed(nn.initializers.ones, ("embed",)),
            bias_init=boxed(nn.initializers.zeros, ("embed",)),
            name="norm",
        )
        width = x.shape[-1]
        x = jnp.mean(norm(x.astype(jnp.float32)), (1, 2))  # [B,D]
        x = _dense(width, "dense_0", self.dtype, bias=False)(x)
        x = _norm(name="batch_norm_0")(x, train)
        x = _dense(self.embedding_width, "dense_1", self.dtype, bias=False)(x)
        return _norm(name="batch_norm_1")(x, train).astype(jnp.float32)


class AttributeHead(nn.Module):
    """Numbers for each data set of a family, of maps of four layers.

    Attributes:
      width: channels of all maps together, and of the features.
      tasks: (name, numbers) of each data set.
    """

    width: int
    tasks: tuple[tuple[str, int], ...]
    dtype: str = "float32"

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], train: bool) -> dict[str, jax.Array]:
        """{task: logits float32 [B,Q]} of maps [B,h,w,D]; "dropout" rng if `train`."""
        part = self.width // len(maps)
        convs = [
            nn_conv.conv(part, 3, f"conv_{i}", self.dtype, bias=False)(x)
            for i, x in enumerate(maps)
        ]
        x = jnp.concatenate(convs, -1)  # [B,h,w,width]
        x = jax.nn.relu(x * self._gate(x))
        x = _norm(name="norm", dtype=self.dtype)(jnp.max(x, (1, 2)), train)
        for i in range(2):
            x = jax.nn.relu(_dense(self.width, f"dense_{i}", self.dtype)(x))
            x = nn.Dropout(_DROPOUT, deterministic=not train)(x)
        return {
            name: _dense(n, f"output_{name}", self.dtype)(x).astype(jnp.float32)
            for name, n in self.tasks
        }

    def _gate(self, x):
        """How much of each channel passes, [B,1,1,width]."""
        narrow = _dense(self.width // _REDUCTION, "gate_in", self.dtype)
        wide = _dense(self.width, "gate_out", self.dtype)
        pooled = jnp.stack([jnp.mean(x, (1, 2)), jnp.max(x, (1, 2))])
        total = jnp.sum(wide(jax.nn.relu(narrow(pooled))), 0)
        return jax.nn.sigmoid(total)[:, None, None]


class ConvNorm(nn.Module):
    """A convolution without bias, a batch norm and ReLU."""

    features: int
    size: int
    dtype: str = "float32"

    @nn.compact
    def __call__(self, x: jax.Array, train: bool) -> jax.Array:
        x = nn_conv.conv(self.features, self.size, "conv", self.dtype, bias=False)(x)
        return jax.nn.relu(BatchNorm(self.dtype, counted=True, name="norm")(x, train))


class DenseHead(nn.Module):
    """Maps for the data sets of a family: a pyramid, UPerNet and one output layer.

    Xiao et al. 2018, as in mmsegmentation 1.2.2: the maps of four layers are brought to
    4, 2, 1 and 1/2 times their size, the coarsest also sees means of the whole picture,
    and each finer one receives the coarser.

    Attributes:
      width: channels of the pyramid.
      tasks: (name, number of maps) of each data set.
    """

    width: int
    tasks: tuple[tuple[str, int], ...]
    dtype: str = "float32"
    dropout: float = 0.1

    @nn.compact
    def __call__(self, maps: Sequence[jax.Array], train: bool) -> Mapping:
        """{task: logits float32 [B,4h,4w,Q]} of maps [B,h,w,D], finest first."""
        part = lambda size, name: ConvNorm(self.width, size, self.dtype, name=name)  # noqa: E731
        *fine, coarse = self._pyramid(maps, train)
        levels = [part(1, f"lateral_{i}")(x, train) for i, x in enumerate(fine)]
        pooled = [coarse]
        for i, bins in enumerate(_POOLED):
            x = resampling.adaptive_mean(coarse, (bins, bins))
            x = part(1, f"pooled_{i}")(x, train)
            pooled.append(resampling.resize(x, coarse.shape[1:3]))
        levels.append(part(3, "bottleneck")(jnp.concatenate(pooled, -1), train))
        for i in range(len(levels) - 1, 0, -1):
            above = resampling.resize(levels[i], levels[i - 1].shape[1:3])
            levels[i - 1] = levels[i - 1] + above
        smooth = [part(3, f"smooth_{i}")(x, train) for i, x in enumerate(levels[:-1])]
        size = smooth[0].shape[1:3]
        joined = [resampling.resize(x, size) for x in (*smooth, levels[-1])]
        x = part(3, "fused")(jnp.concatenate(joined, -1), train)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        total = sum(n for _, n in self.tasks)
        x = _dense(total, "output", self.dtype)(x).astype(jnp.float32)
        result, start = {}, 0
        for name, n in self.tasks:
            result[name] = x[..., start : start + n]
            start += n
        return result

    def _pyramid(self, maps, train):
        up = functools.partial(PatchUpsample, self.dtype)
        x = up(name="upsample_0")(maps[0])
        x = BatchNorm(self.dtype, counted=True, name="upsample_norm")(x, train)
        x = jax.nn.gelu(x, approximate=False)
        halved = nn.max_pool(maps[3], (2, 2), (2, 2))
        return [
            up(name="upsample_1")(x),
            up(name="upsample_2")(maps[1]),
            maps[2],
            halved,
        ]
