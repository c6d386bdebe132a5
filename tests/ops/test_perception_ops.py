"""Losses of perception, blobs and resampling: answers by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from gptface_jax.ops import heatmaps, losses, resampling


def test_cosface_by_hand():
    """Two people at right angles: cosines 1 and 0, the margin off the first."""
    people = jnp.array([[2.0, 0.0], [0.0, 3.0]])
    found = losses.cosface(jnp.array([[5.0, 0.0]]), people, jnp.array([0]), 10, 0.4)
    np.testing.assert_allclose(found, np.log1p(np.exp(-6.0)), rtol=1e-4)
    wrong = losses.cosface(jnp.array([[5.0, 0.0]]), people, jnp.array([1]), 10, 0.4)
    np.testing.assert_allclose(wrong, 14.0, rtol=1e-5)
    slopes = jax.grad(
        lambda x, w: losses.cosface(x, w, jnp.array([0] * len(x))).sum(), (0, 1)
    )
    for some, others in (
        (jnp.full((1, 2), 1e-12), people),
        (jnp.array([[0.0, 0.0], [5.0, 1.0]]), people),
        (jnp.array([[5.0, 1.0]]), people.at[1].set(0.0)),
    ):
        assert all(np.isfinite(slope).all() for slope in slopes(some, others))
    # Who has no direction changes nothing for others.
    alone, with_nobody = (
        slopes(jnp.array([[5.0, 1.0]]), people),
        slopes(jnp.array([[0.0, 0.0], [5.0, 1.0]]), people),
    )
    assert not with_nobody[0][0].any()
    for one, other in zip((alone[0][0], alone[1]), (with_nobody[0][1], with_nobody[1])):
        np.testing.assert_allclose(one, other, rtol=1e-6)


def test_age_terms_by_hand():
    label = losses.age_distribution(jnp.array([30]), 101)
    np.testing.assert_allclose(label.sum(), 1, rtol=1e-6)
    np.testing.assert_allclose(label[0, 32] / label[0, 30], np.exp(-0.5), rtol=1e-5)
    # Sigmoids in the proportions of the label: no divergence, and the right age.
    log_p = -np.square(np.arange(101.0)[None] - 30) / 8 - 2
    logits = log_p - np.log1p(-np.exp(log_p))
    kl, l1 = losses.age_terms(jnp.array(logits), jnp.array([30.0]))
    np.testing.assert_allclose(kl, 0, atol=1e-5)
    np.testing.assert_allclose(l1, 0, atol=1e-4)
    # All ages alike: the mean is 50, and the divergence log 101 less the entropy.
    kl, l1 = losses.age_terms(jnp.zeros((1, 101)), jnp.array([30.0]))
    entropy = -np.sum(label * np.log(np.maximum(label, 1e-30)))
    np.testing.assert_allclose([kl[0], l1[0]], [np.log(101) - entropy, 20], rtol=1e-4)


def test_attributes_that_are_not_known_do_not_count():
    logits = jnp.array([[0.0, 2.0, -50.0]])
    found = losses.binary_sum(logits, jnp.array([[1, 0, -1]]))
    np.testing.assert_allclose(found, np.log(2) + np.log1p(np.exp(2)), rtol=1e-6)


def test_pixels_that_are_no_class_do_not_count():
    logits = jnp.zeros((2, 1, 2, 4)).at[0, 0, 0, 1].set(100.0)
    classes = jnp.array([[[1, 255]], [[255, 255]]])
    found = losses.pixel_cross_entropy(logits, classes)
    np.testing.assert_allclose(found, [0, 0], atol=1e-6)
    classes = jnp.array([[[1, 3]], [[255, 0]]])
    found = losses.pixel_cross_entropy(logits, classes)
    np.testing.assert_allclose(found, [np.log(4) / 2, np.log(4)], rtol=1e-6)


def test_points_that_are_not_known_do_not_count():
    truth = jnp.array([[[0.5, 0.5], [jnp.nan, jnp.nan]]])
    target = heatmaps.painted(truth, (4, 4), 2.0)
    assert np.isfinite(target).all() and not target[..., 1].any()

    def loss(points, logits):
        return sum(
            x.sum() for x in losses.landmark_terms(points, logits, target, truth)
        )

    points, logits = truth.at[0, 0].add(jnp.array([0.3, 0.4])), jnp.zeros((1, 4, 4, 2))
    points = points.at[0, 1].set(0.0)
    np.testing.assert_allclose(loss(points, logits), 0.5 + np.log(2), rtol=1e-6)
    at_truth = truth.at[0, 1].set(0.0)
    for given in (points, at_truth):
        grads = jax.grad(loss, (0, 1))(given, logits)
        assert all(np.isfinite(g).all() for g in grads)
        assert not grads[0][0, 1].any() and not grads[1][..., 1].any()


def test_a_point_is_found_where_its_blob_is():
    points = jnp.array([[[0.3, 0.6], [0.81, 0.4]]])
    maps = heatmaps.painted(points, (32, 48), 6.0)
    assert maps.shape == (1, 32, 48, 2) and maps.max() <= 1
    np.testing.assert_allclose(heatmaps.centroids(maps), points, atol=2e-3)
    empty = heatmaps.centroids(jnp.zeros((1, 4, 8, 1)))
    np.testing.assert_allclose(empty, [[[0.5 / 8, 0.5 / 4]]])
    # Half of a blob on the border is painted, and its distance is inclusive.
    edge = heatmaps.painted(jnp.array([[[0.0, 0.5]]]), (3, 4), 1.5)[0, ..., 0]
    np.testing.assert_allclose(edge[1, 0], np.exp(-8 * 0.25 / 2.25), rtol=1e-5)
    assert edge[0, 1] == 0 and edge[1, 1] > 0


def test_resizing_by_hand():
    row = jnp.array([0.0, 1.0, 0.0, 0.0]).reshape(1, 1, 4, 1)
    twice = resampling.resize(row, (1, 8))[0, 0, :, 0]
    np.testing.assert_allclose(twice, [0, 0.25, 0.75, 0.75, 0.25, 0, 0, 0])
    # Half: only the two next to each middle count, nothing is averaged beyond.
    np.testing.assert_allclose(resampling.resize(row, (1, 2))[0, 0, :, 0], [0.5, 0])
    # Cubic with A = -0.75 halfway: -0.09375, 0.59375, 0.59375, -0.09375.
    weights = resampling.weights(4, 2, "cubic")
    inner = np.array([-0.09375, 0.59375, 0.59375, -0.09375])
    np.testing.assert_allclose(weights[0], [inner[0] + inner[1], *inner[2:], 0])
    np.testing.assert_allclose(weights.sum(1), 1, rtol=1e-6)
    assert resampling.resize(row, (1, 4)) is row


@pytest.mark.parametrize("source,target", [(5, 3), (4, 6), (7, 1)])
def test_bins_cover_everything_and_may_overlap(source, target):
    bins = resampling.pooling(source, target)
    np.testing.assert_allclose(bins.sum(1), 1, rtol=1e-6)
    assert (bins > 0).any(0).all()
    mean = resampling.adaptive_mean(jnp.ones((1, source, source, 2)), (target, target))
    np.testing.assert_allclose(mean, 1, rtol=1e-6)
