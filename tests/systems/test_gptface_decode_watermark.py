"""The token watermark in the decoder, on the smallest model (SPEC E.8)."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tiny

from gptface_jax.ops import watermark
from gptface_jax.systems.gptface import decode as D
from gptface_jax.systems.gptface.decode import decode
from gptface_jax.systems.gptface.options import DecodeConfig

IMAGE, TEXT = tiny.LAYOUT.image_slice, tiny.LAYOUT.text_slice
PLAIN = DecodeConfig(k=2, guidance="none")
KEY = 99


def run(config, known, rows=slice(None)):
    keys = jax.random.split(jax.random.key(5), 4)[rows]
    tokens = tiny.tokens(4)[rows]
    return decode(*tiny.model(), tokens, jnp.asarray(known[rows]), config, keys)


def codes(result) -> np.ndarray:
    return np.asarray(tiny.VOCAB.joint_to_image(result.tokens[:, IMAGE]))


@pytest.fixture(scope="module")
def known():
    return tiny.known_mask(4, [1, 2, 3, 5, 6, 7, 9, 10])


def test_delta_zero_changes_no_bit(known):
    off = dataclasses.replace(PLAIN, watermark_key=KEY, watermark_left=True)
    plain, same = run(PLAIN, known), run(off, known)
    np.testing.assert_array_equal(plain.tokens, same.tokens)
    np.testing.assert_array_equal(plain.committed_at, same.committed_at)
    programs = [
        D.fill_jitted.lower(*tiny.model(), tiny.tokens(4), known, c, jax.random.key(0))
        for c in (PLAIN, off)
    ]
    assert programs[0].as_text() == programs[1].as_text()


@pytest.mark.parametrize("guidance", ["none", "ascent_norm"])
def test_a_large_delta_leaves_green_codes_only(known, guidance):
    config = dataclasses.replace(
        PLAIN, guidance=guidance, watermark=30.0, watermark_key=KEY
    )
    result = run(config, known)
    is_open = ~known[:, IMAGE]
    green = np.asarray(
        watermark.green(KEY, np.arange(12), watermark.NONE, codes(result))
    )
    assert green[is_open].all() and not green[~is_open].all()
    np.testing.assert_array_equal(
        np.asarray(result.tokens)[known], np.asarray(tiny.tokens(4))[known]
    )


def test_the_literal_form_reads_a_left_neighbour_that_is_known_by_then(known):
    config = dataclasses.replace(
        PLAIN, watermark=30.0, watermark_key=KEY, watermark_left=True
    )
    result = run(config, known)
    found, at = codes(result), np.asarray(result.committed_at)[:, IMAGE]
    left = np.asarray(watermark.left_neighbours(found, 4))
    earlier = np.roll(at, 1, axis=1) < at  # what was given counts as -1
    assert (earlier & ~known[:, IMAGE]).any() and (~earlier & ~known[:, IMAGE]).any()
    seen = np.where(earlier, left, watermark.NONE)
    green = np.asarray(watermark.green(KEY, np.arange(12), seen, found))
    assert green[~known[:, IMAGE]].all()


@pytest.mark.parametrize("by_left", [pytest.param(False, marks=pytest.mark.slow), True])
def test_batch_mates_do_not_matter(known, by_left):
    config = dataclasses.replace(
        PLAIN, watermark=2.0, watermark_key=KEY, watermark_left=by_left
    )
    together = codes(run(config, known))
    for row in range(4):
        alone = codes(run(config, known, slice(row, row + 1)))
        np.testing.assert_array_equal(alone[0], together[row])
    other = codes(run(dataclasses.replace(config, watermark_key=KEY + 1), known))
    assert (other != together).any()


def test_words_are_not_marked():
    known = tiny.known_mask(4, range(5), side="text")
    options = {"side": "text", "guidance": "none", "k": 1}
    plain = run(DecodeConfig(**options), known)
    marked = run(DecodeConfig(**options, watermark=9.0), known)
    np.testing.assert_array_equal(plain.tokens, marked.tokens)


def test_deltas_and_keys_that_make_no_sense():
    for wrong, said in (
        ({"watermark": -1.0}, "watermark is -1.0; use a number from 0 on"),
        ({"watermark": float("nan")}, "watermark is nan"),
        ({"watermark_key": -1}, "watermark_key is -1; use an integer"),
        ({"watermark_key": "secret"}, "watermark_key is 'secret'"),
    ):
        with pytest.raises(ValueError, match=said):
            DecodeConfig(**wrong)
