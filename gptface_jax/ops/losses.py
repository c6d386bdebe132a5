"""Losses as sums and counts; the mean is taken once (SPEC A.5). All float32."""

from __future__ import annotations

import jax
import jax.numpy as jnp


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross entropy -log softmax(logits)[label] in nats.

    Args:
      logits: float [..., V].
      labels: int [...].

    Returns:
      float32 [...].
    """
    logits = logits.astype(jnp.float32)
    picked = jnp.take_along_axis(logits, labels[..., None], axis=-1)[..., 0]
    return jax.nn.logsumexp(logits, axis=-1) - picked


def masked_sum(values: jax.Array, mask: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Sum of the values where mask, and number of such entries; float32 scalars."""
    mask = mask.astype(jnp.float32)
    return jnp.sum(values * mask), jnp.sum(mask)


def mean(pair: tuple[jax.Array, jax.Array]) -> jax.Array:
    """Mean of a (sum, count) pair, 0 where the count is 0."""
    total, count = pair
    return total / jnp.maximum(count, 1.0)


def contrastive(
    image_features: jax.Array,
    text_features: jax.Array,
    log_scale: jax.Array,
    real: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Symmetric image-text contrastive loss over the batch.

    Args:
      image_features, text_features: float [B,D], normalised here.
      log_scale: scalar, log of the inverse temperature; capped at log 100.
      real: bool [B], pairs that count; the others are nobody's alternative.

    Returns:
      (loss [B] in nats, accuracy [B] of retrieving the text), float32, 0 where
      not real.
    """

    def unit(x):
        x = x.astype(jnp.float32)
        return x * jax.lax.rsqrt(jnp.sum(x * x, -1, keepdims=True) + 1e-8)

    scale = jnp.exp(jnp.minimum(log_scale, jnp.log(100.0)))
    logits = scale * unit(image_features) @ unit(text_features).T  # [B,B]
    labels = jnp.arange(logits.shape[0])
    texts = jnp.where(real[None, :], logits, -1e9)
    images = jnp.where(real[None, :], logits.T, -1e9)
    loss = 0.5 * (cross_entropy(texts, labels) + cross_entropy(images, labels))
    right = (jnp.argmax(texts, -1) == labels) & real
    return jnp.where(real, loss, 0.0), right.astype(jnp.float32)


def cosface(
    embedding: jax.Array,
    classifier: jax.Array,
    labels: jax.Array,
    scale: float = 64.0,
    margin: float = 0.4,
) -> jax.Array:
    """Cross entropy of cosines with a margin on the true class (Wang et al. 2018).

    Args:
      embedding: float [B,E].
      classifier: float [N,E], a direction for each identity.
      labels: int [B].
      scale: factor on the cosines.
      margin: taken off the true class's.

    Returns:
      float32 [B], nats.
    """
    x, x_norm = _with_norm(embedding.astype(jnp.float32))
    w, w_norm = _with_norm(classifier.astype(jnp.float32))
    cosine = x @ w.T / jnp.maximum(x_norm[:, None] * w_norm, 1e-8)
    true = jax.nn.one_hot(labels, len(w), dtype=jnp.float32)
    return cross_entropy(scale * (cosine - margin * true), labels)


def _with_norm(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows [N,E], and their norms [N]; a row of zeros has cosines and slopes of 0."""
    # The slope of a norm at 0 is NaN: it is taken of ones instead.
    known = jnp.sum(jnp.square(rows), -1, keepdims=True) > 0
    norms = jnp.linalg.norm(jnp.where(known, rows, 1.0), axis=-1)
    return jnp.where(known, rows, 0.0), norms


def age_distribution(ages: jax.Array, count: int, std: float = 2.0) -> jax.Array:
    """Gaussian of each age over 0 .. count - 1, float32 [B,count] that sums to 1."""
    return jnp.exp(_log_age_distribution(ages, count, std))


def _log_age_distribution(ages, count, std=2.0):
    distance = jnp.arange(count) - ages[:, None].astype(jnp.float32)
    return jax.nn.log_softmax(-0.5 * jnp.square(distance / std))


def age_probabilities(logits: jax.Array) -> jax.Array:
    """Probabilities float32 [B,A] of ages: sigmoids, divided by their sum."""
    p = jax.nn.sigmoid(logits.astype(jnp.float32))
    return p / jnp.maximum(jnp.sum(p, -1, keepdims=True), 1e-12)


def expected_age(logits: jax.Array) -> jax.Array:
    """The mean age float32 [B] of logits [B,A] of the ages 0 .. A - 1."""
    return age_probabilities(logits) @ jnp.arange(logits.shape[-1], dtype=jnp.float32)


def age_terms(logits: jax.Array, ages: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Divergence from the label's distribution, and error of the mean (Gao 2018).

    Args:
      logits: float [B,A] of the ages 0 .. A - 1.
      ages: [B] in years.

    Returns:
      (KL(label || p) [B] in nats, |expected age - age| [B] in years), float32; their
      sum is the loss.
    """
    log_label = _log_age_distribution(ages, logits.shape[-1])
    # Of a sigmoid near 0 the logarithm loses its digits: it is taken of the logits.
    log_p = jax.nn.log_sigmoid(logits.astype(jnp.float32))
    log_p -= jax.nn.logsumexp(log_p, -1, keepdims=True)
    divergence = jnp.sum(jnp.exp(log_label) * (log_label - log_p), -1)
    return divergence, jnp.abs(expected_age(logits) - ages)


def binary_sum(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Binary cross entropy summed over attributes, float32 [B] in nats.

    Args:
      logits: float [B,A].
      labels: [B,A], 1, 0, or -1 for what is not known and does not count.
    """
    logits = logits.astype(jnp.float32)
    each = jax.nn.softplus(logits) - logits * labels
    return jnp.sum(jnp.where(labels >= 0, each, 0.0), -1)


def pixel_cross_entropy(logits: jax.Array, classes: jax.Array) -> jax.Array:
    """Mean cross entropy of a picture's pixels, float32 [B] in nats.

    Args:
      logits: float [B,H,W,C].
      classes: int [B,H,W]; a class that there is not does not count.
    """
    known = (classes >= 0) & (classes < logits.shape[-1])
    each = cross_entropy(logits, jnp.where(known, classes, 0))
    count = jnp.maximum(jnp.sum(known, (1, 2)), 1)
    return jnp.sum(jnp.where(known, each, 0.0), (1, 2)) / count


def landmark_terms(
    points: jax.Array, logits: jax.Array, target: jax.Array, truth: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """Error of the points, and cross entropy of the maps that they are read from.

    Args:
      points: float [B,P,2], told, shares of the sides.
      logits: float [B,h,w,P], of the maps, as large as the target.
      target: float [B,h,w,P] in 0..1, see `heatmaps.painted`.
      truth: float [B,P,2]; NaN for a point that is not known.

    Returns:
      (mean distance [B] in shares of the side, mean binary cross entropy [B] in nats),
      float32, of the known points; their sum is the loss.
    """
    known = jnp.isfinite(truth).all(-1)  # [B,P]
    count = jnp.maximum(jnp.sum(known, -1), 1)
    away = jnp.where(known[..., None], points - truth, 0.0)
    # The slope of a root at 0 would be infinite.
    square = jnp.sum(jnp.square(away), -1)
    distance = jnp.where(square > 0, jnp.sqrt(jnp.where(square > 0, square, 1.0)), 0.0)
    logits = logits.astype(jnp.float32)
    each = jnp.mean(jax.nn.softplus(logits) - logits * target, (1, 2))  # [B,P]
    entropy = jnp.sum(jnp.where(known, each, 0.0), -1) / count
    return jnp.sum(distance, -1) / count, entropy
