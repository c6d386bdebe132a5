"""Multi-head attention over masked positions, by the kernel that suits the device.

out[q] = sum_k softmax_k(query[q] . key[k] / sqrt(H)) value[k],  k where the mask is
True
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import PartitionSpec

from gptface_jax.nn import platforms
from gptface_jax.nn.each_device import dividing_axes, splits_program

IMPLEMENTATIONS = ("auto", "xla", "folded", "cudnn", "flash", "splash", "linear")

# Those that want certain devices, and lengths or numbers of certain kinds.
PARTICULAR = ("cudnn", "flash", "splash")
_FLASH_BLOCK = 128  # positions; the length must be a multiple
_BLOCKS = (128, 256, 384, 512)  # positions that the kernels of TPUs work on at once
_HEAD_WIDTH = 128  # of the longest head that cuDNN takes


def attend(
    query: jax.Array,
    key: jax.Array,
    value: jax.Array,
    mask: jax.Array,
    implementation: str = "auto",
    heads_split: bool = False,
) -> jax.Array:
    """Attention, the same up to rounding by every implementation but "linear".

    A row of queries that may see nothing gets the mean of all values, or by "cudnn",
    "flash" and "splash" something else that is finite.

    Args:
      query: [B,Q,N,H].
      key, value: [B,K,N,H].
      mask: bool, broadcastable to [B,N,Q,K], True = may attend.
      implementation: "xla"; "folded" (batch and heads as one axis, about twice as fast
        on CPUs); "cudnn" (NVIDIA GPUs, 16-bit numbers); "splash" (TPUs, never holds
        [Q,K]; lengths that 128 divides); "flash" (TPUs, an older kernel that takes
        masks of keys only, [B,1,1,K]); "auto" picks one of these, on TPUs "splash" for
        masks of keys and "xla" for others.
        "linear" is another function, see `linear`.
      heads_split: whether a mesh splits the heads ("folded" would gather them).

    Returns:
      [B,Q,N,H] in the dtype of `value`.

    Raises:
      ValueError: an implementation that does not exist, or cannot do it.
    """
    if implementation == "auto":
        implementation = choose(query, mask, platforms.current(), heads_split)
    if implementation == "xla":
        return jax.nn.dot_product_attention(query, key, value, mask=mask)
    if implementation == "folded":
        return _folded(query, key, value, mask)
    if implementation == "cudnn":
        # cuDNN knows only masks with all queries in them.
        whole = (*mask.shape[:2], query.shape[1], key.shape[1])
        return jax.nn.dot_product_attention(
            query,
            key,
            value,
            mask=jnp.broadcast_to(mask, whole),
            implementation="cudnn",
        )
    others = {"flash": _flash, "splash": _splash, "linear": linear}
    if implementation not in others:
        raise ValueError(
            f"attention {implementation!r} is none of {', '.join(IMPLEMENTATIONS)}"
        )
    return others[implementation](query, key, value, mask)


def linear(
    query: jax.Array, key: jax.Array, value: jax.Array, mask: jax.Array
) -> jax.Array:
    """Attention whose time and memory grow with the length, not its square (SPEC E.3).

    out[q] = phi(query[q]) S / (phi(query[q]) . s),  S = sum_k phi(key[k]) value[k]^T,
    s = sum_k phi(key[k]),  phi(x) = elu(x) + 1; k where the mask is True. Katharopoulos
    et al. 2020, in both directions. Sums are float32.

    Args:
      query, key, value: as of `attend`.
      mask: bool [B,1|N,1,K]: keys that all queries see alike.

    Returns:
      [B,Q,N,H] in the dtype of `value`; 0 where no key may be seen.

    Raises:
      ValueError: a mask that differs between queries.
    """
    if mask.shape[2] != 1:
        raise ValueError(
            f"attention 'linear' sums keys once for all queries, and the mask "
            f"{list(mask.shape)} differs between them: set cross_modal_heads 0, or "
            "another attention for prefixes"
        )
    seen = mask.transpose(0, 3, 1, 2)  # [B,K,1|N,1]
    features, keys = (nn.elu(x.astype(jnp.float32)) + 1 for x in (query, key))
    keys = jnp.where(seen, keys, 0.0)
    sums = jnp.einsum("bknh,bknc->bnhc", keys, value.astype(jnp.float32))
    weight = jnp.einsum("bqnh,bnh->bqn", features, jnp.sum(keys, 1))
    out = jnp.einsum("bqnh,bnhc->bqnc", features, sums)
    return (out / jnp.maximum(weight, 1e-9)[..., None]).astype(value.dtype)


def choose(
    query: jax.Array, mask: jax.Array, platform: str, heads_split: bool = False
) -> str:
    """The implementation that "auto" stands for, by shapes, mask and kind of device."""
    if platform == "tpu" and _by_keys(query, mask):
        return "splash"
    length, width = query.shape[1], query.shape[-1]
    square = length == mask.shape[-1]
    small = query.dtype in (jnp.bfloat16, jnp.float16) and width <= _HEAD_WIDTH
    # cuDNN has no gradients with a mask where the length is odd.
    if platform == "gpu" and square and small and not (width % 8 or length % 2):
        return "cudnn"
    return "folded" if platform == "cpu" and not heads_split else "xla"


def attend_past(
    query: jax.Array,
    mask: jax.Array,
    past: tuple[jax.Array, jax.Array],
    own: tuple[jax.Array, jax.Array],
) -> jax.Array:
    """Attention of new positions that read earlier ones from a cache.

    The heads of the caches stand before their positions, as batched products want it:
    else every step would copy them.

    Args:
      query: [B,Q,N,H] of the new positions.
      mask: bool, broadcastable to [B,N,Q,P+T]: what each may see of the past and of
        the second set of positions, in this order.
      past: keys and values [B,N,P,H] that all new positions share.
      own: keys and values of the new positions [B,N,T,H]; or of each one's own, flat as
        [B*N*Q,T,H], where samples that begin alike stand side by side.

    Returns:
      [B,Q,N,H] in the dtype of the values.
    """
    query = query.swapaxes(1, 2) * query.shape[-1] ** -0.5  # [B,N,Q,H]
    product = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)
    flat = own[0].ndim == 3

    def read(weights, values):
        """[B,N,Q,T] of the second set."""
        if not flat:
            return jnp.einsum("bnqt,bnth->bnqh", weights, values)
        rows = weights.reshape(len(values), 1, -1)
        return jnp.einsum("rqt,rth->rqh", rows, values).reshape(query.shape)

    if flat:
        rows = query.reshape(len(own[0]), 1, -1)
        second = product("rqh,rth->rqt", rows, own[0])
        second = second.reshape(*query.shape[:3], -1)
    else:
        second = product("bnqh,bnth->bnqt", query, own[0])
    logits = [product("bnqh,bnph->bnqp", query, past[0]), second]
    logits = jnp.where(mask, jnp.concatenate(logits, -1), -1e30)
    weights = jax.nn.softmax(logits, -1).astype(past[1].dtype)
    shared, others = jnp.split(weights, [past[0].shape[2]], axis=-1)
    out = jnp.einsum("bnqp,bnph->bnqh", shared, past[1]) + read(others, own[1])
    return out.swapaxes(1, 2)


def _folded(query, key, value, mask):
    b, length, heads, width = query.shape

    def fold(x):
        return x.transpose(0, 2, 1, 3).reshape(b * heads, -1, width)

    # A large number and not -inf: a row in which nothing may be seen would be NaN, and
    # spread to all gradients.
    bias = jnp.where(mask, 0.0, -1e30).astype(jnp.float32)
    # Heads folded into the batch: XLA's products of three axes are what a CPU runs
    # best.
    bias = jnp.broadcast_to(bias, (b, heads, *bias.shape[2:]))
    logits = jnp.einsum(
        "bqh,bkh->bqk",
        fold(query) * width**-0.5,
        fold(key),
        preferred_element_type=jnp.float32,
    )
    weights = jax.nn.softmax(logits + bias.reshape(b * heads, *bias.shape[2:]), -1)
    out = jnp.einsum("bqk,bkh->bqh", weights.astype(value.dtype), fold(value))
    return out.reshape(b, heads, length, width).transpose(0, 2, 1, 3)


def _by_keys(query: jax.Array, mask: jax.Array) -> bool:
    length = query.shape[1]
    return length % _FLASH_BLOCK == 0 and mask.shape[1:] == (1, 1, length)


def _flash(query, key, value, mask):
    if not _by_keys(query, mask):
        raise ValueError(
            f"attention 'flash' needs lengths that {_FLASH_BLOCK} divides and a mask "
            f"[B,1,1,K]; here they are {query.shape[1]} and {list(mask.shape)}: set "
            "layout.multiple_of, or attention 'xla'"
        )
    keys = jnp.broadcast_to(mask[:, 0, 0], query.shape[:2])
    return _on_every_device(_flash_here, query, key, value, keys)


def _splash(query, key, value, mask):
    if query.shape[1] % _FLASH_BLOCK or query.shape[1] != key.shape[1]:
        raise ValueError(
            f"attention 'splash' needs lengths that {_FLASH_BLOCK} divides; here they "
            f"are {query.shape[1]} and {key.shape[1]}: set model.length or "
            "layout.multiple_of, or attention 'xla'"
        )
    if mask.shape[1:3] == (1, 1):
        mask = jnp.broadcast_to(mask[:, 0, 0], query.shape[:2])  # of keys only
    else:
        heads = mask.shape[1]  # 1, or all
        whole = len(query), heads, query.shape[1], key.shape[1]
        mask = jnp.broadcast_to(mask, whole)
    return _on_every_device(_splash_here, query, key, value, mask)


def _on_every_device(here, query, key, value, mask):
    """A kernel on each device's own batch and heads: nothing splits it by itself.

    Args:
      here: the kernel.
      query, key, value: [B,L,N,H].
      mask: [B,L], or [B,1|N,Q,K].
    """
    if not splits_program():
        return here(query, key, value, mask)

    batch = dividing_axes("batch", query.shape[0])
    split = dividing_axes("heads", query.shape[2])
    heads = PartitionSpec(batch, None, split, None)
    by_head = mask.ndim == 4 and mask.shape[1] > 1
    rows = PartitionSpec(batch, split) if by_head else PartitionSpec(batch)
    mapped = jax.shard_map(
        here,
        in_specs=(heads, heads, heads, rows),
        out_specs=heads,
        check_vma=False,
    )
    return mapped(query, key, value, mask)


def _flash_here(query, key, value, keys):
    from jax.experimental.pallas.ops.tpu import flash_attention as kernel

    length = query.shape[1]
    block = max(b for b in _BLOCKS if length % b == 0)
    names = (
        *("block_q", "block_k_major", "block_k", "block_q_major_dkv"),
        *("block_k_major_dkv", "block_k_dkv", "block_q_dkv", "block_k_major_dq"),
        *("block_k_dq", "block_q_dq"),
    )
    run = functools.partial(
        kernel.flash_attention,
        # Keys of another segment than the queries' are not seen.
        segment_ids=kernel.SegmentIds(
            q=jnp.ones(keys.shape, jnp.int32), kv=keys.astype(jnp.int32)
        ),
        sm_scale=query.shape[-1] ** -0.5,
        block_sizes=kernel.BlockSizes(block_b=1, **dict.fromkeys(names, block)),
    )
    out = run(*(x.transpose(0, 2, 1, 3) for x in (query, key, value)))
    return out.transpose(0, 2, 1, 3)


def _splash_here(query, key, value, mask):
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_kernel as kernel,
    )
    from jax.experimental.pallas.ops.tpu.splash_attention import (
        splash_attention_mask as masks,
    )

    length, heads, width = query.shape[1:]
    whole = length, length
    block = max(b for b in _BLOCKS if length % b == 0)

    def make(mask, fused):
        names = ["block_q", "block_kv", "block_kv_compute", "block_q_dkv",
                 "block_kv_dkv", "block_kv_dkv_compute"]  # fmt: skip
        names += [] if fused else ["block_q_dq", "block_kv_dq"]
        sizes = dict.fromkeys(names, block)
        sizes = kernel.BlockSizes(**sizes, use_fused_bwd_kernel=fused)
        return kernel.make_splash_mha(
            mask=mask, block_sizes=sizes, head_shards=1, q_seq_shards=1
        )

    def by_keys(query, key, value, keys):
        """Attention of one sequence [N,L,H] to the keys of a mask [L]."""
        every = masks.MultiHeadMask([masks.FullMask(whole)] * heads)
        # One kernel for all gradients computes the weights once and not twice; where
        # keys are in several blocks it holds the queries' gradient for each of them.
        run = make(every, fused=length == block)
        # Keys of another segment than the queries' are not seen.
        segments = kernel.SegmentIds(
            q=jnp.ones(length, jnp.int32), kv=keys.astype(jnp.int32)
        )
        return run(query * width**-0.5, key, value, segments)

    def by_pairs(query, key, value, mask):
        """The same, by a mask [1|N,L,L]."""
        run = make(jnp.broadcast_to(mask, (heads, *whole)), fused=False)
        # Made within jit these flags come out as arrays, which the kernel cannot
        # branch on (JAX 0.10).
        for name in ("fwd_mask_info", "dq_mask_info", "dkv_mask_info"):
            known = getattr(run, name)._replace(is_dynamic_mask=True)
            setattr(run, name, known)
        return run(query * width**-0.5, key, value)

    one = by_keys if mask.ndim == 2 else by_pairs
    out = jax.vmap(one)(*(x.swapaxes(1, 2) for x in (query, key, value)), mask)
    return out.swapaxes(1, 2)
