"""Frechet distance against scipy, moments in any split, precision and recall."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptface_jax.core.errors import UserError
from gptface_jax.evaluate import distributions


def gaussian(count, width, seed):
    """[N,D] with a random covariance and mean."""
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ rng.normal(
        size=(width, width)
    ) + rng.normal(size=width)


def reference(a, b):
    from scipy import linalg

    first, second = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = linalg.sqrtm(first @ second).real
    step = a.mean(0) - b.mean(0)
    return step @ step + np.trace(first + second - 2 * root)


@pytest.mark.parametrize("width", [2, 9, 40])
def test_frechet_agrees_with_scipy(width):
    a, b = gaussian(300, width, 1), gaussian(200, width, 2)
    found = distributions.frechet_distance(a, b)
    assert found == pytest.approx(reference(a, b), rel=1e-9)
    assert distributions.frechet_distance(b, a) == pytest.approx(found, rel=1e-9)


def test_frechet_of_singular_covariances():
    # 5 samples span 4 of 9 directions. In the space of both sets the exact value:
    # tr (C_a C_b)^(1/2) is the sum of the singular values of A^T B / (n - 1).
    a, b = gaussian(5, 9, 1), gaussian(5, 9, 2)
    first, second = a - a.mean(0), b - b.mean(0)
    singular = np.linalg.svd(first @ second.T / 4, compute_uv=False).sum()
    expected = np.sum((a.mean(0) - b.mean(0)) ** 2) - 2 * singular
    expected += (np.sum(first**2) + np.sum(second**2)) / 4
    assert distributions.frechet_distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_frechet_by_hand():
    # One dimension: (2 - 0)^2 + (s_a - s_b)^2, variances 2 and 8.
    a, b = np.array([[-1.0], [1.0]]), np.array([[0.0], [4.0]])
    assert distributions.frechet_distance(a, b) == pytest.approx(4 + 2)
    same = distributions.frechet_distance(gaussian(50, 6, 0), gaussian(50, 6, 0))
    assert same == pytest.approx(0, abs=1e-9)


@given(st.lists(st.integers(0, 20), min_size=1, max_size=6))
def test_moments_do_not_depend_on_the_split(sizes):
    table = 1e6 + gaussian(sum(sizes) + 2, 3, 4)  # far from 0: sums of squares cancel
    added, merged = distributions.Moments(), distributions.Moments()
    for part in np.split(table, np.cumsum(sizes)):
        added.add(np.float64(part))
        merged.merge(distributions.Moments(part))
    for moments in (added, merged):
        assert moments.count == len(table)
        np.testing.assert_allclose(moments.mean, table.mean(0), rtol=1e-12)
        np.testing.assert_allclose(
            moments.covariance, np.cov(table, rowvar=False), rtol=1e-6, atol=1e-6
        )
    other = gaussian(30, 3, 5)
    assert distributions.frechet_distance(added, other) == pytest.approx(
        distributions.frechet_distance(table, other), rel=1e-9
    )


def test_what_has_no_distance_is_refused():
    some = gaussian(5, 3, 0)
    with pytest.raises(UserError, match="at least 2 samples, not 1"):
        distributions.frechet_distance(some, some[:1])
    with pytest.raises(UserError, match="at least 2 samples, not 0"):
        distributions.frechet_distance(distributions.Moments(), some)
    with pytest.raises(UserError, match="features of 3 and of 2 values"):
        distributions.frechet_distance(some, some[:, :2])
    with pytest.raises(UserError, match="not finite"):
        distributions.frechet_distance(some, np.where(some > 0, np.nan, some))
    with pytest.raises(UserError, match="shape"):
        distributions.Moments(some[0])


def test_precision_and_recall_by_hand():
    # Real points 0, 1, 2, 3 have their second neighbours at 2, 1, 1, 2: they cover
    # -2..5. Of the generated -1, 2.5, 5, 9 all but 9 are inside. These have their
    # second neighbours at 6, 3.5, 4, 6.5 and cover all of -7..15.5.
    real = np.array([[0.0], [1.0], [2.0], [3.0]])
    generated = np.array([[-1.0], [2.5], [5.0], [9.0]])
    found = distributions.precision_recall(real, generated, k=2)
    assert found == (0.75, 1.0)
    assert distributions.precision_recall(generated, real, k=2) == (1.0, 0.75)


def test_precision_and_recall_of_equal_and_of_distant_sets():
    some = gaussian(40, 5, 3)
    assert distributions.precision_recall(some, some) == (1.0, 1.0)
    assert distributions.precision_recall(some, some + 1e3) == (0.0, 0.0)
    # A collapsed generator: what it makes is real, but it misses most of what is.
    precision, recall = distributions.precision_recall(
        some, some[:1] + 1e-3 * gaussian(40, 5, 4)
    )
    assert precision == 1.0 and recall < 0.1


def test_precision_and_recall_against_all_pairs():
    real, generated = gaussian(60, 4, 6), 1.3 * gaussian(50, 4, 6)

    def pairs(a, b):
        return np.linalg.norm(a[:, None] - b[None], axis=-1)

    def inside(points, centres):
        radii = np.sort(pairs(centres, centres), axis=1)[:, 3]
        return np.mean((pairs(points, centres) <= radii).any(axis=1))

    expected = inside(generated, real), inside(real, generated)
    assert 0 < min(expected) and max(expected) < 1
    for rows in (7, 1024):
        found = distributions.precision_recall(real, generated, rows=rows)
        assert found == pytest.approx(expected)


def test_too_few_for_neighbours():
    some = gaussian(4, 2, 0)
    distributions.precision_recall(some, some, k=3)
    with pytest.raises(UserError, match="at least 5 samples .* smaller set has 4"):
        distributions.precision_recall(some, gaussian(9, 2, 1), k=4)
    with pytest.raises(UserError, match="k = 0"):
        distributions.precision_recall(some, some, k=0)


def test_inception_score_by_hand():
    """Sure of two classes by halves: 2. Unsure of all: 1."""
    sure = np.repeat(np.eye(2), 3, axis=0)
    assert distributions.inception_score(sure) == (pytest.approx(2), 0)
    assert distributions.inception_score(np.full((5, 4), 0.25))[0] == pytest.approx(1)
    # KL((1,0) | (3/4,1/4)) and KL((1/2,1/2) | (3/4,1/4)), by hand.
    mixed = np.array([[1.0, 0.0], [0.5, 0.5]])
    wanted = (np.log(4 / 3) + 0.5 * np.log(2 / 3) + 0.5 * np.log(2)) / 2
    assert distributions.inception_score(mixed)[0] == pytest.approx(np.exp(wanted))
    # Each half of the sure ones has one class only.
    assert distributions.inception_score(sure, splits=2) == (pytest.approx(1), 0)


def test_what_are_no_probabilities():
    with pytest.raises(UserError, match="add up to 1"):
        distributions.inception_score([[0.5, 0.4]])
    with pytest.raises(UserError, match="add up to 1"):
        distributions.inception_score([[1.5, -0.5]])
    with pytest.raises(UserError, match="2 splits of 1 pictures"):
        distributions.inception_score([[1.0, 0.0]], splits=2)


def test_kernel_distance_by_hand():
    a, b = np.array([[0.0], [1.0]]), np.array([[1.0], [2.0]])
    # (x y + 1)^3 in one dimension: 1 within a, 27 within b; between 1, 1, 8 and 27.
    assert distributions.kernel_distance(a, b) == pytest.approx(1 + 27 - 2 * 37 / 4)
    # As pairs: 0 with 2 and 1 with 1 alone.
    paired = distributions.kernel_distance(a, b, groups=[0, 1])
    assert paired == pytest.approx(1 + 27 - 2 * (1 + 8) / 2)


def test_kernel_distance_is_unbiased_and_tells_sets_apart():
    rng = np.random.default_rng(0)
    found = [
        distributions.kernel_distance(*rng.normal(size=(2, 8, 4))) for _ in range(400)
    ]
    assert abs(np.mean(found)) < 4 * np.std(found) / 20 and min(found) < 0
    table = gaussian(30, 5, 1)
    for groups in (range(30), np.arange(30) // 2):
        same = distributions.kernel_distance(table, table, groups)
        assert same == pytest.approx(0, abs=1e-9)
        assert distributions.kernel_distance(table, table + 2, groups) > 1


def test_what_shares_a_group_does_not_count():
    a, b = gaussian(6, 3, 1), gaussian(6, 3, 2)
    groups = [0, 0, 1, 1, 2, 2]
    kernel = [((x @ y.T) / 3 + 1) ** 3 for x, y in ((a, a), (b, b), (a, b))]
    pairs = [(i, j) for i in range(6) for j in range(6) if i // 2 != j // 2]
    of_a, of_b, between = (np.mean([k[p] for p in pairs]) for k in kernel)
    found = distributions.kernel_distance(a, b, groups)
    assert found == pytest.approx(of_a + of_b - 2 * between)


def test_what_a_kernel_distance_cannot_be_of():
    table = gaussian(5, 3, 1)
    with pytest.raises(UserError, match="at least 2 samples, not 1"):
        distributions.kernel_distance(table[:1], table)
    with pytest.raises(UserError, match="at least 2 samples, not 1"):
        distributions.kernel_distance(table, table, [7] * 5)
    with pytest.raises(UserError, match="4 and 5 samples do not belong to 5 groups"):
        distributions.kernel_distance(table[:4], table, range(5))
    with pytest.raises(UserError, match="different spaces"):
        distributions.kernel_distance(table, table[:, :2])
