"""Metrics of 3D faces against answers computed by hand."""

import numpy as np
import pytest

from gptface_jax.data import rendering
from gptface_jax.evaluate import faces3d

RNG = np.random.default_rng(0)
HEAD = RNG.normal(size=(30, 3)) * [60, 90, 70]


def test_vertex_errors():
    truth = np.stack([HEAD, HEAD])
    moved = truth + np.array([[[3, 4, 0]], [[0, 0, 1]]])
    np.testing.assert_allclose(faces3d.vertex_error(moved, truth), [5, 1])
    np.testing.assert_allclose(faces3d.aligned_vertex_error(moved, truth), 0, atol=1e-9)


def test_alignment_undoes_a_rigid_motion_and_no_more():
    turn = rendering.rotation(np.array([0.3, -0.5, 0.2]))
    moved = HEAD @ turn.T + [10, -20, 30]
    np.testing.assert_allclose(faces3d.aligned(moved, HEAD), HEAD, atol=1e-9)
    larger = faces3d.aligned(1.5 * moved, HEAD)
    assert np.abs(larger - HEAD).max() > 5
    # A mirrored head stays one.
    assert np.abs(faces3d.aligned(HEAD * [-1, 1, 1], HEAD) - HEAD).max() > 10


def test_nme_by_hand():
    truth = np.zeros((1, 68, 2))
    truth[0, 36], truth[0, 45] = [10, 0], [60, 0]
    points = truth + [3, 4]
    assert faces3d.nme(points, truth) == pytest.approx(0.1)
    truth[0, 0] = np.nan  # not known
    points[0, 0] = 1e6
    assert faces3d.nme(points, truth) == pytest.approx(0.1)


def test_correlation_of_each_coefficient():
    truth = np.array([[1.0, 1, 5], [2, 2, 6], [3, 3, 7]])
    found = np.array([[2.0, -1, 4], [4, -2, 4], [6, -3, 4]])
    np.testing.assert_allclose(faces3d.correlation(found, truth), [1, -1, np.nan])


def test_angles():
    vectors = np.array([[0, 0.4, 0], [0.2, 0, 0]])
    one = np.stack([rendering.rotation(v) for v in vectors])
    other = np.stack([np.eye(3), one[1]])
    got = faces3d.pose_degrees(one, other)
    np.testing.assert_allclose(got, [np.degrees(0.4), 0], atol=1e-5)


def test_psnr_counts_the_mask_alone():
    truth = np.zeros((2, 4, 4, 3))
    image = truth.copy()
    image[:, :2] = 0.1
    mask = np.zeros((2, 4, 4), bool)
    mask[0, :2], mask[1, 2:] = True, True
    np.testing.assert_allclose(faces3d.masked_psnr(image, truth, mask), [20, 100])
    assert np.isnan(faces3d.masked_psnr(image[:1], truth[:1], mask[:1] & False)).all()


def test_light_from_the_right_and_from_above():
    right, above = (rendering.ambient(0.5)[None].copy() for _ in range(2))
    right[0, 3], above[0, 1] = 0.4, 0.2
    np.testing.assert_allclose(faces3d.light_direction(right), [[1, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(faces3d.light_direction(above), [[0, 1, 0]], atol=1e-6)
    np.testing.assert_allclose(faces3d.light_cosine(right, above), [0], atol=1e-6)
    np.testing.assert_allclose(faces3d.light_cosine(right, 2 * right), [1], atol=1e-6)


def test_intervals_of_a_calibrated_gaussian_cover():
    std = np.full((200, 50), 2.0)
    mean = RNG.normal(size=(200, 50))
    truth = mean + std * RNG.normal(size=mean.shape)
    assert faces3d.coverage(mean, std, truth).mean() == pytest.approx(0.8, abs=0.02)
    assert faces3d.coverage(mean, std / 10, truth).mean() < 0.2
    # By hand: 1.2816 standard deviations hold 80 %.
    edge = np.array([[0.0, 1.27, 1.29]])
    assert faces3d.coverage(0 * edge, 1 + 0 * edge, edge) == pytest.approx(2 / 3)
