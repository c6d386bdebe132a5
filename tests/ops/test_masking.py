import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptface_jax.ops import masking

span_mask = jax.jit(masking.span_mask, static_argnums=0, static_argnames="spans")
random_mask = jax.jit(masking.random_mask, static_argnums=0)


def components(mask: np.ndarray) -> int:
    """4-connected components of a bool [h,w] mask."""
    todo, count = {tuple(p) for p in np.argwhere(mask)}, 0
    while todo:
        count += 1
        stack = [todo.pop()]
        while stack:
            y, x = stack.pop()
            for near in ((y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)):
                if near in todo:
                    todo.remove(near)
                    stack.append(near)
    return count


@given(st.integers(0, 35), st.integers(0, 2**31 - 1))
@settings(max_examples=40, deadline=None)
def test_spans_are_exact_and_connected(budget, seed):
    masks = span_mask((5, 7), jnp.full((3,), budget), jax.random.key(seed))
    assert masks.shape == (3, 35)
    for mask in np.asarray(masks).reshape(3, 5, 7):
        assert mask.sum() == budget
        assert components(mask) == min(budget, 1)


def test_prefixes_of_a_span_are_connected_and_nested():
    key = jax.random.key(3)
    previous = np.zeros((6, 6), bool)
    for budget in range(1, 37):
        mask = span_mask((6, 6), jnp.array([budget]), key)
        mask = np.asarray(mask).reshape(6, 6)
        assert (mask | ~previous).all() and components(mask) == 1
        previous = mask


def test_masks_depend_on_the_key_alone():
    budget = jnp.full((4,), 9)
    first, again, other = (
        np.asarray(span_mask((6, 6), budget, jax.random.key(seed)))
        for seed in (8, 8, 9)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()
    assert len({m.tobytes() for m in first}) > 1  # samples differ


def test_every_sample_has_its_own_budget():
    budget = np.array([0, 1, 7, 36])
    masks = span_mask((6, 6), jnp.asarray(budget), jax.random.key(4))
    np.testing.assert_array_equal(np.asarray(masks).sum(1), budget)


def test_several_seeds_give_at_most_so_many_regions():
    masks = span_mask((8, 8), jnp.full((50,), 12), jax.random.key(0), spans=3)
    found = [components(m) for m in np.asarray(masks).reshape(-1, 8, 8)]
    assert max(found) <= 3 and np.mean(found) > 1.5


def test_seeds_are_uniform():
    masks = span_mask((4, 4), jnp.ones(8000, int), jax.random.key(1))
    counts = np.asarray(masks).sum(0)
    # 500 expected a cell; chi-square with 15 degrees of freedom, p = 0.001 at 37.7.
    assert ((counts - 500) ** 2 / 500).sum() < 37.7


def grown_one_cell_at_a_time(rng, size=3, budget=4):
    """The algorithm of SPEC A.6.1 with beta = 1, literally."""
    mask = np.zeros((size, size), bool)
    mask[tuple(rng.integers(0, size, 2))] = True
    while mask.sum() < budget:
        padded = np.pad(mask, 1).astype(int)
        weight = padded[2:, 1:-1] + padded[:-2, 1:-1]
        weight = (weight + padded[1:-1, 2:] + padded[1:-1, :-2]) * ~mask
        share = (weight / weight.sum()).ravel()
        mask.ravel()[rng.choice(size * size, p=share)] = True
    return mask


def test_growth_has_the_law_of_the_sequential_algorithm():
    rng, count = np.random.default_rng(0), 6000
    slow = np.array([grown_one_cell_at_a_time(rng).ravel() for _ in range(count)])
    fast = np.asarray(span_mask((3, 3), jnp.full((count,), 4), jax.random.key(7)))
    code = 2 ** np.arange(9)
    shares = [np.bincount(m @ code, minlength=512) / count for m in (slow, fast)]
    assert set(np.flatnonzero(shares[1])) <= set(np.flatnonzero(shares[0]))
    expected = (shares[0] + shares[1]) / 2
    where = expected > 0
    difference = (shares[0] - shares[1])[where]
    statistic = (difference**2 / (2 * expected[where])).sum() * count
    # The two-sample chi-square has as many degrees of freedom as shapes, less one.
    freedom = where.sum() - 1
    assert statistic < freedom + 4 * np.sqrt(2 * freedom)


def test_budget_is_traced():
    traces = []

    @jax.jit
    def mask(budget, key):
        traces.append(None)
        return masking.span_mask((4, 4), budget, key)

    for budget in (1, 5, 16):
        assert mask(jnp.array([budget]), jax.random.key(0)).sum() == budget
    assert len(traces) == 1


def test_random_masks_are_exact_and_uniform():
    masks = random_mask((4000, 10), jnp.full((4000,), 3), jax.random.key(2))
    assert (masks.sum(1) == 3).all()
    assert np.abs(np.asarray(masks).mean(0) - 0.3).max() < 0.03


@pytest.mark.parametrize("kind", [masking.text_random_mask, masking.text_span_mask])
@given(
    lengths=st.lists(st.integers(0, 12), min_size=4, max_size=4),
    ratio=st.floats(0.05, 1.0),
    seed=st.integers(0, 2**31 - 1),
)
@settings(max_examples=30, deadline=None)
def test_text_masks(kind, lengths, ratio, seed):
    valid = jnp.arange(12)[None] < jnp.array(lengths)[:, None]
    masks = np.asarray(jax.jit(kind)(valid, ratio, jax.random.key(seed)))
    assert not (masks & ~np.asarray(valid)).any()
    for mask, length in zip(masks, lengths):
        wanted = max(1, round(ratio * length)) if length else 0
        assert abs(mask.sum() - wanted) <= (abs(ratio * length % 1 - 0.5) < 1e-3)
        if kind is masking.text_span_mask and mask.any():
            places = np.flatnonzero(mask)
            assert places[-1] - places[0] + 1 == len(places)


def test_curriculum_of_the_paper():
    steps = (0, 19_999, 20_000, 999_999, 5_000_000)
    ratios = [float(masking.curriculum_ratio(jnp.array(s))) for s in steps]
    np.testing.assert_allclose(ratios, [0.15, 0.15, 0.16, 0.64, 0.65], atol=1e-6)


def test_curriculum_rescaled_to_fifty_equal_stages():
    steps = jnp.arange(500)
    ratios = np.asarray(masking.curriculum_ratio(steps, 500))
    values, counts = np.unique(ratios.round(4), return_counts=True)
    np.testing.assert_allclose(values, 0.15 + 0.01 * np.arange(50), atol=1e-4)
    assert (counts == 10).all()
