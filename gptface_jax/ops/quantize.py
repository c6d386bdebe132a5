"""Vector quantisation: nearest codes, straight-through, statistics (SPEC A.2.1)."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

MAX_DISTANCES = 2**24  # of rows to codes held at a time by `nearest`: 64 MiB
MIN_CODES = 128  # compared at a time, whatever the number of rows


def distances(z: jax.Array, codebook: jax.Array) -> jax.Array:
    """Squared distances, float32: z [...,C], codebook [K,C] -> [...,K].

    In full precision; by default accelerators round the factors of a product.
    """
    z, codebook = z.astype(jnp.float32), codebook.astype(jnp.float32)
    # |z - e|^2 multiplied out: one product of matrices instead of K differences a row.
    # It subtracts large numbers, hence the full precision.
    cross = jnp.einsum("...c,kc->...k", z, codebook, precision="highest")
    return jnp.sum(z * z, -1, keepdims=True) - 2.0 * cross + jnp.sum(codebook**2, -1)


def _least(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(smallest, its first index int32) along the last axis; the last one for NaN.

    Two plain reductions: XLA's argmin takes five times as long on a CPU.
    """
    least = jnp.min(x, axis=-1)
    # The first of equals, so that every backend gives the same codes. NaN equals
    # nothing and would otherwise give an index beyond the end.
    index = jax.lax.broadcasted_iota(jnp.int32, x.shape, x.ndim - 1)
    index = jnp.where(x == least[..., None], index, x.shape[-1] - 1)
    return least, jnp.min(index, axis=-1)


def nearest(z: jax.Array, codebook: jax.Array) -> jax.Array:
    """Index of the closest code: z [...,C], codebook [K,C] -> int32 [...].

    The lowest of several that are equally close. Has no gradient. No more than about
    `MAX_DISTANCES` distances exist at a time: beyond, codes are compared in chunks
    with the best so far. (Chunks of codes and not of rows, because rows may be
    sharded over devices; then each device keeps its own.)
    """
    z, codebook = jax.lax.stop_gradient((z, codebook))
    shape, size = z.shape[:-1], codebook.shape[0]
    chunk = max(MAX_DISTANCES // max(1, math.prod(shape)), MIN_CODES)
    if chunk >= size:
        return _least(distances(z, codebook))[1]

    def compare(i, best):
        # The last chunk is moved back to be full; codes met twice change nothing.
        start = jnp.minimum(i * chunk, size - chunk)
        part = distances(z, jax.lax.dynamic_slice_in_dim(codebook, start, chunk))
        distance, index = best
        nearer, there = _least(part)
        # Strictly: of codes at one distance the lower number stays, as without chunks.
        closer = nearer < distance
        there = jnp.where(closer, start + there, index)
        return jnp.where(closer, nearer, distance), there

    best = jnp.full(shape, jnp.inf, jnp.float32), jnp.zeros(shape, jnp.int32)
    return jax.lax.fori_loop(0, -(-size // chunk), compare, best)[1]


def straight_through(z_e: jax.Array, z_q: jax.Array) -> jax.Array:
    """The value z_q, with the gradient of the identity on z_e."""
    # z_e cancels in the value; the gradient sees z_e alone.
    return z_e + jax.lax.stop_gradient(z_q - z_e)


def rotate(z_e: jax.Array, z_q: jax.Array) -> jax.Array:
    """The value z_q, with the gradient of the rotation and scaling from z_e to z_q.

    Angles between the slopes at codes and the codes thus become those between the
    slopes at latents and the latents (Fifty et al. 2024, arXiv 2410.06424, equation 4):
    with unit vectors e of z_e and q of z_q and r of e + q,
    |z_q| / |z_e| (I - 2 r r^T + 2 q e^T) z_e, all but the last factor constant.

    Args:
      z_e, z_q: [...,C].
    """

    def length(x):
        return jnp.sqrt(jnp.sum(jnp.square(x), -1, keepdims=True) + 1e-12)

    def dot(a, b):
        return jnp.sum(a * b, -1, keepdims=True)

    latent, code = jax.lax.stop_gradient((z_e, z_q))
    e, q = latent / length(latent), code / length(code)
    # The rotation from e to q is two reflections, the first in r, halfway between them.
    r = (e + q) / length(e + q)
    turned = z_e - 2 * r * dot(r, z_e) + 2 * q * dot(e, z_e)
    return length(code) / length(latent) * turned


GRADIENTS = {"straight_through": straight_through, "rotation": rotate}


def codebook_loss(
    z_e: jax.Array, z_q: jax.Array, beta: float = 0.25, beta_on_codebook: bool = False
) -> jax.Array:
    """Codebook plus commitment term, mean over all entries, float32 scalar.

    Args:
      z_e: encoder output [...,C].
      z_q: its codes, differentiable in the codebook [...,C].
      beta: weight of the weaker term.
      beta_on_codebook: False is the textbook form, beta * |z_e - sg(z_q)|^2;
        True puts beta on |sg(z_e) - z_q|^2 as the published VQGANs do.
    """
    z_e, z_q = z_e.astype(jnp.float32), z_q.astype(jnp.float32)
    commitment = jnp.mean(jnp.square(jax.lax.stop_gradient(z_q) - z_e))
    codes = jnp.mean(jnp.square(z_q - jax.lax.stop_gradient(z_e)))
    if beta_on_codebook:
        return commitment + beta * codes
    return codes + beta * commitment


def counts(image_ids: jax.Array, codebook_size: int) -> jax.Array:
    """Count of each code, float32 [K], in int [...]."""
    return jnp.bincount(image_ids.reshape(-1), length=codebook_size).astype(jnp.float32)


def perplexity(usage: jax.Array) -> jax.Array:
    """Perplexity of code counts [K], exp of their entropy: between 1 and K."""
    p = usage / jnp.maximum(jnp.sum(usage), 1e-9)
    return jnp.exp(-jnp.sum(jnp.where(p > 0, p * jnp.log(jnp.maximum(p, 1e-12)), 0.0)))


def revive(
    codebook: jax.Array,
    usage: jax.Array,
    candidates: jax.Array,
    threshold: float,
    key: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Moves rarely used codes onto encoder outputs.

    Args:
      codebook: [K,C].
      usage: float [K], moving average of the counts of a batch.
      candidates: [S,C] recent encoder outputs.
      threshold: codes with less usage are moved.
      key: random key.

    Returns:
      (codebook [K,C], dead bool [K]).
    """
    dead = usage < threshold
    pick_key, noise_key = jax.random.split(key)
    size = codebook.shape[0]
    pick = jax.random.randint(pick_key, (size,), 0, candidates.shape[0])
    # Two dead codes may be moved onto one output: without noise they stay twins for
    # ever.
    spread = 0.01 * jnp.std(candidates)
    fresh = candidates[pick] + spread * jax.random.normal(noise_key, codebook.shape)
    return jnp.where(dead[:, None], fresh, codebook), dead


def split(
    codebook: jax.Array, usage: jax.Array, size: int, noise: float, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """A larger codebook, in which codes that are used often have children beside them.

    One after another the code whose share is the largest gets a child and shares with
    it (and with those it has) in equal parts, so that all end up with about the same.
    Codes keep their numbers and values; of equal ones the lowest number is taken, so
    that without noise every latent gets the code that it had (`nearest`).

    Args:
      codebook: [K,C].
      usage: float [K], how often each is used.
      size: of the larger codebook, K or more.
      noise: standard deviation of what is added to a child, in those of the codebook.
      key: random key.

    Returns:
      (codebook [size,C], parents int32 [size], k < K its own).
    """
    known, more = len(codebook), size - len(codebook)
    shares = usage[:, None] / jnp.arange(1, more + 1)  # before the next split
    _, best = jax.lax.top_k(shares.reshape(-1), more)
    parents = jnp.concatenate([jnp.arange(known), best // max(more, 1)])
    spread = noise * jnp.std(codebook) * (jnp.arange(size) >= known)[:, None]
    moved = spread * jax.random.normal(key, (size, codebook.shape[1]))
    return codebook[parents] + moved, parents.astype(jnp.int32)


def entropy_loss(z_e: jax.Array, codebook: jax.Array, temperature: float) -> jax.Array:
    """Small when every latent is sure of its code and all codes are in use.

    Mean entropy of softmax(-distance / temperature) of each latent, less the entropy
    of their mean, in nats (MaskGIT's tokenizer, SPEC A.2.1).

    Args:
      z_e: [...,C]; the gradient reaches it and the codebook.
      codebook: [K,C].

    Returns:
      float32 scalar, -log K at best.
    """
    scores = -distances(z_e.reshape(-1, z_e.shape[-1]), codebook) / temperature
    # From logs, for a latent that is sure has probabilities of 0, whose log is -inf.
    log_p = jax.nn.log_softmax(scores, axis=-1)
    each = -jnp.mean(jnp.sum(jnp.exp(log_p) * log_p, axis=-1))
    share = jnp.mean(jnp.exp(log_p), axis=0)
    return each + jnp.sum(share * jnp.log(jnp.maximum(share, 1e-12)))
