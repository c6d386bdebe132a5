"""In which order decoding fills positions, and that it never goes back (SPEC A.14)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from gptface_jax.ops import sampling
from gptface_jax.systems.gptface import decode as D
from gptface_jax.systems.gptface import predict as P
from gptface_jax.systems.gptface.decode import decode
from gptface_jax.systems.gptface.model import GPTFaceConfig
from gptface_jax.systems.gptface.options import DecodeConfig

KEY = jax.random.key(11)
HEIGHT, WIDTH = tiny.LAYOUT.grid


def random_known(size: int, seed: int) -> np.ndarray:
    """bool [B,19], False at any number of image cells."""
    rng = np.random.default_rng(seed)
    known = np.ones((size, tiny.LAYOUT.length), bool)
    share = rng.random((size, 1))
    known[:, tiny.LAYOUT.image_slice] = rng.random((size, HEIGHT * WIDTH)) > share
    return known


def steps_to_known(known: np.ndarray) -> np.ndarray:
    """Breadth-first distance of every cell to the known ones; bool -> int [h,w]."""
    distance, reached, step = np.where(known, 0, -1), known.copy(), 0
    while reached.any() and not reached.all():
        step += 1
        wide = np.pad(reached, 1)
        near = wide[2:, 1:-1] | wide[:-2, 1:-1] | wide[1:-1, 2:] | wide[1:-1, :-2]
        distance[near & ~reached] = step
        reached |= near
    return distance


def test_the_papers_sequence():
    layout = GPTFaceConfig().layout
    assert layout.length == 507
    assert layout.text_slice == slice(443, 507)
    assert layout.image_slice == slice(1, 442) and layout.sep_index == 442


@pytest.mark.parametrize("k", [1, 3])
def test_commits_are_the_positions_closest_to_known_ones(k):
    module, params = tiny.model()
    known = random_known(40, seed=k)
    config = DecodeConfig(k=k, guidance="none")
    result = decode(module, params, tiny.tokens(40), jnp.asarray(known), config, KEY)
    times = np.asarray(result.committed_at)[:, tiny.LAYOUT.image_slice]
    for row, count in zip(times.reshape(-1, HEIGHT, WIDTH), result.num_iterations):
        for now in range(int(count)):
            ring = steps_to_known(row < now)
            committed, is_open = row == now, row >= now
            assert committed.sum() == min(k, is_open.sum())
            nearest_first = np.sort(ring[is_open])[: committed.sum()]
            np.testing.assert_array_equal(np.sort(ring[committed]), nearest_first)
            boundary = is_open & (ring == 1)
            if boundary.sum() >= k:
                assert boundary[committed].all()


@pytest.mark.parametrize("rule", ["none", "ascent_norm"])
def test_committed_tokens_never_change(rule, monkeypatch):
    module, params = tiny.model()
    seen, inner = [], P.side_logits

    def watched(module, params, tokens, *rest):
        jax.debug.callback(lambda t: seen.append(np.array(t)), tokens)
        return inner(module, params, tokens, *rest)

    monkeypatch.setattr(P, "side_logits", watched)
    tokens = tiny.tokens(1, seed=4)
    known = tiny.known_mask(1, [0, 1, 2, 4, 5, 6, 9])
    config = DecodeConfig(k=2, guidance=rule, form="low_rank")
    # Not jitted: no cached trace of the unwatched function.
    result = D.fill(module, params, tokens, jnp.asarray(known), config, KEY)
    jax.effects_barrier()
    last, at = np.asarray(result.tokens[0]), np.asarray(result.committed_at[0])
    masks = [int((t == tiny.VOCAB.mask_id).sum()) for t in seen]
    assert set(masks) == {7, 5, 3, 1}
    for row, masked in zip(seen, masks):
        before = (7 - masked) // 2  # iterations done
        filled = at < before
        np.testing.assert_array_equal(row[filled], last[filled])
        assert (row[~filled] == tiny.VOCAB.mask_id).all()


@pytest.mark.parametrize(
    "rule", ["none", pytest.param("ascent_layer", marks=pytest.mark.slow)]
)
def test_each_side_gets_its_own_ids(rule):
    module, params = tiny.model()
    tokens = tiny.tokens(6, seed=8)
    padding = np.asarray(tokens) == tiny.VOCAB.pad_id
    known = tiny.known_mask(6, range(12)) & tiny.known_mask(6, range(5), side="text")
    known |= padding
    config = DecodeConfig(k=4, guidance=rule, side="both")
    result = decode(module, params, tokens, jnp.asarray(known), config, KEY)
    after = np.asarray(result.tokens)
    image, text = after[:, tiny.LAYOUT.image_slice], after[:, tiny.LAYOUT.text_slice]
    assert (image >= 13).all() and (image < 21).all()
    words = text[~padding[:, tiny.LAYOUT.text_slice]]
    assert (words < 13).all() and not np.isin(words, tiny.VOCAB.special_ids).any()
    np.testing.assert_array_equal(after[known], np.asarray(tokens)[known])
    wanted = np.ceil((~known).sum(1) / 4)
    np.testing.assert_array_equal(result.num_iterations, wanted)


def test_nothing_open_changes_nothing():
    module, params = tiny.model()
    tokens = tiny.tokens(3)
    # Text positions count as known while images are decoded.
    known = tiny.known_mask(3, range(5), side="text")
    config = DecodeConfig(k=2, guidance="ascent_norm")
    result = decode(module, params, tokens, jnp.asarray(known), config, KEY)
    np.testing.assert_array_equal(result.tokens, tokens)
    assert (result.num_iterations == 0).all() and (result.committed_at == -1).all()
    assert np.isnan(result.itm_log_prob).all()


def test_halton_visits_all_parts_soon():
    ranks = sampling.halton_ranks(8, 8)
    assert sorted(ranks) == list(range(64))
    # By hand: 1/2, 1/3 is cell (4, 2); 1/4, 2/3 is (2, 5); 3/4, 1/9 is (6, 0).
    grid = ranks.reshape(8, 8)
    assert (grid[4, 2], grid[2, 5], grid[6, 0]) == (0, 1, 2)
    for part in (grid[:4, :4], grid[:4, 4:], grid[4:, :4], grid[4:, 4:]):
        assert 2 <= (part < 16).sum() <= 6  # of the first 16 cells about 4
    assert sorted(sampling.halton_ranks(1, 5)) == list(range(5))


def test_halton_order_is_kept_among_what_is_open():
    module, params = tiny.model()
    known = random_known(12, seed=3)
    config = DecodeConfig(k=2, guidance="none", select="halton")
    result = decode(module, params, tiny.tokens(12), jnp.asarray(known), config, KEY)
    times = np.asarray(result.committed_at)[:, tiny.LAYOUT.image_slice]
    ranks = sampling.halton_ranks(HEIGHT, WIDTH)
    for row in times:
        order = np.argsort(ranks)
        visited = row[order][row[order] >= 0]
        np.testing.assert_array_equal(visited, np.arange(len(visited)) // 2)


def test_entropy_does_not_ask_what_was_drawn():
    """By two keys the positions are the same where no noise enters, not the ids."""
    module, params = tiny.model()
    tokens, known = tiny.tokens(16), jnp.asarray(random_known(16, seed=5))
    both = {}
    for confidence in ("drawn", "entropy"):
        config = DecodeConfig(
            k=1, guidance="none", select="global", confidence=confidence,
            confidence_noise=0.0, temperature=5.0, temperature_end=5.0,
        )  # fmt: skip
        first, second = (
            decode(module, params, tokens, known, config, jax.random.key(seed))
            for seed in (0, 1)
        )
        start = np.asarray(first.committed_at) == 0
        both[confidence] = (start == (np.asarray(second.committed_at) == 0)).all()
        assert (np.asarray(first.tokens) != np.asarray(second.tokens)).any()
    assert both == {"drawn": False, "entropy": True}


@pytest.mark.parametrize("select", ["global", "halton"])
def test_tokens_taken_back_cost_no_iteration(select):
    module, params = tiny.model()
    tokens = tiny.tokens(8)
    known = tiny.known_mask(8, range(12))
    plain = DecodeConfig(k=2, guidance="none", select=select)
    again = dataclasses.replace(plain, remask=1.0)
    first, second = (
        decode(module, params, tokens, jnp.asarray(known), config, KEY)
        for config in (plain, again)
    )
    np.testing.assert_array_equal(first.num_iterations, second.num_iterations)
    assert (np.asarray(second.tokens) != tiny.VOCAB.mask_id).all()
    at = np.asarray(second.committed_at)[~known]
    assert (at >= 0).all() and (at < 6).all()
    # Some were taken back: fewer than k are left of an early iteration, more of a late.
    counts = np.stack([np.bincount(row, minlength=6) for row in at.reshape(8, -1)])
    assert (counts[:, :3].sum(1) < 6).all() and (counts.sum(1) == 12).all()
    with pytest.raises(ValueError, match="remask is -1"):
        DecodeConfig(remask=-1)
