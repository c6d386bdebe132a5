"""Copies over a whole set: all pairs of it, no others, in parts."""

import io
import itertools
import tracemalloc

import hostile_files as hostile
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from gptface_jax.data.prepare import duplicates, quality


def rows_of(hashes, digests=None, unit=0):
    rows = np.zeros(len(hashes), duplicates.ROW)
    rows["hash"] = hashes
    rows["digest"] = np.arange(len(hashes)) if digests is None else digests
    rows["number"] = (unit << 32) + np.arange(len(hashes))
    return rows


def all_of(units, bits, part, exact=False):
    count = sum(map(len, units))
    works = duplicates.plan(count, bits, exact, part)
    found = [duplicates.find(work, iter(units)) for work in works]
    return [duplicates.merged(found, unit) for unit in range(len(units))]


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 6), st.integers(1, 40), st.integers(0, 2**32))
def test_every_near_pair_is_found_and_no_other(bits, part, seed):
    """Against all pairs, in as many parts as one likes."""
    rng = np.random.default_rng(seed)
    hashes = rng.integers(0, 2**64, 40, np.uint64)
    for i in range(10, 40, 2):  # copies at all distances up to 8
        flips = rng.choice(64, int(rng.integers(9)), replace=False)
        hashes[i] = hashes[rng.integers(10)]
        for flip in flips:
            hashes[i] ^= np.uint64(1) << np.uint64(flip)
    units = [rows_of(hashes[:25]), rows_of(hashes[25:], unit=1)]
    wanted = {
        b
        for a, b in itertools.combinations(range(40), 2)
        if (int(hashes[a]) ^ int(hashes[b])).bit_count() <= bits
    }
    first, second = all_of(units, bits, part)
    assert {*first, *(25 + second)} == wanted


@pytest.mark.parametrize("count", [10, 10**5, 10**8, 4 * 10**8])
@pytest.mark.parametrize("bits", [0, 1, 2, 4, 8])
def test_tables_grow_with_the_set(bits, count):
    """Whatever bits differ, one table at least does not see them."""
    masks = list(duplicates._masks(bits, count))
    rng = np.random.default_rng(0)
    for _ in range(50):
        apart = sum(1 << int(b) for b in rng.choice(64, bits, replace=False))
        assert any(not mask & apart for mask in masks)
    # About eight rows to a value, or the most blocks that are worth it.
    least = min(mask.bit_count() for mask in masks)
    assert 2.0**least * 16 > count or len(masks) >= 5


def test_the_first_of_equal_digests_stays():
    units = [rows_of([1, 2, 3], [7, 8, 7]), rows_of([4, 5], [8, 9], unit=1)]
    first, second = all_of(units, -1, 2, exact=True)
    assert first.tolist() == [2] and second.tolist() == [0]


def _hashed(picture):
    box = np.array([0, 0, *picture.shape[1::-1]])
    return duplicates.perceptual_hash(quality.grey_square(picture, box, 32))


def _copies(picture):
    image = Image.fromarray(picture)
    yield np.asarray(image.resize((72, 72), Image.Resampling.LANCZOS))
    yield np.uint8(picture * 0.8 + 10)
    yield np.asarray(Image.open(io.BytesIO(hostile.encoded(picture, quality=60))))


def test_hashes_survive_what_the_web_does_and_tell_pictures_apart(astronaut):
    """Half of the bits are set, so that two hashes differ in an even number."""
    corners = [(y, x) for y in range(0, 384, 96) for x in range(0, 384, 96)]
    pictures = [astronaut[y : y + 128, x : x + 128] for y, x in corners]
    hashes = [_hashed(picture) for picture in pictures]
    assert {h.bit_count() for h in hashes} == {32}
    apart = np.array([
        (own ^ _hashed(copy)).bit_count()
        for picture, own in zip(pictures, hashes)
        for copy in _copies(picture)
    ])  # fmt: skip
    assert apart.max() <= 4 and (apart <= 2).mean() > 0.9
    others = [(a ^ b).bit_count() for a, b in itertools.combinations(hashes, 2)]
    assert min(others) > 6


def test_memory_is_that_of_a_part():
    """A hundred times the rows, but at a time no more of them than a part holds."""
    most = []
    for count in (20, 2000):
        units = [
            rows_of(np.random.default_rng(unit).integers(0, 2**64, 50, np.uint64))
            for unit in range(count)
        ]
        works = duplicates.plan(50 * count, 2, exact=False, part=1000)
        assert len(works) == 3 * 50 * count // 1000
        peaks = []
        for work in works[:3]:
            tracemalloc.start()
            duplicates.find(work, iter(units))
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        most.append(max(peaks))
    # Its rows, beside a header for each of two arrays of a unit.
    assert most[1] < most[0] + 2000 * 500
